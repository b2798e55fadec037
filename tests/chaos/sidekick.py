"""A sidekick to which something happens at one failpoint, once: ``python -m tests.chaos.sidekick``.

Everything but the observer is the real program. What happens is told, and awaited, through files in ``--signals``:
``done`` is made right before the fault; for a fault that the harness makes, ``go`` is awaited. A barrier is the same
for a harness that wants to do something at a failpoint before the case's own: ``barrier`` is made, ``barrier.go``
awaited.
"""

import argparse
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from outrider import failpoints as points
from outrider.cli.commands.sidekick import on_signals
from outrider.config.load import load_settings
from outrider.failpoints import FailpointHit
from outrider.journal import journal
from outrider.log import setup_logging
from outrider.sidekick.assemble import Assembly

WAIT_S = 60.0
POLL_S = 0.005
ANALYSIS = {
    "OUTRIDER_ANALYSIS_COMPARE": "app",
    "OUTRIDER_ANALYSIS_UNDECIDED": "pass",
    "OUTRIDER_ANALYSIS_INTERVAL_S": "0.5",
    "OUTRIDER_ANALYSIS_DURATION_S": "1",
    "OUTRIDER_ANALYSIS_DEADLINE_S": "5",
}
TRACE = os.environ.get("OUTRIDER_TEST_CHAOS_TRACE") == "1"
"""Write every failpoint that is met to ``trace`` among the signals: to find out why a case doesn't reach its own."""


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--config", type=Path, required=True)
    options.add_argument("--signals", type=Path, required=True)
    options.add_argument("--at", required=True, help="EFFECT/FAILPOINT, or /FAILPOINT when no effect asks for it")
    options.add_argument("--when", choices=["before", "after"], required=True)
    options.add_argument("--skip", type=int, default=0, help="let so many of these hits pass")
    options.add_argument("--fault", choices=["kill", "stop", "cut", "full", "clock"], required=True)
    options.add_argument("--first", default="", help="EFFECT/FAILPOINT:WHEN where the first life ends by SIGKILL")
    options.add_argument("--first-skip", type=int, default=0, help="let so many of those hits pass")
    options.add_argument("--barrier", default="", help="EFFECT/FAILPOINT before which the harness does something")
    options.add_argument("--rotate-bytes", type=int, default=0, help="a journal that rotates early")
    options.add_argument("--analysis", action="store_true", help="compare what it answers with what the others do")
    chosen = options.parse_args()
    chosen.signals.mkdir(parents=True, exist_ok=True)
    if chosen.rotate_bytes:
        journal.ROTATE_BYTES = chosen.rotate_bytes
    points.observe(_observer(chosen))
    analysis = ANALYSIS if chosen.analysis else {}
    settings = load_settings((chosen.config,), os.environ | analysis).settings
    setup_logging(settings.log)
    assembly = Assembly(settings)
    on_signals((signal.SIGTERM,), assembly.stop)
    assembly.run()


def _observer(chosen: argparse.Namespace) -> Callable[[FailpointHit], None]:
    done, first, barrier = (chosen.signals / name for name in ("done", "first", "barrier"))
    mutex = threading.Lock()
    left, first_left = chosen.skip, chosen.first_skip

    def once(marker: Path) -> bool:
        """Whether this call is the one that makes the marker; any thread may cross at the same time."""
        with mutex:
            if marker.exists():
                return False
            marker.write_text(f"{time.time()}")
            return True

    def observe(hit: FailpointHit) -> None:
        nonlocal left, first_left
        place = f"{hit.effect}/{hit.point}"
        if TRACE:
            with (chosen.signals / "trace").open("a") as trace:
                trace.write(f"{time.monotonic():.3f} {place} {hit.when} {threading.current_thread().name}\n")
        if place == chosen.barrier and hit.when == "before" and once(barrier):
            _await(chosen.signals / "barrier.go")
        if chosen.first and not first.exists():
            if f"{place}:{hit.when}" == chosen.first:
                with mutex:
                    passes, first_left = first_left > 0, first_left - 1
                if not passes and once(first):
                    os.kill(os.getpid(), signal.SIGKILL)
            return
        if place != chosen.at or hit.when != chosen.when or done.exists():
            return
        with mutex:
            passes, left = left > 0, left - 1
        if passes or not once(done):
            return
        match chosen.fault:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                # at this very thread: sent to the process, another one may take it, and this one would go on meanwhile
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            case "clock":
                _step_clock(chosen.signals)
            case _:
                _await(chosen.signals / "go")

    return observe


def _step_clock(signals: Path) -> None:
    """The file that libfaketime reads says how far this process's time of day is off."""
    off = (signals / "step").read_text()
    before = time.time()
    Path(os.environ["FAKETIME_TIMESTAMP_FILE"]).write_text(off)
    deadline = time.monotonic() + WAIT_S
    while abs(time.time() - before) < 1800:
        if time.monotonic() > deadline:
            raise RuntimeError("the clock wasn't stepped: is libfaketime loaded?")
        _pause()


def _pause() -> None:
    """Not by ``time.sleep``: under libfaketime 0.9.10 its call to the kernel is refused (EINVAL)."""
    threading.Event().wait(POLL_S)


def _await(marker: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not marker.exists() and time.monotonic() < deadline:
        _pause()


if __name__ == "__main__":
    main()
