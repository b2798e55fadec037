"""What one update service does beside its ceiling, in one run: ``make bench-service``, about a minute and a half.

Everything runs on this machine: clients, service and an etcd without fsync. So the numbers are lower bounds, and the
ratios between rows of one run say more than the numbers. ``--write`` puts the table into docs/develop/performance.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import requests
from tests.support.servers import EtcdServer

from bench.load import APP, GROUP, Tally

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/develop/performance.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
CROWDS = (1, 8, 32, 200)
SECONDS, WARM_S = 5.0, 1.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One crowd at one server. ``cpu_s``: of the service; ``store_cpu_s``: of etcd."""

    tally: Tally
    cpu_s: float
    store_cpu_s: float = 0.0

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU for each answer, store included."""
        return (self.cpu_s + self.store_cpu_s) / max(self.tally.answers, 1) * 1e6

    @property
    def store_us(self) -> float:
        return self.store_cpu_s / max(self.tally.answers, 1) * 1e6


def main() -> None:
    """Measure every crowd, print one table."""
    parser = argparse.ArgumentParser(prog="bench.performance")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each crowd")
    parser.add_argument("--bare", default="httptools uvloop", help="server of the ceiling: HTTP and loop of uvicorn")
    given = parser.parse_args()
    load = f"{os.getloadavg()[0]:.1f}"
    rows: list[tuple[int, Row, Row]] = []
    with bare(given.bare) as (bare_url, bare_pid), service() as (url, pid, etcd_pid):
        for clients in CROWDS:
            measure(url, clients, WARM_S, pid, etcd_pid)
            ours = measure(url, clients, given.seconds, pid, etcd_pid)
            ceiling = measure(bare_url, clients, given.seconds, bare_pid)
            rows.append((clients, ours, ceiling))
            print(line_of(*rows[-1]), flush=True)
    text = table(rows, load, given.bare)
    print(text)
    if given.write:
        page = PAGE.read_text()
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}{text}{END}{after}")


def table(rows: list[tuple[int, Row, Row]], load: str, bare_server: str) -> str:
    """The figures as markdown, with date, load and machine."""
    lines = [
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; load before it {load}; {machine()}; ceiling on"
        f" {bare_server}.",
        "",
        "| clients | check-ins/s | p50 ms | p99 ms | not answered | CPU us per check, etcd's share | ceiling/s | p50 ms"
        " | of the ceiling | CPU per check, times the ceiling's |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(line_of(*row) for row in rows),
    ]
    return "\n".join(lines) + "\n"


def line_of(clients: int, ours: Row, ceiling: Row) -> str:
    a, b = ours.tally, ceiling.tally
    return (
        f"| {clients} | {a.per_s:.0f} | {a.p50_ms:.2f} | {a.p99_ms:.1f} | {a.refused + a.failed}"
        f" | {ours.cpu_us:.0f}, {ours.store_us:.0f} | {b.per_s:.0f} | {b.p50_ms:.2f}"
        f" | {a.per_s / max(b.per_s, 1):.0%} | {ours.cpu_us / max(ceiling.cpu_us, 1):.2f} |"
    )


def machine() -> str:
    """Processors and Python of this machine."""
    models = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    model = ", ".join(sorted(models)) or platform.machine()
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}"


def measure(url: str, clients: int, seconds: float, pid: int, etcd_pid: int | None = None) -> Row:
    """Let ``clients`` ask for ``seconds``, from a process of their own."""
    before, store_before = cpu_s(pid), cpu_s(etcd_pid)
    command = [sys.executable, "-m", "bench.load", url, str(clients), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    return Row(
        tally=Tally(**json.loads(done.stdout)), cpu_s=cpu_s(pid) - before, store_cpu_s=cpu_s(etcd_pid) - store_before
    )


def cpu_s(pid: int | None) -> float:
    """Seconds of CPU that a process has used; None: 0."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def bare(server: str) -> Iterator[tuple[str, int]]:
    """The ceiling; its address and process."""
    process = subprocess.Popen([sys.executable, "-m", "bench.bare", *server.split()], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        wait_answering(url)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def service() -> Iterator[tuple[str, int, int]]:
    """``outrider serve`` with an etcd of its own, and a group that has nothing to update; address and processes."""
    with store() as etcd, serving_on(etcd) as (url, pid):
        yield url, pid, etcd.pid


@contextmanager
def store() -> Iterator[EtcdServer]:
    """An etcd of our own."""
    with tempfile.TemporaryDirectory(prefix="outrider-bench-") as folder:
        etcd = EtcdServer(Path(folder) / "etcd").start().wait_ready()
        try:
            yield etcd
        finally:
            etcd.stop()


@contextmanager
def serving_on(etcd: EtcdServer) -> Iterator[tuple[str, int]]:
    """``outrider serve`` with a group that has nothing to update; its address and process."""
    folder = etcd.folder.parent
    command = [sys.executable, "-m", "outrider", "serve", "--listen", "127.0.0.1:0", "--insecure-listen"]
    command += ["--max-requests-per-s=1000000", "--max-burst=1000000", "--max-strangers=100000"]
    command += ["--max-instances=100000", "--max-checkins-per-s=100000", "--etcd", f"127.0.0.1:{etcd.port}"]
    command += ["--payload-dir", f"{folder}/payloads"]
    environment = {**os.environ, "OUTRIDER_LOG_LEVEL": "error"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        prepare(url)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(20)


def wait_answering(url: str) -> None:
    """Ask until the server answers; it prints its address a little before it listens."""
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=requests.adapters.Retry(8, backoff_factor=0.1)))
    session.post(url, data=b"<request/>", timeout=10)


def prepare(url: str) -> None:
    """An app with a group whose channel offers nothing newer."""
    package = {"version": "1.0.0", "url": "http://files.example/web.tar", "size_bytes": 9, "sha256": "0" * 64}
    for path, body in (
        ("apps", {"id": APP}),
        (f"apps/{APP}/groups", {"id": GROUP, "channel": "stable"}),
        (f"apps/{APP}/packages", package),
        (f"apps/{APP}/channels/stable", {"version": "1.0.0"}),
    ):
        call = requests.put if "channels/" in path else requests.post
        call(f"{url}/api/v1/{path}", json=body, timeout=10).raise_for_status()


if __name__ == "__main__":
    main()
