"""nginx: a file with the ``server`` lines of an ``upstream``, checked with ``nginx -t``, and a reload.

After a reload new workers serve with the new file, and those before finish what they have, then exit: nobody tells
what they still have open. So a server that was taken out drains until every worker from before has exited. The number
that is told is that of those workers, not of requests.

A note beside the file says with which content nginx was reloaded last: an agent that died between writing and reloading
reloads again. So does one that finds an nginx that didn't run before: whether it read the file before or after the
agent had written it can't be told.
"""

import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from outrider.balancers.agent.claim import started
from outrider.balancers.agent.driver import AgentServer, Away, CannotFollow, Report, read_text, replace_file

HEADER = "# written by outrider balancer-agent; changes here are undone\n"
NOBODY = "server 0.0.0.0:1 down;\n"
"""nginx refuses an upstream without servers; with this one it answers 502."""
COMMAND_S = 15.0
RELOAD_S = 15.0
POLL_S = 0.05
_LINE = re.compile(r"server (\S+) weight=(\d+);")
_PREFIX = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (\[\w+\]) \d+#\d+: ")
"""Before each line of nginx: with it the same trouble would be told as another one every second."""
_FAILS = re.compile(r"\[(emerg|alert|crit|error)\]")
_FILE = re.compile(r"^# configuration file (.+):$", re.MULTILINE)
"""In what ``nginx -T`` prints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is written down beside the file.

    Attributes:
        loaded: Digest of the content that nginx was reloaded with.
        draining: Addresses that were taken out, and whose workers may live still.
    """

    loaded: str = ""
    draining: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NginxState:
    """What nginx does with one upstream.

    Attributes:
        content: Of the file.
        former_workers: Those that exit once they have finished.
        pid_file: Where nginx's process is looked for.
    """

    content: str
    note: Note
    former_workers: int = 0
    version: str = ""
    is_running: bool = True
    pid_file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Write the file, check the configuration, reload, wait for the new workers, write the note."""

    content: str
    draining: tuple[str, ...]

    def __str__(self) -> str:
        lines = [line for line in self.content.splitlines() if not line.startswith("#")]
        return " ".join(lines) + " reload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Write the file for the nginx that will be started, and forget what was loaded before."""

    content: str

    def __str__(self) -> str:
        return "write the file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """All workers from before have exited: nothing drains any more."""

    note: Note

    def __str__(self) -> str:
        return "drained"


Command = Load | Forget | Leave


def render(servers: tuple[AgentServer, ...]) -> str:
    """The file's content."""
    lines = "".join(f"server {server.address} weight={server.weight};\n" for server in servers)
    return HEADER + (lines or NOBODY)


def addresses_in(content: str) -> tuple[str, ...]:
    """The addresses in a file's content."""
    return tuple(match[1] for match in _LINE.finditer(content))


def digest(content: str) -> str:
    """Of a file's content."""
    return hashlib.sha256(content.encode()).hexdigest()


def plan(servers: tuple[AgentServer, ...], state: NginxState) -> tuple[Command, ...]:
    """A reload when the file isn't as it must be, or wasn't loaded; else what has drained is forgotten."""
    content = render(servers)
    is_loaded = content == state.content and digest(content) == state.note.loaded
    if not state.is_running:
        return () if content == state.content and state.note == Note() else (Leave(content=content),)
    if not is_loaded:
        before = {*addresses_in(state.content), *state.note.draining}
        return (Load(content=content, draining=tuple(sorted(before - set(addresses_in(content))))),)
    if state.note.draining and not state.former_workers:
        return (Forget(note=Note(loaded=state.note.loaded)),)
    return ()


def report(servers: tuple[AgentServer, ...], state: NginxState) -> Report:
    """What is loaded serves; what was taken out drains while a worker from before lives.

    Raises:
        Away: nginx doesn't run.
    """
    if not state.is_running:
        raise Away(
            f"nginx doesn't run: {state.pid_file or 'its pid file'} names no master process of nginx (--pid-file); the"
            " servers are in the file for its next start"
        )
    loaded = digest(state.content) == state.note.loaded
    urls = {server.address: server.url for server in servers}
    serving = addresses_in(state.content) if loaded else ()
    return Report(
        serving=frozenset(urls.get(one) or f"http://{one}" for one in serving),
        draining={
            f"http://{one}": state.former_workers
            for one in state.note.draining
            if one not in serving and state.former_workers
        },
        version=state.version,
    )


class NginxDriver:
    """One upstream of one nginx."""

    def __init__(
        self,
        *,
        upstream_file: Path,
        pid_file: Path,
        test_command: Sequence[str] = ("nginx", "-t", "-q"),
        reload_command: Sequence[str] = ("nginx", "-s", "reload"),
    ) -> None:
        """Nothing is read yet.

        Args:
            upstream_file: Included in the ``upstream`` block.
            pid_file: nginx's own.
        """
        self.name = "nginx"
        self._file, self._pid_file = upstream_file, pid_file
        self._note_file = upstream_file.with_name(f"{upstream_file.name}.outrider")
        self._test, self._reload = tuple(test_command), tuple(reload_command)
        self._version = ""

    def look(self) -> NginxState:
        """Read the file, the note and the workers; see ``AgentDriver.look``."""
        master = self._master()
        self._version = self._version or _version(self._test[0])
        return NginxState(
            content=read_text(self._file),
            note=_read_note(read_text(self._note_file)),
            former_workers=sum(workers(master).values()) if master else 0,
            version=self._version,
            is_running=master != 0,
            pid_file=str(self._pid_file),
        )

    def plan(self, servers: tuple[AgentServer, ...], state: NginxState) -> tuple[Command, ...]:
        """See the function ``plan``."""
        return plan(servers, state)

    def report(self, servers: tuple[AgentServer, ...], state: NginxState) -> Report:
        """See the function ``report``."""
        return report(servers, state)

    def perform(self, command: Command) -> None:
        """See ``AgentDriver.perform``. A file that nginx refuses is taken back."""
        match command:
            case Load():
                self._load(command)
            case Forget():
                self._write_note(command.note)
            case Leave():
                replace_file(self._file, command.content)
                self._write_note(Note())

    def _load(self, command: Load) -> None:
        before = read_text(self._file)
        master = self._master()
        # until the reload is known to have happened both the old and the new servers may be sent to
        self._write_note(Note(draining=command.draining))
        replace_file(self._file, command.content)
        try:
            self._check()
        except CannotFollow:
            if before:
                replace_file(self._file, before)
            raise
        former = {process for process, exits in workers(master).items() if not exits}
        if problem := _run(self._reload):
            raise CannotFollow(f"nginx was not reloaded: {' '.join(self._reload)}: {problem}")
        self._wait_for_new_workers(master, former)
        self._write_note(Note(loaded=digest(command.content), draining=command.draining))

    def _check(self) -> None:
        """Ask nginx whether it takes the configuration, and whether the file is a part of it.

        Raises:
            CannotFollow: it isn't so.
        """
        if problem := _run(self._test):
            raise CannotFollow(f"nginx refuses the configuration with {self._file}: {problem}")
        # -T is -t, and prints every file; a command of the operator's own may have another way to test
        dump = ["-T" if word == "-t" else word for word in self._test]
        read = list(_files_of(dump)) if dump != list(self._test) else []
        if read and not any(os.path.realpath(one) == os.path.realpath(self._file) for one in read):
            raise CannotFollow(
                f"nginx's configuration doesn't include {self._file}: write `include {self._file};` into the `upstream`"
                " block, or name the file that is there with --upstream-file"
            )

    def _wait_for_new_workers(self, master: int, former: set[tuple[int, str]]) -> None:
        end = time.monotonic() + RELOAD_S
        while time.monotonic() < end:
            now = {process for process, exits in workers(master).items() if not exits}
            if now and not now & former:
                return
            time.sleep(POLL_S)
        raise CannotFollow(f"nginx started no new workers within {RELOAD_S:g} s of the reload; its error log says why")

    def _master(self) -> int:
        """Process id of nginx's master; 0 when it doesn't run. A file that was left behind may name any process."""
        text = read_text(self._pid_file).strip()
        if not text.isdigit() or not started(int(text)):
            return 0
        return int(text) if "master process" in _title(Path("/proc", text)) else 0

    def _write_note(self, note: Note) -> None:
        replace_file(self._note_file, json.dumps({"loaded": note.loaded, "draining": note.draining}) + "\n")


def workers(master: int) -> dict[tuple[int, str], bool]:
    """The workers of a master: (process id, start) -> whether it exits once it has finished."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            status = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        title = _title(folder)
        if len(status) > 19 and status[1] == str(master) and "worker process" in title and status[0] not in "ZX":
            found[(int(folder.name), status[19])] = "shutting down" in title
    return found


def _title(folder: Path) -> str:
    """What a process calls itself; empty when it has ended."""
    try:
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _read_note(text: str) -> Note:
    """What can't be read counts as no note: then nginx is reloaded once more."""
    try:
        told = json.loads(text or "{}")
        return Note(loaded=str(told.get("loaded", "")), draining=tuple(str(each) for each in told.get("draining", ())))
    except (ValueError, AttributeError, TypeError):
        return Note()


def _run(command: Sequence[str]) -> str:
    """Run a program; what it said when it failed, in a line; empty when it did not.

    Raises:
        CannotFollow: there is no such program, or it doesn't end.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False, errors="replace")
    except OSError as error:
        raise CannotFollow(f"{command[0]}: can't be run: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise CannotFollow(f"{' '.join(command)}: did not end within {COMMAND_S:g} s") from error
    if done.returncode == 0:
        return ""
    return reason_in(done.stderr or done.stdout) or _status(done.returncode)


def reason_in(said: str) -> str:
    """The line of nginx that says why: warnings may stand before it."""
    lines = [_PREFIX.sub(r"\1 ", line.strip()) for line in said.splitlines() if line.strip()]
    return next((line for line in lines if _FAILS.search(line)), lines[0] if lines else "")


def _status(code: int) -> str:
    return f"it left with {code}" if code >= 0 else f"it was ended by signal {-code}"


def _files_of(command: Sequence[str]) -> Iterator[str]:
    """The files that nginx has read, as it prints them; none when it doesn't."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return
    if done.returncode == 0:
        yield from _FILE.findall(done.stdout)


def _version(program: str) -> str:
    """``1.22.1``; empty when it can't be told."""
    try:
        done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"nginx/(\S+)", done.stderr + done.stdout)
    return match[1] if match else ""
