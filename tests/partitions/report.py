"""The tables of ``docs/develop/partitions.md``: what was seen, cell by cell, written by the runs that saw it.

A run replaces the rows of its own cells and leaves the others, so a part of the cells can be run anew.
"""

from collections.abc import Iterable
from pathlib import Path

from tests.partitions.cut_points import CUT_POINTS, CutPoint
from tests.partitions.cuts import THINGS, Thing
from tests.partitions.rounds import Seen

PAGE = Path(__file__).parents[2] / "docs" / "develop" / "partitions.md"
BEGIN, END = "<!-- seen: begin, written by make partitions -->", "<!-- seen: end -->"
HEAD = ("cut at", "went through, while cut", "runs", "entry", "turn", "reports wait", "then, healed")

Rows = dict[tuple[str, str], str]
"""Thing and place, as the page names it -> the row."""


def write(cells: Iterable[Seen], page: Path = PAGE) -> None:
    """Put the rows of ``cells`` into the page, in place of those of an earlier run."""
    rows = read(page) | {(seen.thing, title(seen.app.cut_point)): _row(seen) for seen in cells}
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{_tables(rows)}{END}{after}", encoding="utf-8")


def read(page: Path = PAGE) -> Rows:
    """The rows that the page has.

    Raises:
        AssertionError: the page has no place for them.
    """
    _, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    seen, end, _ = rest.partition(END)
    assert begin, f"{page} has no line {BEGIN!r}"
    assert end, f"{page} has no line {END!r}"
    rows, thing = {}, ""
    for line in seen.splitlines():
        if line.startswith("### "):
            thing = line.removeprefix("### ")
        elif line.startswith("| ") and not line.startswith(f"| {HEAD[0]} "):
            rows[thing, line.split(" | ")[0].removeprefix("| ")] = line
    return rows


def cells() -> set[tuple[Thing, str]]:
    """All rows that the page should have."""
    return {(thing, title(cut_point)) for thing in THINGS for cut_point in CUT_POINTS}


def title(cut_point: CutPoint) -> str:
    """How the page names a place."""
    second = ", stop-first" if cut_point.strategy == "stop-first" else ""
    return cut_point.state + second + ("" if cut_point.release == "good" else f", {cut_point.release} release")


def _tables(rows: Rows) -> str:
    parts = []
    for thing in THINGS:
        found = [rows[thing, title(cut_point)] for cut_point in CUT_POINTS if (thing, title(cut_point)) in rows]
        if found:
            head = f"\n### {thing}\n\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}\n"
            parts.append(head + "\n".join(found) + "\n")
    return "".join(parts) + "\n"


def _row(seen: Seen) -> str:
    words = (seen.runs, seen.entry, seen.turn, "yes" if seen.reports else "no", _way(seen.after))
    return f"| {' | '.join((title(seen.app.cut_point), _way(seen.path), *words))} |"


def _way(path: tuple[str, ...]) -> str:
    """``probing → retreating``; what is gone through again and again is told once."""
    words: list[str] = []
    for state in path:
        word = state.rpartition(".")[2]
        if words.count(word) > (0 if word == "cooling" else 1):
            return " → ".join([*words, "again"])
        words.append(word)
    return " → ".join(words)
