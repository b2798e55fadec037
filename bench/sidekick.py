"""What a sidekick takes while nothing happens: ``make bench-sidekick``, about four minutes.

Real etcd, real update service, apps that run as processes. Three sidekicks at rest, each in a process of its own;
twenty in one process; the memory that each import takes; one step of the machine beside ``transitions`` alone.
``--write`` puts the table into docs/develop/performance.md. It ends with 1 when a sidekick has imported a package that
only the update service needs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.live.live_fixture import LiveFixture
from tests.support.imports import SIDEKICK, needless

from bench.performance import cpu_s, machine
from outrider.demo.fleet import APP_ID, GROUP, OUTRIDER
from outrider.demo.programs import Program, start_etcd
from outrider.etcd.client import connect
from outrider.etcd.seam import EtcdAddress

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/develop/performance.md"
BEGIN, END = "<!-- measured sidekick: begin -->\n", "<!-- measured sidekick: end -->\n"
ALONE = ("web-1", "web-2", "web-3")
CROWD = 20
SETTLING_S = 10.0
"""After the last one has come to rest: idle threads end, and what a first update took is given back."""
SECONDS = 60.0
PATIENCE_S = 300.0
STEPS = 2000
ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """One process at rest. ``cpu_s_per_min``: seconds of CPU in a minute."""

    rss_mb: float
    uss_mb: float
    threads: int
    cpu_s_per_min: float
    names: Mapping[str, int]


class IdleFixture(LiveFixture):
    """Instances without a balancer: what is measured is the sidekick."""

    def start(self) -> None:
        self.etcd = self._keep(start_etcd(self.folder))
        self.etcd.wait_ready()
        self.cluster = connect(EtcdAddress(endpoints=(self.etcd.endpoint,)))
        self.start_service()

    def start_together(self) -> Program:
        """All instances in one process."""
        folder = self.folder / "instances"
        folder.mkdir()
        for instance in self.instances:
            (folder / f"{instance}.toml").write_text(self._config(instance))
        program = Program("sidekicks", [*OUTRIDER, "sidekick", "run", "--config-dir", folder], self.folder)
        return self._keep(program)

    def _config(self, instance: str) -> str:
        app = json.dumps([sys.executable, "-S", "server.py"])
        return f"""
[instance]
id = "{instance}"
app = "{APP_ID}"
group = "{GROUP}"
state_dir = "{self.state_dir(instance)}"
balancer = "none"
[etcd]
endpoints = ["{self.endpoint}"]
[service]
urls = ["{self.service_url}"]
[process]
command = {app}
"""


def main() -> int:
    """Measure everything, print one table."""
    parser = argparse.ArgumentParser(prog="bench.sidekick")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each process is looked at")
    parser.add_argument("--only", choices=("alone", "together", "imports", "step"), action="append")
    given = parser.parse_args()
    parts = given.only or ["alone", "together", "imports", "step"]
    load = f"{os.getloadavg()[0]:.1f}"
    lines: list[str] = []
    if "alone" in parts:
        one = at_rest(ALONE, given.seconds, together=False)
        lines += rows("one sidekick (median of 3)", one)
    if "together" in parts:
        crowd = at_rest(tuple(f"web-{number}" for number in range(1, CROWD + 1)), given.seconds, together=True)
        lines += rows(f"{CROWD} in one process", crowd)
    if "step" in parts:
        ours_us, alone_us = machine_step()
        lines.append(
            f"| machine step | {ours_us:.0f} us, `transitions` alone {alone_us:.0f} us: {ours_us / alone_us:.2f} |"
        )
    found = imported() if "imports" in parts else {}
    if found:
        largest = ", ".join(
            f"{name} {kib / 1024:.1f}" for name, kib in sorted(found.items(), key=lambda it: -it[1])[:10]
        )
        total = sum(found.values()) / 1024
        lines.append(f"| memory by import, MB | {total:.1f}: {largest} |")
    found_needless = needless(found)
    text = "\n".join(
        [
            f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; load before it {load}; {machine()}.",
            "",
            "| | |",
            "|---|---|",
            *lines,
        ]
    )
    print(text)
    if given.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}{text}\n{END}{rest.partition(END)[2]}")
    for name in found_needless:
        print(f"a sidekick imports {name}, which only the update service needs", file=sys.stderr)
    return 1 if found_needless else 0


def rows(name: str, rest: Rest) -> list[str]:
    """The figures of one process, for people."""
    threads = ", ".join(f"{count} {what}" for what, count in sorted(rest.names.items(), key=lambda it: -it[1]))
    return [
        f"| {name} | RSS {rest.rss_mb:.1f} MB, USS {rest.uss_mb:.1f} MB, {rest.threads} threads,"
        f" {rest.cpu_s_per_min:.2f} s CPU a minute |",
        f"| its threads | {threads} |",
    ]


def at_rest(instances: Sequence[str], seconds: float, *, together: bool) -> Rest:
    """Bring the instances to rest on their first version, and look at their process, or processes, for ``seconds``."""
    with world(instances) as fixture:
        programs = (
            [fixture.start_together()] if together else [fixture.start_sidekick(instance) for instance in instances]
        )
        wait_for(lambda: fixture.all_on("1.0.0"), fixture)
        time.sleep(SETTLING_S)
        return look(programs, seconds)


@contextmanager
def world(instances: Sequence[str]) -> Iterator[IdleFixture]:
    """etcd, the update service and a group on 1.0.0; ended with all that was started there."""
    with tempfile.TemporaryDirectory(prefix="outrider-bench-") as folder:
        fixture = IdleFixture(Path(folder), instances)
        try:
            fixture.start()
            fixture.create(slots=len(instances))  # or they would come up one after the other
            yield fixture
        finally:
            fixture.stop()


def wait_for(fact: Callable[[], bool], fixture: IdleFixture) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not fact():
        if time.monotonic() > deadline:
            fixture.expect_all_on("1.0.0")
        time.sleep(0.5)


def look(programs: Sequence[Program], seconds: float) -> Rest:
    """The median process of ``programs``, figure by figure."""
    before = {program.pid: cpu_s(program.pid) for program in programs}
    began = time.monotonic()
    time.sleep(seconds)
    took_s = time.monotonic() - began
    seen = [
        (
            *memory_mb(program.pid),
            len(thread_names(program.pid)),
            (cpu_s(program.pid) - before[program.pid]) / took_s * 60,
        )
        for program in programs
    ]
    rss, uss, threads, cpu = (statistics.median(column) for column in zip(*seen, strict=True))
    names = Counter(thread_names(programs[0].pid))
    return Rest(rss_mb=rss, uss_mb=uss, threads=round(threads), cpu_s_per_min=cpu, names=names)


def memory_mb(pid: int) -> tuple[float, float]:
    """RSS, and what no other process shares."""
    kib: Counter[str] = Counter()
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, amount = line.split()[:2]
        kib[name.rstrip(":")] += int(amount)
    return kib["Rss"] / 1024, (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024


def thread_names(pid: int) -> list[str]:
    """The kernel's names of all threads, numbers taken off."""
    return [(task / "comm").read_text().strip().rstrip("0123456789-_ ") for task in Path(f"/proc/{pid}/task").iterdir()]


IMPORT = """
import json, sys
from pathlib import Path

def private_kib():
    return sum(int(line.split()[1]) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
               if line.startswith(("Private_Clean", "Private_Dirty")))

took, within = {}, []

def measured(name, make):
    def run(module):
        before = private_kib()
        within.append(0)
        try:
            return make(module)
        finally:
            whole = private_kib() - before
            top = name.partition(".")[0]
            took[top] = took.get(top, 0) + whole - within.pop()
            if within:
                within[-1] += whole
    return run

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        for finder in sys.meta_path[1:]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "path"):
                    spec.loader.exec_module = measured(name, spec.loader.exec_module)
                    spec.loader.create_module = measured(name, spec.loader.create_module)
                return spec

sys.meta_path.insert(0, Finder)
began = private_kib()
exec(sys.argv[1])
del sys.meta_path[0]
took["python itself"] = began
print(json.dumps({"took": took, "modules": sorted(sys.modules)}))
"""


def imported() -> dict[str, float]:
    """Everything that a sidekick imports; top packages with the KiB of private memory that their import took."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, SIDEKICK], capture_output=True, text=True, check=True, timeout=120
    )
    answer = json.loads(done.stdout)
    return dict.fromkeys(answer["modules"], 0.0) | {name: float(kib) for name, kib in answer["took"].items()}


def machine_step() -> tuple[float, float]:
    """Microseconds of one step of outrider's machine, and of ``transitions`` alone between as many states."""
    from bench.step import measure

    rounds = [measure(STEPS) for _ in range(ROUNDS)]
    return statistics.median(ours for ours, _ in rounds), statistics.median(alone for _, alone in rounds)


if __name__ == "__main__":
    sys.exit(main())
