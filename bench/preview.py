"""What ``rollout preview`` foresees beside what a fleet then takes: ``make bench-preview``, some minutes.

Real etcd, Traefik, service and sidekicks. Each fleet takes an update first, so that it has measured itself; then the
next one is foreseen, and made. The ratio of the two is what counts; on a machine that does something else it says
nothing.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

from outrider.demo.fleet import APP_ID, GROUP

ROOT = Path(__file__).parent.parent
ADDRESS = f"{APP_ID}/{GROUP}"
SIZES = (3, 12)
TOLERANCE = 0.15
"""Of the measured time: how far the foreseen median may be from it."""


def took_s(fixture: LiveFixture, version: str) -> float:
    """Seconds from the new target until the service had heard of the last instance's success."""

    def finished() -> tuple[str, str] | None:
        found = json.loads(fixture.outrider("rollout", "show", ADDRESS, "--json"))
        ended = found["version"] == version and found["finished"]
        return (found["started"], found["finished"]) if ended else None

    eventually(finished, within_s=600)
    times = finished()
    assert times is not None
    began, ended = map(datetime.fromisoformat, times)
    return (ended - began).total_seconds()


def measure(size: int) -> tuple[float, float]:
    """The foreseen median and the measured time of one rollout of ``size`` instances, in seconds."""
    folder = Path(tempfile.mkdtemp(prefix="outrider-bench-"))
    names = tuple(f"web-{number}" for number in range(size))
    fixture = LiveFixture(folder, names, environment={"PYTHONPATH": str(ROOT)})
    try:
        fixture.start()
        fixture.create()
        for instance in fixture.instances:
            fixture.start_sidekick(instance)
        eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=600, every_s=0.2)
        fixture.publish("2.0.0")
        eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=600, every_s=0.2)
        took_s(fixture, "2.0.0")
        foreseen = json.loads(fixture.outrider("rollout", "preview", ADDRESS, "2.1.0", "--json"))
        fixture.publish("2.1.0")
        return float(foreseen["p50_s"]), took_s(fixture, "2.1.0")
    finally:
        fixture.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Print one row for each size; leaves with 1 when a median was further away than it may be."""
    options = argparse.ArgumentParser(prog="python -m bench.preview", description=__doc__)
    options.add_argument("--size", type=int, action="append", help=f"instances; {', '.join(map(str, SIZES))}")
    options.add_argument("--rounds", type=int, default=1)
    given = options.parse_args()
    os.environ.setdefault("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    far = False
    for size in given.size or SIZES:
        for _ in range(given.rounds):
            foreseen_s, measured_s = measure(size)
            ratio = foreseen_s / measured_s
            far = far or abs(ratio - 1) > TOLERANCE
            print(f"{size:3} instances: foreseen {foreseen_s:6.1f} s, took {measured_s:6.1f} s, ratio {ratio:.2f}")
    sys.exit(far)


if __name__ == "__main__":
    main()
