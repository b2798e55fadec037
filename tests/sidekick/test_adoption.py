"""Without a journal, what runs is what should run."""

from datetime import UTC, datetime
from pathlib import Path

from outrider.core.sidekick.memory import Memory
from outrider.runtimes import Workload
from outrider.sidekick.adoption import adopted

MEMORY = Memory(
    instance="a", app="app", group="g", scope="turns/app/g", strategy="start-first", at=datetime(2026, 6, 1, tzinfo=UTC)
)


def workload(version: str, order: int, sha256: str = "") -> Workload:
    return Workload(
        workload_id=f"a-{version}", version=version, url=f"http://{version}", handle="pid 7", sha256=sha256, order=order
    )


def test_nothing_runs_so_nothing_is_known() -> None:
    assert MEMORY == adopted(MEMORY, (), lambda sha256: None)


def test_the_workload_that_runs_is_kept_with_its_payload(tmp_path: Path) -> None:
    payload = tmp_path / "payload"
    payload.write_bytes(b"12345")

    memory = adopted(MEMORY, (workload("2.0.0", 9, "2" * 64),), lambda sha256: payload)

    assert memory.running is not None
    assert ("a-2.0.0", "http://2.0.0") == (memory.running.workload_id, memory.running.url)
    assert ("2.0.0", "2" * 64, 5) == (
        memory.running.release.version, memory.running.release.sha256, memory.running.release.size_bytes,
    )  # fmt: skip
    assert memory.down, "until it has proved itself"


def test_in_the_middle_of_a_swap_the_older_one_counts_and_both_addresses_are_ours() -> None:
    memory = adopted(MEMORY, (workload("3.0.0", 12), workload("2.0.0", 9)), lambda sha256: None)

    assert memory.running is not None
    assert "2.0.0" == memory.running.release.version
    assert ("http://3.0.0",) == memory.former_urls
