"""Writes the results of the kill matrix into ``docs/develop/chaos.md``, between its markers."""

import json
from pathlib import Path

from tests.chaos.also import ALSO
from tests.chaos.matrix import FAULTS, UNREACHED, WHENS, rows, strategy_of
from tests.live.killed_fixture import CHECKOUT

PAGE = CHECKOUT / "docs" / "develop" / "chaos.md"
BEGIN, END = "<!-- made by tests/chaos: begin -->", "<!-- made by tests/chaos: end -->"
MARKS = {True: "held", False: "**broken**"}


def write_report(folder: Path) -> None:
    """Replace what stands between the markers by the newest result of every case."""
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n{table(folder)}{END}{tail}")


def table(folder: Path) -> str:
    """Summary and table in Markdown."""
    path = folder / "results.jsonl"
    newest = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        result = json.loads(line)
        newest[result["case"]] = result
    known = {f"{row.name}:{when}:{fault}" for row in rows() for when in WHENS for fault in FAULTS}
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
            found = [results.get(f"{row.name}:{when}:{fault}") for when in WHENS]
            cells.append(" / ".join("not run" if one is None else MARKS[not one["problems"]] for one in found))
        cells = [cell.split(" / ")[0] if len(set(cell.split(" / "))) == 1 else cell for cell in cells]
        lines.append(f"| {row.effect or '(none)'} | {row.point} | {strategy_of(row)} | {' | '.join(cells)} |")
    others = [newest.get(f"also/{name}") for name in ALSO]
    lines += ["", "| in the middle of a rollout | |", "|---|---|"]
    for name, result in zip(ALSO, others, strict=True):
        lines.append(f"| {ALSO[name]} | {'not run' if result is None else MARKS[not result['problems']]} |")
    lines += ["", "No scenario reaches these rows; other effects reach their failpoints:", ""]
    lines += [f"- `{name}`: {why}" for name, why in UNREACHED.items()]
    return "\n".join(lines) + "\n"
