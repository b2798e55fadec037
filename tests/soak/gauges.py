"""Whether a process stays as it is: memory, open files and threads from /proc, and what grows on disk."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PAGE_KIB = 4
SETTLING_S = 60.0
"""A Python process takes memory as it comes to its parts for the first time: imports, threads, first update."""
SLOPE_KIB_PER_MIN = 512.0
"""Some five rollouts a minute: a leak of a tenth of a megabyte in each would show, the allocator's noise doesn't."""
LEAST_S = 90.0
"""A life shorter than that says nothing about files and threads."""
MEMORY_LEAST_S = 240.0
"""Nor about a slope of memory: the first rollback, the first lost lease and so on still come. Who lives shorter is
compared with those who live longer (``outgrown``)."""
SPARE_RSS = 1.1
SPARE = {"files": 4, "threads": 12}
"""What comes and goes: a probe's request, a watch that reconnects, gRPC's own threads after an outage of etcd."""


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    rss_kib: int
    files: int
    threads: int


@dataclass(slots=True)
class Life:
    """One process from its start to its end, sampled."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list)

    def sample(self, at_s: float) -> None:
        """Look once; a process that has ended isn't looked at."""
        proc = Path(f"/proc/{self.pid}")
        try:
            rss_kib = int((proc / "statm").read_text().split()[1]) * PAGE_KIB
            files = len(list((proc / "fd").iterdir()))
            threads = len(list((proc / "task").iterdir()))
        except OSError:
            return
        self.samples.append(Sample(at_s, rss_kib, files, threads))

    def complaints(self) -> list[str]:
        """What grew, in words; empty when nothing did or the life was too short to tell."""
        settled = [one for one in self.samples if one.at_s - self.samples[0].at_s >= SETTLING_S]
        late = settled[len(settled) // 2 :]
        if len(late) < 10 or late[-1].at_s - late[0].at_s < LEAST_S / 2:
            return []
        found = []
        slope = slope_per_min([(one.at_s, float(one.rss_kib)) for one in late])
        if late[-1].at_s - late[0].at_s >= MEMORY_LEAST_S / 2 and slope > SLOPE_KIB_PER_MIN:
            found.append(f"{self.name}: memory grows by {slope:.0f} KiB/min, at {late[-1].rss_kib} KiB now")
        third = max(1, len(settled) // 3)
        for what, spare in SPARE.items():
            before = statistics.median(getattr(one, what) for one in settled[:third])
            after = statistics.median(getattr(one, what) for one in settled[-third:])
            if after > before + spare:
                found.append(f"{self.name}: {what} grew from {before:g} to {after:g}")
        return found

    def summary(self) -> str:
        if not self.samples:
            return f"{self.name}: never seen"
        first, last = self.samples[0], self.samples[-1]
        settled = [one for one in self.samples if one.at_s - first.at_s >= SETTLING_S]
        late = settled[len(settled) // 2 :]
        slope = slope_per_min([(one.at_s, float(one.rss_kib)) for one in late]) if len(late) > 1 else 0.0
        return (
            f"{self.name}: {last.at_s - first.at_s:.0f} s, {first.rss_kib} -> {last.rss_kib} KiB"
            f" ({slope:+.0f} KiB/min at the end), {last.files} files, {last.threads} threads"
        )


def outgrown(lives: Iterable[Life]) -> list[str]:
    """Of processes of one kind, those that became larger than the one that lived longest, though they lived shorter."""
    seen = [life for life in lives if life.samples]
    if not seen:
        return []
    oldest = max(seen, key=lambda life: life.samples[-1].at_s - life.samples[0].at_s)
    most = SPARE_RSS * max(one.rss_kib for one in oldest.samples)
    largest = [(life, max(one.rss_kib for one in life.samples)) for life in seen]
    return [
        f"{life.name}: {rss_kib} KiB, more than {oldest.name} had in a longer life"
        for life, rss_kib in largest
        if rss_kib > most
    ]


def slope_per_min(points: list[tuple[float, float]]) -> float:
    """The least-squares slope of (seconds, value), per minute."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 0.0 if spread == 0 else 60.0 * sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def on_disk(state_dir: Path) -> Mapping[str, int]:
    """What an instance's folder holds: numbers of things, and sizes in bytes of what may grow."""

    def count(pattern: str) -> int:
        return sum(1 for _ in state_dir.glob(pattern))

    def size(pattern: str) -> int:
        return sum(path.stat().st_size for path in state_dir.glob(pattern) if path.is_file())

    return {
        "payloads": count("payloads/*.payload"),
        "partial downloads": count("payloads/*.part"),
        "workload folders": count("workloads/[!.]*"),
        "old logs": count("logs/*.log"),
        "reports": count("outbox/*"),
        "journal bytes": size("journal*.jsonl"),
        "output bytes": size("workloads/*/output.log") + size("logs/*.log"),
    }


LIMITS: Mapping[str, int] = {
    "payloads": 3,  # download.keep_versions
    "partial downloads": 1,
    "workload folders": 1,
    "old logs": 10,
    "journal bytes": 2 * 4 * 1024 * 1024 + 64 * 1024,
}
