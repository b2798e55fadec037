"""Two commits beside each other: ``make bench-compare REF=main``; a quarter of an hour, less with ``parts=step,etcd``.

The other commit is checked out beside this one, and its ``src`` is measured by *this* tree's benchmarks. Runs
alternate, so that a machine that becomes busy slows both. Each line is a figure (less is better) with the medians of
both and their ratio. It ends with 1 when a figure became worse by more than ``--worse``, and by more than the runs of
one commit differ; a benchmark that the other commit can't run is said, and what is left is compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.figures import PARTS
from bench.performance import machine

ROOT = Path(__file__).parent.parent
ROUNDS = 5
WORSE = 1.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure of both commits, all runs."""

    name: str
    theirs: Sequence[float]
    ours: Sequence[float]

    @property
    def ratio(self) -> float:
        """Of the medians; above 1: this tree takes more."""
        before = statistics.median(self.theirs)
        return statistics.median(self.ours) / before if before else 1.0

    def is_worse(self, worse: float) -> bool:
        """Beyond ``worse``, and beyond what the runs differ: even our best run is above their median."""
        return self.ratio > worse and min(self.ours) > statistics.median(self.theirs)

    def row(self, worse: float) -> str:
        verdict = "worse" if self.is_worse(worse) else ""
        before, after = statistics.median(self.theirs), statistics.median(self.ours)
        return f"| {self.name} | {before:.3g} | {after:.3g} | {self.ratio:.2f} | {verdict} |"


def main() -> int:
    """Measure both, print one table."""
    parser = argparse.ArgumentParser(prog="bench.compare")
    parser.add_argument("ref", help="the other commit")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--worse", type=float, default=WORSE, help="ratio from which on a figure is worse")
    given = parser.parse_args()
    parts = given.parts.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    load = f"{os.getloadavg()[0]:.1f}"
    with checked_out(given.ref) as other:
        lines = compare(parts, given.rounds, other / "src", ROOT / "src")
    print(
        f"{given.ref} and this tree; load before it {load}; {machine()}; median of {given.rounds} alternating runs.\n"
    )
    print(f"| less is better | {given.ref} | this tree | ratio | |\n|---|---|---|---|---|")
    for line in lines:
        print(line.row(given.worse))
    return 1 if any(line.is_worse(given.worse) for line in lines) else 0


def compare(parts: Sequence[str], rounds: int, theirs: Path, ours: Path) -> list[Line]:
    """Let both be measured in turn."""
    lines = []
    for part in parts:
        runs: dict[Path, dict[str, list[float]]] = {theirs: defaultdict(list), ours: defaultdict(list)}
        for number in range(rounds):
            for source in (theirs, ours) if number % 2 == 0 else (ours, theirs):
                for name, value in figures(part, source).items():
                    runs[source][name].append(value)
        common = [name for name in runs[ours] if name in runs[theirs]]
        lines += [Line(name=name, theirs=runs[theirs][name], ours=runs[ours][name]) for name in common]
    return lines


def figures(part: str, source: Path) -> Mapping[str, float]:
    """One run of one part, with outrider from ``source``; nothing when that commit can't run it."""
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, "-m", "bench.figures", part]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=900)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason"]
        print(f"{part} of {source}: {last[0]}", file=sys.stderr)
        return {}
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def checked_out(ref: str) -> Iterator[Path]:
    """A working tree of ``ref``, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="outrider-compare-") as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), ref], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
