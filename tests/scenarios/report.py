"""Writes the results of ``make live-all`` into ``docs/develop/live.md``, between its markers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tests.packaging.clean_machine import ROOT
from tests.scenarios.apps import APPS
from tests.scenarios.run import Result
from tests.scenarios.scenarios import SCENARIOS

PAGE = ROOT / "docs/develop/live.md"
BEGIN, END = "<!-- made by tests/scenarios: begin -->", "<!-- made by tests/scenarios: end -->"


def write_report(results: Sequence[Result], folder: Path) -> None:
    """Replace what stands between the markers by the newest runs of each scenario.

    Args:
        folder: Keeps them: rows of scenarios that were not run now stay as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in {result.scenario for result in results}:
        runs = [result for result in results if result.scenario == name]
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(runs))
    known = [folder / f"{name}.json" for name in SCENARIOS]
    found = [msgspec.json.decode(path.read_bytes(), type=list[Result]) for path in known if path.exists()]
    results = [result for runs in found for result in runs]
    head, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n{table(results)}{END}{tail}")


def table(results: Sequence[Result]) -> str:
    """A row for each scenario: its runs, and what the worst of them was like."""
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.scenario, []).append(result)
    balancers = " | ".join(f"failed through {app.balancer}" for app in APPS)
    lines = [
        f"| scenario | what happens | runs held | requests | {balancers} | not excused | etcd revisions | seconds |",
        "|" + "---|" * (7 + len(APPS)),
    ]
    lines += [_row(name, by_name) for name in SCENARIOS]
    return "\n".join(lines) + "\n"


def _row(name: str, by_name: Mapping[str, Sequence[Result]]) -> str:
    what = str(SCENARIOS[name].__doc__).splitlines()[0].rstrip(".")
    runs = by_name.get(name, ())
    if not runs:
        return f"| `{name}` | {what} | *not run* | | {' | '.join('' for _ in APPS)} | | | |"
    held = sum(not run.problems for run in runs)
    words = f"{held} of {len(runs)}" if held == len(runs) else f"**{held} of {len(runs)}**"
    failed = " | ".join(str(sum(run.failed.get(app.name, 0) for run in runs)) for app in APPS)
    seconds = sorted(round(run.seconds) for run in runs)
    took = str(seconds[0]) if seconds[0] == seconds[-1] else f"{seconds[0]} to {seconds[-1]}"
    return (
        f"| `{name}` | {what} | {words} | {sum(run.requests for run in runs)} | {failed} |"
        f" {sum(run.unexcused for run in runs)} | {sum(run.revisions for run in runs)} | {took} |"
    )
