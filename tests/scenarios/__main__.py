"""``make live`` and ``make live-all``: runs scenarios on real machines in containers, and prints a line for each."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest
from loguru import logger

from tests.packaging.clean_machine import ROOT
from tests.scenarios.report import write_report
from tests.scenarios.run import Result, play
from tests.scenarios.scenarios import QUICK, SCENARIOS
from tests.scenarios.site import Site

KEPT = ROOT / ".cache/scenarios"


def main() -> int:
    """Run what was asked for; 0 when all of it held."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every scenario, not only the quick ones")
    parser.add_argument("--only", default="", help=f"names, separated by commas: {', '.join(SCENARIOS)}")
    parser.add_argument("--write", action="store_true", help="the table of docs/develop/live.md")
    parser.add_argument("--times", type=int, default=1, help="how often each is run (default: 1)")
    given = parser.parse_args()
    logger.remove()  # what this process's own client of etcd says
    names = [name for name in given.only.split(",") if name] or (list(SCENARIOS) if given.all else list(QUICK))
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no such scenario: {', '.join(unknown)}; known: {', '.join(SCENARIOS)}")
    try:
        results = run_all(names, given.times, write=given.write)
    except (pytest.skip.Exception, pytest.fail.Exception) as reason:
        print(f"live: {reason}", file=sys.stderr)
        return 1
    broken = sorted({result.scenario for result in results if result.problems})
    requests = sum(result.requests for result in results)
    verdict = f"broken: {', '.join(broken)}" if broken else "all held"
    print(f"live: {len(results)} runs, {requests} requests; {verdict}")
    return 1 if broken else 0


def run_all(names: list[str], times: int, *, write: bool = False) -> list[Result]:
    """Run each scenario so often; what breaks one leaves its journals behind, and the next one gets a new site.

    Args:
        write: Put the results into the table each time that all were run: what is broken off leaves those before.
    """
    results: list[Result] = []
    site: Site | None = None
    try:
        for _ in range(times):
            for name in names:
                if site is None:
                    site = new_site()
                result = play(site, name, SCENARIOS[name])
                results.append(result)
                print(line_of(result), flush=True)
                if result.problems:
                    keep(site, result)
                    site.stop()
                    site = None
            if write:
                write_report(results, KEPT / "results")
    finally:
        if site is not None:
            site.stop()
    return results


def new_site() -> Site:
    began = time.monotonic()
    site = Site(Path(tempfile.mkdtemp(prefix="outrider-site-")))
    try:
        site.start()
    except BaseException:
        if hasattr(site, "service"):
            (KEPT / "start.txt").write_text(site.told())
        site.stop()
        raise
    took_s = time.monotonic() - began
    print(f"live: etcd, service, balancers and {len(site.machines)} machines are up after {took_s:.0f} s", flush=True)
    return site


def line_of(result: Result) -> str:
    """For a person."""
    failed = ", ".join(f"{name} {count}" for name, count in result.failed.items())
    notes = f" ({'; '.join(result.notes)})" if result.notes else ""
    told = "".join(f"\n    {line}" for line in result.problems)
    word = "BROKEN" if result.problems else "held"
    return (
        f"live: {result.scenario:10} {word} in {result.seconds:.0f} s: {result.requests} requests, failed: {failed};"
        f" {result.revisions} revisions{notes}{told}"
    )


def keep(site: Site, result: Result) -> None:
    """What helps to find out why it broke."""
    folder = KEPT / f"{time.strftime('%m%d-%H%M%S')}-{result.scenario}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"problems": result.problems, "notes": result.notes}, indent=1))
    (folder / "journals.txt").write_text(site.told())
    print(f"    journals: {folder}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
