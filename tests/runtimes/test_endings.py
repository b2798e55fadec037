"""What an end is evidence of: the table of ``outrider.runtimes.endings``, row by row."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from outrider.core.blame import Evidence, judge
from outrider.core.errors import DriverError, Refused
from outrider.runtimes import endings
from outrider.runtimes.endings import MemoryKills, Run, kills_for_memory, look_at_end

Patch = Callable[..., None]
TAKEN = "OSError: [Errno 98] Address already in use"
NODE = (
    "Error: listen EADDRINUSE: address already in use 127.0.0.1:8085",
    "at Server.setupListenHandle [as _listen2] (net.js:1318:16)",
    "Node.js v20.11.0",
)
FULL = "write /var/log/app.log: no space left on device"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Patch:
    def machine(*, full: bool = False, taken: bool = False) -> None:
        monkeypatch.setattr(endings, "is_full", lambda folder: full)
        words = "; port 8085 is in use by pid 7 (nginx)" if taken else ""
        monkeypatch.setattr(endings, "in_use", lambda host, port, besides: words)

    machine()
    return machine


@pytest.fixture
def place(tmp_path: Path) -> Run:
    return Run(disk=tmp_path, host="127.0.0.1", port=8085, root=tmp_path, environment={"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize(
    ("status", "said", "state", "before", "after"),
    [
        ("exit 3", ("no licence",), {}, "ended", "ended"),
        ("exit 3", (), {}, "ended", "ended"),
        ("signal 9", ("up",), {}, "unknown", "unknown"),
        ("signal 9 (SIGKILL)", (), {}, "unknown", "unknown"),
        ("signal 11", (), {}, "ended", "ended"),
        ("exit 127", ("run.sh: 2: exec: frobnicate: not found",), {}, "no-interpreter", "no-interpreter"),
        ("gone", ("run.sh: 2: exec: frobnicate: not found",), {}, "no-interpreter", "no-interpreter"),
        ("exit 127", ("run.sh: 2: exec: sh: not found",), {}, "ended", "ended"),
        ("exit 1", (FULL,), {}, "disk-full", "disk-full"),
        ("exit 1", (FULL,), {"full": True}, "disk-full", "disk-full"),
        ("exit 1", ("KeyError: 'name'",), {"full": True}, "disk-full", "unknown"),
        ("exit 1", (), {"full": True}, "disk-full", "unknown"),
        ("signal 9", (), {"full": True}, "disk-full", "unknown"),
        ("exit 1", (), {"taken": True}, "no-port", "ended"),
        ("exit 1", (TAKEN,), {"taken": True}, "no-port", "no-port"),
        ("exit 1", (TAKEN,), {}, "unknown", "ended"),
        ("exit 1", NODE, {}, "no-port", "ended"),
        ("exit 1", ("listen tcp :18085: bind: address already in use",), {}, "unknown", "ended"),
    ],
)
def test_an_end_is_evidence_of(
    machine: Patch,
    place: Run,
    status: str,
    said: tuple[str, ...],
    state: dict[str, bool],
    before: Evidence,
    after: Evidence,
) -> None:
    machine(**state)

    found = look_at_end(status, said, place)

    assert (before, after) == (found.evidence, found.after_serving)


@pytest.mark.parametrize("known", ["no-resources", "wrong-setting", "not-now"])
def test_what_the_runtime_knows_already_counts_for_more(machine: Patch, place: Run, known: Evidence) -> None:
    machine(full=True, taken=True)

    assert known == look_at_end("exit 1", (FULL, TAKEN), place, evidence=known).evidence


def test_where_nobody_can_be_blamed_an_app_that_has_served_can(machine: Patch, place: Run) -> None:
    found = look_at_end("gone", ("no licence",), place, evidence="unknown", after_serving="ended")

    assert ("unknown", "ended") == (found.evidence, found.after_serving)


def test_what_cannot_be_seen_from_here_is_not_looked_for(machine: Patch) -> None:
    machine(full=True, taken=True)

    assert "ended" == look_at_end("exit 127", ("exec: frobnicate: not found",), Run(disk=None)).evidence


def test_people_see_the_last_words_and_what_was_found_out(machine: Patch, place: Run) -> None:
    machine(taken=True)

    found = look_at_end("exit 1", NODE, place)

    words = "Error: listen EADDRINUSE: address already in use 127.0.0.1:8085 | Node.js v20.11.0"
    assert f"; it said: {words}; port 8085 is in use by pid 7 (nginx)" == found.text
    exited = found.exited("web-2.0.0", "exit 1")
    assert ("exit 1", found.text, "no-port", "no-port") == (
        exited.status, exited.more, exited.evidence, exited.after_serving,
    )  # fmt: skip


def test_as_an_error_of_a_start_it_is_a_refusal_only_where_the_release_is_to_blame(machine: Patch, place: Run) -> None:
    refused = look_at_end("exit 3", ("no licence",), place).error("web: ends at once: exit 3")
    machine(taken=True)
    error = look_at_end("exit 3", ("no licence",), place).error("web: ends at once: exit 3")

    assert isinstance(refused, Refused)
    assert "web: ends at once: exit 3; it said: no licence" == str(refused)
    assert isinstance(error, DriverError)
    assert not isinstance(error, Refused)
    assert ("release", "machine") == (judge(refused.evidence), judge(error.evidence))


@pytest.mark.parametrize(
    ("status", "known", "seen"),
    [
        ("gone", "ended", "no-resources"),
        ("gone", "unknown", "no-resources"),
        ("signal 9", "ended", "no-resources"),
        ("exit 3", "ended", "ended"),
        ("signal 11", "ended", "ended"),
        ("gone", "not-now", "not-now"),
    ],
)
def test_a_kill_for_memory_in_its_time_may_have_been_its_own(
    machine: Patch, place: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, known: Evidence, seen: str
) -> None:
    """The kernel counts them, and doesn't say of whom: an end that is known to be another one is none of them."""
    counts = tmp_path / "vmstat"
    monkeypatch.setattr(endings, "_VMSTAT", counts)
    kills = MemoryKills()
    counts.write_text("oom_kill_disabled 0\noom_kill 38\n")
    kills.note("web-1")
    before = look_at_end(status, (), replace(place, kills_before=kills.of("web-1")), evidence=known)
    counts.write_text("oom_kill 39\n")
    kills.note("web-1")  # watched once more

    found = look_at_end(status, (), replace(place, kills_before=kills.of("web-1")), evidence=known)

    assert seen == found.evidence
    assert ("no-resources" != seen) == ("killed a process for memory" not in found.text)
    assert "no-resources" != before.evidence
    kills.note("web-1", again=True)
    assert 39 == kills.of("web-1")
    kills.forget("web-1")
    assert kills.of("web-1") is None


def test_a_kernel_that_counts_no_kills_for_memory_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kills_for_memory() >= 0
    for text in ("nr_free_pages 1\n", None):
        path = tmp_path / f"vmstat-{text is None}"
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(endings, "_VMSTAT", path)
        assert 0 == kills_for_memory()
