"""What is typed to run an app from its payload, and what to say when that can't be run."""

import errno
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from outrider.core.errors import Refused

RELEASE_FAULTS = (
    errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ELIBBAD, errno.ENOTDIR, errno.EISDIR, errno.ELOOP
)  # fmt: skip
"""What a start fails with that is the release's own fault."""


def command_line(
    words: Iterable[str], placeholders: Mapping[str, str], root: Path, environment: Mapping[str, str]
) -> list[str]:
    """The argument list with its placeholders filled in and the program found, in the payload first.

    Args:
        words: ``[process] command``.
        placeholders: What stands for ``port``, ``host`` and ``version``.
        root: The unpacked payload.
        environment: The app's; its ``PATH`` is looked through.

    Raises:
        Refused: there is no such program.
    """
    command = [re.sub(r"\{(port|host|version)\}", lambda found: placeholders[found[1]], word) for word in words]
    program = command[0]
    if (root / program).is_file():
        command[0] = str(root / program)
    elif "/" in program:
        raise Refused(f"no program {program!r} in the payload")
    else:
        found = shutil.which(program, path=environment.get("PATH", os.defpath))
        if found is None:
            raise Refused(f"no program {program!r} in the payload or on PATH")
        command[0] = found
    return command


def exec_problem(program: str, error: OSError) -> str:
    """Why the system refuses to run ``program``, and what to do about it, in one line."""
    name = Path(program).name
    match error.errno:
        case errno.ENOENT:
            return f"{name} can't be started: the interpreter that it names is not on this machine"
        case errno.EACCES:
            return f"{name} can't be started: not executable; set its x bit in the archive"
        case errno.ENOEXEC:
            return f"{name} can't be started: neither a program for this machine nor a script with a #! line"
        case _:
            return f"{name} can't be started: {error.strerror}"


def last_line(output: Path) -> str:
    """``; it said: ...`` with the last line that the app wrote to ``output``, shortened to 200 characters."""
    with output.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
        lines = file.read().decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return f"; it said: {said[-1][:200]}" if said else ""
