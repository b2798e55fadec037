"""What is typed to run an app from its payload, and what to say when that can't be run.

Each problem names its evidence, from which ``core.blame`` decides whether the release or this machine is at fault. What
can be seen without running anything is looked at ahead of the start (``check_program``), before any turn.
"""

import errno
import os
import platform
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from outrider.core.blame import Evidence, seen_in
from outrider.core.errors import DriverError, Refused
from outrider.files import file_name

START_FAULTS = (
    errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ELIBBAD, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EPERM
)  # fmt: skip
"""What a start fails with because of the program itself, or of how this machine treats it."""

_MACHINES: Mapping[str, int] = {
    "x86_64": 62, "aarch64": 183, "armv7l": 40, "armv6l": 40, "i686": 3, "i386": 3, "ppc64le": 21, "s390x": 22,
    "riscv64": 243,
}  # fmt: skip
"""``uname -m`` -> ``e_machine`` of its programs. Source: elf(5), linux/elf-em.h."""
_NOT_FOUND = re.compile(
    "(?:^|[\\s:])['\u2018\"]?([\\w./+-]+)['\u2019\"]?: (?:command )?(?:not found|No such file or directory)$"
)
"""How shells and env(1) say that a program is missing: ``run.sh: 2: exec: python3: not found``."""
_SHOWN = 5
_LINES = 20
"""Some languages print where they were, and who they are, behind what was wrong."""


def problem(text: str, evidence: Evidence) -> DriverError:
    """The error for what was found: ``Refused`` when asking again the same way is no use on any machine."""
    return Refused(text, evidence=evidence) if evidence in _OF_THE_RELEASE else DriverError(text, evidence=evidence)


_OF_THE_RELEASE: frozenset[Evidence] = frozenset({"no-exec-bit", "not-a-program", "program-left-out", "ended"})


def command_line(
    words: Iterable[str],
    placeholders: Mapping[str, str],
    root: Path,
    environment: Mapping[str, str],
    others: Iterable[Path] = (),
) -> list[str]:
    """The argument list with its placeholders filled in and the program found, in the payload first.

    Args:
        words: ``[process] command``.
        placeholders: What stands for ``port``, ``host`` and ``version``.
        root: The unpacked payload.
        environment: The app's; its ``PATH`` is looked through.
        others: Other payloads that are unpacked on this machine.

    Raises:
        Refused: there is no such program, and another payload has it: this one lacks it.
        DriverError: there is no such program; the setting may be wrong.
    """
    command = [re.sub(r"\{(port|host|version)\}", lambda found: placeholders[found[1]], word) for word in words]
    program = file_name(command[0])
    if (root / program).is_file():
        command[0] = str(root / program)
        return command
    found = None if "/" in program else shutil.which(program, path=environment.get("PATH", os.defpath))
    if found is not None:
        command[0] = found
        return command
    raise _absent(program, root, others)


def _absent(program: str, root: Path, others: Iterable[Path]) -> DriverError:
    where = "in the payload" if "/" in program else "in the payload or on PATH"
    inside = root / program
    if inside.is_symlink():
        link = os.readlink(inside)
        return problem(
            f"{program!r} in the payload is a link to {link}, which is not on this machine", "no-interpreter"
        )
    if any((other / program).is_file() for other in others):
        return problem(f"no program {program!r} {where}; the version before has it", "program-left-out")
    names = sorted(os.fsencode(path.relative_to(root)).decode(errors="replace") for path in _files(root))
    close = get_close_matches(program, names, n=1)
    meant = f"did you mean {close[0]!r}?" if close else f"the payload has {', '.join(names[:_SHOWN]) or 'no file'}"
    return problem(f"no program {program!r} {where}: {meant}; check process.command of this machine", "wrong-setting")


def _files(root: Path) -> Iterable[Path]:
    """The payload's files, the top folder's and those right below it."""
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from (one for one in sorted(path.iterdir()) if one.is_file())
        elif path.is_file():
            yield path


def check_program(program: Path, root: Path, environment: Mapping[str, str]) -> None:
    """See without running it whether ``program`` can be run on this machine.

    What can't be seen this way shows when it is started.

    Raises:
        Refused: it can't be run on any: no x bit, neither a program nor a script.
        DriverError: it can't be run here: the mount is noexec, its interpreter is missing, it is for another processor.
    """
    name = program.name
    try:
        mode = program.stat().st_mode
        mounted = os.statvfs(program).f_flag
        with program.open("rb") as file:
            head = file.read(256)
    except PermissionError:  # a program that may be run and not read; the start will tell
        return
    except OSError as error:
        raise problem(f"{name} can't be started: {error.strerror or error}", "no-permission") from error
    if not mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH):
        where = "set its x bit in the archive" if _is_inside(program, root) else "set its x bit"
        evidence: Evidence = "no-exec-bit" if _is_inside(program, root) else "no-permission"
        raise problem(f"{name} can't be started: not executable; {where}", evidence)
    if mounted & os.ST_NOEXEC:
        raise problem(_noexec(program), "noexec")
    _check_format(name, head, root, environment)


def _check_format(name: str, head: bytes, root: Path, environment: Mapping[str, str]) -> None:
    if head.startswith(b"\x7fELF") and len(head) >= 20:
        found = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
        here = platform.machine()
        wanted = {number for machine, number in _MACHINES.items() if machine in (here, _also(here))}
        if wanted and found not in wanted:
            built = next((machine for machine, number in _MACHINES.items() if number == found), f"machine {found}")
            raise problem(
                f"{name} can't be started: it is built for {built}, and this machine is {here}; give the package its"
                " architecture (package create --arch)",
                "other-architecture",
            )
    elif head.startswith(b"#!"):
        line = head[2:].split(b"\n", 1)[0]
        if line.endswith(b"\r"):
            raise problem(
                f"{name} can't be started: its #! line ends with a carriage return; save it with Unix line ends",
                "not-a-program",
            )
        words = os.fsdecode(line).split()
        if not words:
            raise problem(f"{name} can't be started: its #! line names no interpreter", "not-a-program")
        interpreter = Path(words[0])
        if interpreter.is_absolute() and not interpreter.exists():
            raise problem(_no_interpreter(name, words[0]), "no-interpreter")
        asked = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), "")
        if interpreter.name == "env" and asked:
            path = environment.get("PATH", os.defpath)
            if not (root / asked).is_file() and shutil.which(asked, path=path) is None:
                raise problem(_no_interpreter(name, asked), "no-interpreter")


def _also(machine: str) -> str:
    """The older machine whose programs it runs, too."""
    return {"x86_64": "i686", "aarch64": "armv7l"}[machine] if machine in ("x86_64", "aarch64") else ""


def exec_problem(program: str, root: Path, error: OSError, environment: Mapping[str, str]) -> DriverError:
    """Why the system refuses to run ``program``, and what to do about it, in one line."""
    name = Path(program).name
    if error.errno not in START_FAULTS:
        return DriverError(f"{name} can't be started: {error.strerror or error}", evidence=seen_in(error.errno))
    if os.path.exists(program):
        try:
            check_program(Path(program), root, environment)
        except DriverError as found:
            return found
    match error.errno:
        case errno.ENOENT:
            # of a program it may be the loader that it was linked for: musl's on a machine with glibc, say
            return problem(
                f"{name} can't be started: the interpreter that it names is not on this machine", "no-interpreter"
            )
        case errno.EACCES | errno.EPERM:
            return problem(
                f"{name} can't be started: this machine forbids it ({error.strerror}), although its x bit is set; look"
                " at the mount, the folders above it and the security policy",
                "no-permission",
            )
        case errno.ENOEXEC:
            text = f"{name} can't be started: neither a program for this machine nor a script with a #! line"
            return problem(text, "not-a-program")
        case _:
            return problem(f"{name} can't be started: {error.strerror}", "not-a-program")


def missing_program(status: str, said: str, root: Path, environment: Mapping[str, str]) -> str:
    """The program that an app lacked which has ended; empty when it ended for another reason.

    Shells and env(1) end with 127 and name what they didn't find. Only what is neither in the payload nor on this
    machine counts: then it is missing here. Where nobody knows the code (``gone``), the words alone have to do.
    """
    found = _NOT_FOUND.search(said) if status in ("exit 127", "gone") else None
    if found is None or (root / found[1]).exists() or found[1].startswith("./"):
        return ""
    path = environment.get("PATH", os.defpath)
    return found[1] if shutil.which(found[1], path=path) is None else ""


def last_line(output: Path) -> str:
    """The last of ``last_lines``; empty when the app said nothing."""
    return "".join(last_lines(output)[-1:])


def last_lines(output: Path) -> tuple[str, ...]:
    """The last lines that the app wrote to ``output``, each shortened to 200 characters; none when it said nothing."""
    try:
        with output.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ()
    said = [line.strip() for line in lines if line.strip()]
    return tuple(line[:200] for line in said[-_LINES:])


def _is_inside(program: Path, root: Path) -> bool:
    return program.is_relative_to(root) and not program.is_symlink()


def _noexec(program: Path) -> str:
    mount = program.parent.resolve()
    while not os.path.ismount(mount) and mount != mount.parent:
        mount = mount.parent
    return (
        f"{program.name} can't be started: {mount} is mounted noexec on this machine; remount it with exec, or put"
        " instance.state_dir on another file system"
    )


def _no_interpreter(name: str, interpreter: str) -> str:
    return (
        f"{name} can't be started: {interpreter}, which it needs, is not on this machine; install it, or pack it into"
        " the payload"
    )
