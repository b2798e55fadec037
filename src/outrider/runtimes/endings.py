"""Why a workload has ended by itself: what every runtime looks at, whether that was at once or after a while.

How long an app takes to load depends on the machine, so its end means the same after a tenth of a second and after a
minute, as long as it has not served yet. Then this machine's state speaks for the machine: what an app needs to come
up is missing or taken. Once it has served, it had its port and its disk, and that state alone proves nothing any more.
``Finding`` therefore has two answers, and ``core.sidekick.remember`` takes the one that fits:

===============================================  ===============  =================
seen                                             before it served  after it served
===============================================  ===============  =================
its last words name a program that isn't here    no-interpreter   no-interpreter
its last words name a full disk (ENOSPC)         disk-full        disk-full
the disk is full, and its words don't say so     disk-full        unknown
another process listens on its port              no-port          ended
the same, and its last words name a taken port   no-port          no-port
its last words name its own port as taken        no-port          ended
its last words name some taken port              unknown          ended
how it ended isn't known, or by SIGKILL, and     no-resources     no-resources
the kernel has killed for memory meanwhile
killed by SIGKILL                                unknown          unknown
none of these                                    ended            ended
===============================================  ===============  =================

On a full disk an app's last words may be missing, for they may go to that disk. So after it served the full disk is
neither taken for the cause nor ruled out: nobody is blamed, and it is tried again. A taken port may be another one than
it was told: a second port of the version before, or one of another program. That is nobody's, either.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from outrider.core.blame import Evidence
from outrider.core.errors import DriverError
from outrider.files import is_full
from outrider.runtimes import Exited
from outrider.runtimes.process.command import missing_program, problem
from outrider.runtimes.process.ports import in_use

_FULL = re.compile(r"no space left on device|disk quota exceeded|\benospc\b|\bedquot\b", re.IGNORECASE)
_TAKEN = re.compile(r"address already in use|\beaddrinuse\b", re.IGNORECASE)
"""The C library's words for ENOSPC, EDQUOT and EADDRINUSE, which most languages pass on, and the names themselves."""
_KILLED = re.compile(r"signal 9\b")
_KNOWN = re.compile(r"exit \d|signal (?!9\b)")
_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where a workload has run.

    Attributes:
        disk: Folder on the disk that it writes to; None: that can't be seen from here.
        host, port: Where it was told to listen on this machine; port 0: nowhere.
        root: Its unpacked payload; None: what it runs is not looked up on this machine, as in an image.
        environment: The app's; its ``PATH`` is looked through.
        own: Its processes that are left, and that may still have the port.
        kills_before: ``kills_for_memory`` when it was started, or watched first; None: nobody looked.
    """

    disk: Path | None
    host: str = ""
    port: int = 0
    root: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    own: Callable[[], Collection[int]] = tuple
    kills_before: int | None = None


class MemoryKills:
    """What ``kills_for_memory`` said when each workload was started, or watched first by this process."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def note(self, workload_id: str, *, again: bool = False) -> None:
        """Remember it as it is now; ``again``: of a new start."""
        if again or workload_id not in self._counts:
            self._counts[workload_id] = kills_for_memory()

    def of(self, workload_id: str) -> int | None:
        """``Run.kills_before``."""
        return self._counts.get(workload_id)

    def forget(self, workload_id: str) -> None:
        """It was removed."""
        self._counts.pop(workload_id, None)


def kills_for_memory() -> int:
    """How many processes the kernel here has ended for memory since its boot, in whatever control group.

    0 when it doesn't say. Source: kernel mm/oom_kill.c (OOM_KILL), proc(5) ``/proc/vmstat``.
    """
    try:
        found = re.search(r"^oom_kill (\d+)$", _VMSTAT.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found out about an end.

    Attributes:
        evidence: If the workload had not served yet.
        after_serving: If it had.
        text: What belongs behind its status, for people: ``; it said: ...; port 80 is in use by ...``; may be empty.
    """

    evidence: Evidence
    after_serving: Evidence
    text: str = ""

    def exited(self, workload_id: str, status: str) -> Exited:
        """The end of ``workload_id``, as a watch delivers it."""
        return Exited(
            workload_id=workload_id,
            status=status,
            more=self.text,
            evidence=self.evidence,
            after_serving=self.after_serving,
        )

    def error(self, text: str) -> DriverError:
        """The end as the error of a start: ``text`` says who has ended, and how."""
        return problem(f"{text}{self.text}", self.evidence)


def look_at_end(
    status: str,
    said: Sequence[str],
    run: Run,
    *,
    evidence: Evidence = "ended",
    after_serving: Evidence | None = None,
    shown: int = 1,
) -> Finding:
    """Look at an app's last words and at this machine, right after it has ended by itself.

    Args:
        status: ``exit 3``, ``signal 9``, ``gone``; as ``Exited.status``.
        said: The last lines that it has printed, the last one last.
        run: Where it ran.
        evidence: What the runtime knows already. Only "ended" and "unknown" leave anything to find out.
        after_serving: The same if it has served; None: no difference.
        shown: How many of its last lines people see.
    """
    killed, is_open = "", evidence in ("ended", "unknown") and not _KNOWN.match(status)
    if is_open and run.kills_before is not None and kills_for_memory() > run.kills_before:
        # of which one can't be told; either it needs more than before, or this machine gives less than others
        evidence = after_serving = "no-resources"
        killed = "; the kernel of this machine has killed a process for memory meanwhile"
    if evidence == "ended" and _KILLED.match(status):
        # nobody sends SIGKILL to itself: the kernel for memory, or a person
        evidence, after_serving = "unknown", "unknown"
    after = evidence if after_serving is None else after_serving
    telling = [line for line in said if _FULL.search(line) or _TAKEN.search(line)]
    words = said[-shown:] if shown else ()
    # some languages print where they were, and who they are, behind what was wrong
    words = (*telling[-1:], *words) if shown and not set(telling[-1:]) <= set(words) else words
    quoted = f"; it said: {' | '.join(words)}" if words else ""
    if evidence not in ("ended", "unknown"):
        return Finding(evidence=evidence, after_serving=after, text=f"{quoted}{killed}")
    if missing := _missing(status, said, run):
        text = f"{quoted}; {missing} is not on this machine: install it"
        return Finding(evidence="no-interpreter", after_serving="no-interpreter", text=text)
    names_full = any(_FULL.search(line) for line in said)
    if run.disk is not None and is_full(run.disk):
        text = f"{quoted}; this machine's disk is full: make room there"
        return Finding(evidence="disk-full", after_serving="disk-full" if names_full else "unknown", text=text)
    if names_full:
        text = f"{quoted}; that disk of this machine is full for it: make room there"
        return Finding(evidence="disk-full", after_serving="disk-full", text=text)
    names_taken = [line for line in said if _TAKEN.search(line)]
    if taken := in_use(run.host, run.port, besides=run.own) if run.port else "":
        return Finding(evidence="no-port", after_serving="no-port" if names_taken else after, text=f"{quoted}{taken}")
    if names_taken:
        is_own = any(re.search(rf"(?<!\d){run.port}(?!\d)", line) for line in names_taken) if run.port else False
        return Finding(evidence="no-port" if is_own else "unknown", after_serving=after, text=quoted)
    return Finding(evidence=evidence, after_serving=after, text=quoted)


def _missing(status: str, said: Sequence[str], run: Run) -> str:
    if run.root is None or not said:
        return ""
    return missing_program(status, said[-1], run.root, run.environment)
