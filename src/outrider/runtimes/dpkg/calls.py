"""What dpkg is asked, and what it is told to do.

dpkg keeps a journal of its own: an installation that was cut off by a kill or a power cut is put right by the next one.
"""

import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from outrider.core.blame import Evidence, seen_in
from outrider.core.errors import ConfigError, DriverError, Refused
from outrider.core.versions import parse
from outrider.files import read_file
from outrider.runtimes.command.programs import Call, Done, Running, run
from outrider.runtimes.process.identity import boot_id, look_at

_ASK_S = 30.0
_LOCKED = re.compile(r"lock.*was locked by another process|unable to lock|is locked", re.IGNORECASE)
_LOCKED_POLL_S = 1.0
_SAYS: tuple[tuple[str, Evidence], ...] = (
    (r"No space left on device", "disk-full"),
    (r"Read-only file system", "read-only"),
    (r"dependency problems|breaks|conflicts with", "unfit"),
    (r"package architecture \(.*\) does not match", "other-architecture"),
    (r"maintainer script|installation script|removal script", "ended"),
    (r"not a Debian format archive|corrupt|unexpected end of file", "bad-payload"),
)
"""What a line of dpkg's is evidence of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What dpkg knows of a package.

    Attributes:
        version: As Debian writes it, with the revision.
        status: ``installed``, or how far dpkg has come: ``unpacked``, ``half-configured``, ``half-installed``.
    """

    version: str
    status: str

    @property
    def is_installed(self) -> bool:
        """Whether dpkg has nothing left to do for it."""
        return self.status == "installed"


def upstream_of(version: str) -> str:
    """``1.2.3-rc.1`` of Debian's ``2:1.2.3~rc.1-1~deb12``."""
    _, _, behind = version.rpartition(":")
    found, _, _ = behind.rpartition("-")
    return (found or behind).replace("~", "-")


def facts_of(name: str) -> Facts | None:
    """The package as it is installed here, whole or in part; None: it isn't.

    Raises:
        DriverError: dpkg doesn't say.
    """
    done = _ask("dpkg-query", "--show", "--showformat=${Version}\n${db:Status-Status}\n", name)
    if done.returncode != 0:
        if "no packages found" in done.stderr:
            return None
        raise DriverError(f"dpkg-query {name}: exit {done.returncode}; it said: {_last(done.stderr)}")
    version, status, *_ = [*done.stdout.splitlines(), "", ""]
    return Facts(version=version, status=status) if version else None


def check_payload(payload: Path, *, name: str, release: str) -> str:
    """The version, as Debian writes it, of the package in the file ``payload``.

    Raises:
        Refused: no package, another one, or another version than ``release``.
        DriverError: it is for another architecture.
    """
    done = _ask("dpkg-deb", "--show", "--showformat=${Package}\n${Version}\n${Architecture}\n", str(payload))
    if done.returncode != 0:
        raise Refused(f"{payload.name}: not a Debian package: {_last(done.stderr)}")
    found, version, architecture, *_ = [*done.stdout.splitlines(), "", "", ""]
    if found != name:
        raise Refused(f"{payload.name}: holds the package {found or '?'}; dpkg.package is {name}")
    if not same_version(upstream_of(version), release):
        raise Refused(f"{payload.name}: holds {name} {version}, and is offered as {release}")
    here = _ask("dpkg", "--print-architecture").stdout.strip()
    if architecture not in ("all", here):
        raise DriverError(
            f"{payload.name}: {name} {version} is for {architecture}, this machine is {here}",
            evidence="other-architecture",
        )
    return version


def same_version(one: str, other: str) -> bool:
    """Whether two texts name the same version."""
    if one == other:
        return True
    try:
        return parse(one) == parse(other)
    except ConfigError:
        return False


def is_busy(home: Path) -> bool:
    """Whether a dpkg that a sidekick started in ``home`` still runs; the sidekick may have been killed meanwhile."""
    try:
        record = msgspec.json.decode(read_file(home / "program.json"), type=Running)
    except (OSError, msgspec.MsgspecError):
        return False
    found = look_at(record.pid) if record.boot_id == boot_id() else None
    return found is not None and found.started == record.started and not found.zombie


def install(package: Path, home: Path, within_s: float) -> None:
    """Install ``package`` over whatever is there, older or newer, whole or in part.

    A dpkg that runs already, ours of an earlier life or another one, is waited for.

    Args:
        home: Folder for what dpkg prints and for the note that it runs.

    Raises:
        DriverError: dpkg says no, or has not ended in time; what is installed then may be there in part.
    """
    deadline = time.monotonic() + within_s
    while is_busy(home) and time.monotonic() < deadline:
        time.sleep(_LOCKED_POLL_S)
    # without the first, where DPKG_FORCE is set, dpkg leaves a newer version in place and exits with 0
    words = ("dpkg", "--force-downgrade", "--force-confdef", "--force-confold", "--install", str(package))
    while True:
        done = run(
            Call(
                action="install",
                words=words,
                environment={
                    **os.environ,
                    "DEBIAN_FRONTEND": "noninteractive",
                    "PATH": os.environ.get("PATH") or "/usr/sbin:/usr/bin:/sbin:/bin",
                    "OUTRIDER_WORKLOAD": package.stem,
                },
                home=home,
                output=home / "dpkg.log",
                limit_s=max(1.0, deadline - time.monotonic()),
            )
        )
        if done.code == 0:
            return
        locked = any(_LOCKED.search(line) for line in done.lines)
        if not locked or time.monotonic() + _LOCKED_POLL_S > deadline:
            raise DriverError(
                f"dpkg --install {package.name}: {_told(done)}", evidence="not-now" if locked else _evidence(done)
            )
        time.sleep(_LOCKED_POLL_S)


def _evidence(done: Done) -> Evidence:
    for pattern, evidence in _SAYS:
        if any(re.search(pattern, line) for line in done.lines):
            return evidence
    return "unknown"


def _told(done: Done) -> str:
    """The exit code, and the line that says most."""
    said = [line for line in done.lines if re.search(r"error|problem|unable|cannot|depends on", line, re.IGNORECASE)]
    line = (said or list(done.lines) or [""])[0]
    return f"exit {done.code}" + (f"; it said: {line[:200]}" if line else "")


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "nothing"


def _ask(*words: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ASK_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        raise DriverError(f"can't run {words[0]}: {error.strerror or error}", evidence=seen_in(error.errno)) from error
    except subprocess.TimeoutExpired as error:
        raise DriverError(f"{words[0]} has not ended within {_ASK_S:g} s") from error
