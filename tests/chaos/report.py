"""Writes the results of the kill matrix into ``docs/develop/chaos.md``, between its markers."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.chaos.also import ALSO
from tests.chaos.matrix import (
    CONTAINER_FAULTS,
    FAULTS,
    UNREACHED,
    WHENS,
    cases,
    container_cases,
    container_rows,
    rows,
    strategy_of,
)
from tests.live.killed_fixture import CHECKOUT

PAGE = CHECKOUT / "docs" / "develop" / "chaos.md"
BEGIN, END = "<!-- made by tests/chaos: begin -->", "<!-- made by tests/chaos: end -->"
CONTAINERS = "<!-- made by tests/chaos, containers: begin -->", "<!-- made by tests/chaos, containers: end -->"
MARKS = {True: "held", False: "**broken**"}


def write_report(folder: Path) -> None:
    """Replace what stands between the markers by the newest result of every case."""
    _replace(BEGIN, END, table(folder))
    write_containers(folder)


def write_containers(folder: Path) -> None:
    """The part with containers alone, which may be run by itself."""
    _replace(*CONTAINERS, "\n".join(_containers(newest_of(folder))) + "\n")


def _replace(begin: str, end: str, made: str) -> None:
    head, _, rest = PAGE.read_text().partition(begin)
    _, _, tail = rest.partition(end)
    PAGE.write_text(f"{head}{begin}\n{made}{end}{tail}")


def newest_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The last result of each case, by its name."""
    path = folder / "results.jsonl"
    results = (json.loads(line) for line in path.read_text().splitlines()) if path.exists() else ()
    return {result["case"]: result for result in results}


def table(folder: Path) -> str:
    """Summary and table in Markdown."""
    newest = newest_of(folder)
    known = {case.name for case in cases()}
    results = {name: result for name, result in newest.items() if name in known}
    broken = [name for name, result in results.items() if result["problems"]]
    requests = sum(result["requests"] for result in results.values())
    unexcused = sum(result["failed"] for result in results.values() if not result["excused"])
    seeds = sorted({result["seed"] for result in results.values()})
    lines = [
        f"{len(rows())} rows x before and after x {len(FAULTS)} faults = {len(known)} cases; {len(results)} were run"
        f" (seed {', '.join(map(str, seeds)) or 'none'}), {len(results) - len(broken)} held, {len(broken)} broken.",
        "Manual repairs: none in any case.",
        f"Requests: {requests}, of which {unexcused} failed where none may.",
        "",
        f"| effect | failpoint | fleet | {' | '.join(FAULTS)} |",
        f"|---|---|---|{'---|' * len(FAULTS)}",
    ]
    for row in rows():
        cells = []
        for fault in FAULTS:
            found = [results.get(f"{row.label}:{when}:{fault}") for when in WHENS]
            cells.append(" / ".join("not run" if one is None else MARKS[not one["problems"]] for one in found))
        cells = [cell.split(" / ")[0] if len(set(cell.split(" / "))) == 1 else cell for cell in cells]
        way = f", {row.scenario}" if row.scenario else ""
        lines.append(f"| {row.effect or '(none)'} | {row.point} | {strategy_of(row)}{way} | {' | '.join(cells)} |")
    others = [newest.get(f"also/{name}") for name in ALSO]
    lines += ["", "| in the middle of a rollout | |", "|---|---|"]
    for name, result in zip(ALSO, others, strict=True):
        lines.append(f"| {ALSO[name]} | {'not run' if result is None else MARKS[not result['problems']]} |")
    lines += ["", "No scenario reaches these rows; other effects reach their failpoints:", ""]
    lines += [f"- `{name}`: {why}" for name, why in UNREACHED.items()]
    return "\n".join(lines) + "\n"


def _containers(newest: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The rows that are run with containers too."""
    known = {case.name for case in container_cases()}
    found = {name: result for name, result in newest.items() if name in known}
    broken = sum(bool(result["problems"]) for result in found.values())
    seeds = ", ".join(map(str, sorted({result["seed"] for result in found.values()}))) or "none"
    yield (
        f"{len(container_rows())} rows x before and after x {len(CONTAINER_FAULTS)} faults = {len(known)} cases;"
        f" {len(found)} were run (seed {seeds}), {len(found) - broken} held, {broken} broken."
    )
    yield ""
    yield f"| effect | failpoint | fleet | {' | '.join(CONTAINER_FAULTS)} |"
    yield f"|---|---|---|{'---|' * len(CONTAINER_FAULTS)}"
    for row in container_rows():
        cells = []
        for fault in CONTAINER_FAULTS:
            each = [found.get(f"{row.label}:{when}:{fault}") for when in WHENS]
            marks = ["not run" if one is None else MARKS[not one["problems"]] for one in each]
            cells.append(marks[0] if len(set(marks)) == 1 else " / ".join(marks))
        yield f"| {row.effect} | {row.point} | {strategy_of(row)} | {' | '.join(cells)} |"
