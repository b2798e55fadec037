"""The table of ``docs/develop/partitions.md``: what was seen, cell by cell, written by the run that saw it."""

from collections.abc import Iterable
from pathlib import Path

from tests.partitions.cuts import THINGS
from tests.partitions.rounds import Seen

PAGE = Path(__file__).parents[2] / "docs" / "develop" / "partitions.md"
BEGIN, END = "<!-- seen: begin, written by make partitions -->", "<!-- seen: end -->"


def write(cells: Iterable[Seen], page: Path = PAGE) -> None:
    """Put the tables of ``cells`` into the page, in place of those of an earlier run."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert rest, f"{page} has no line {BEGIN!r}"
    page.write_text(f"{before}{BEGIN}\n\n{tables(cells)}\n{END}{after}", encoding="utf-8")


def tables(cells: Iterable[Seen]) -> str:
    """A table for each thing, in the order of the places."""
    found = list(cells)
    parts = []
    for thing in THINGS:
        rows = [_row(seen) for seen in found if seen.thing == thing]
        if rows:
            head = "| cut at | went through, while cut | runs | entry | turn | reports wait | then, healed |"
            parts.append("\n".join([f"### {thing}", "", head, "|---|---|---|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _row(seen: Seen) -> str:
    place = seen.app.place
    name = place.state + (", stop-first" if place.strategy == "stop-first" else "")
    release = "" if place.release == "good" else f", {place.release} release"
    waits = "yes" if seen.reports else "no"
    cells = (f"{name}{release}", _way(seen.path), seen.runs, seen.entry, seen.turn, waits, _way(seen.after))
    return f"| {' | '.join(cells)} |"


def _way(path: tuple[str, ...]) -> str:
    """``probing → retreating``; what is gone through again and again is told once."""
    words: list[str] = []
    for state in path:
        word = state.rpartition(".")[2]
        if word == "cooling" and word in words:
            return " → ".join([*words, "again"])
        if words and words.count(word) > 1:
            return " → ".join([*words, "again"])
        words.append(word)
    return " → ".join(words)
