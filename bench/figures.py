"""One part of the benchmarks as figures in JSON, less is better: for ``bench.compare``, which runs two commits."""

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.servers import EtcdServer

from bench import etcd, performance, sidekick, step

Figures = Mapping[str, float]
SECONDS = 20.0
CLIENTS = 8


def of_step() -> Figures:
    ours_us, alone_us = step.measure(sidekick.STEPS)
    return {"machine step, us of CPU": ours_us, "machine step, times transitions": ours_us / alone_us}


def of_sidekick() -> Figures:
    return _of(sidekick.at_rest(sidekick.ALONE, SECONDS, together=False), "one sidekick")


def of_twenty() -> Figures:
    instances = tuple(f"web-{number}" for number in range(1, sidekick.CROWD + 1))
    return _of(sidekick.at_rest(instances, SECONDS, together=True), "twenty in one process")


def _of(rest: sidekick.Rest, name: str) -> Figures:
    return {
        f"{name}, RSS MB": rest.rss_mb,
        f"{name}, USS MB": rest.uss_mb,
        f"{name}, threads": rest.threads,
        f"{name}, CPU s/min": rest.cpu_s_per_min,
    }


def of_etcd() -> Figures:
    with tempfile.TemporaryDirectory(prefix="outrider-bench-") as folder:
        server = EtcdServer(Path(folder)).start().wait_ready()
        try:
            rows = [*etcd.measure_calls(server), etcd.measure_delivery(server)]
        finally:
            server.stop()
    return {f"etcd {name}, p50 ms": statistics.median(took) for name, took, _ in rows}


def of_service() -> Figures:
    with performance.service() as (url, pid, etcd_pid):
        performance.measure(url, CLIENTS, performance.WARM_S, pid, etcd_pid)
        row = performance.measure(url, CLIENTS, performance.SECONDS, pid, etcd_pid)
    return {
        f"check-in, {CLIENTS} clients, p50 ms": row.tally.p50_ms,
        f"check-in, {CLIENTS} clients, p99 ms": row.tally.p99_ms,
        f"check-in, {CLIENTS} clients, us of CPU": row.cpu_us,
    }


PARTS: Mapping[str, Callable[[], Figures]] = {
    "step": of_step,
    "sidekick": of_sidekick,
    "twenty": of_twenty,
    "etcd": of_etcd,
    "service": of_service,
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(PARTS[sys.argv[1]]()) + "\n")
