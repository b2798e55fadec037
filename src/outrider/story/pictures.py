"""A merged story as lines of text, and as diagrams of Mermaid: a sequence of messages, and a Gantt chart."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from outrider.story.merged import StoryLine
from outrider.story.telling import duration

_SHOWN = 160
"""Characters of a text in a diagram."""


def render_lines(lines: Sequence[StoryLine]) -> list[str]:
    """A line each: where it stands, when, which instance, the state, how long it lasted, what happened."""
    cells = [
        (
            line.place,
            f"{line.at:%H:%M:%S}.{line.at.microsecond // 100_000}" if line.at is not None else "",
            line.instance,
            line.state,
            duration(line.took_s, plus=True) if line.took_s is not None else "",
        )
        for line in lines
    ]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(5)]
    return [
        "  ".join(
            [row[0].rjust(widths[0]), *(cell.ljust(width) for cell, width in zip(row[1:4], widths[1:4], strict=True)),
             row[4].rjust(widths[4]), _said(line)]
        ).rstrip()
        for row, line in zip(cells, lines, strict=True)
    ]  # fmt: skip


def _said(line: StoryLine) -> str:
    """The text, with what ended the state, and where it comes from when etcd heard nothing of it."""
    text = line.text
    if line.event and line.kind in ("state", "local"):
        text = f"{text} ({line.event})" if text else f"({line.event})"
    if line.version and line.kind == "state" and not text:
        text = f"runs {line.version}"
    return f"{text} [no write in etcd]".lstrip() if line.is_local else text


def sequence(lines: Sequence[StoryLine], title: str) -> list[str]:
    """A sequence diagram of Mermaid: etcd and the instances; a note is a step of which etcd heard nothing."""
    names = {name: f"p{number}" for number, name in enumerate(_instances(lines))}
    told = ["sequenceDiagram", f"    title {_escaped(title)}", "    participant etcd"]
    told += [f"    participant {short} as {_escaped(name)}" for name, short in names.items()]
    for line in lines:
        who = names.get(line.instance, "etcd")
        what = _escaped(" ".join(filter(None, (line.place, line.state, line.text)))[:_SHOWN])
        if line.is_local or who == "etcd" or line.kind in ("event", "told"):
            told.append(f"    Note over {who}: {what}")
        elif line.kind == "left":
            told.append(f"    {who}-xetcd: {what}")
        else:
            told.append(f"    {who}->>etcd: {what}")
    return told


def gantt(lines: Sequence[StoryLine], title: str) -> list[str]:
    """A Gantt chart of Mermaid: a bar for each state, by the clock of the service, an instance in each section.

    ``crit``: it undoes something, or its sidekick was away. ``done``: etcd heard nothing of the state, and its time is
    made from the machine's clock.
    """
    told = ["gantt", f"    title {_escaped(title)}", "    dateFormat x", "    axisFormat %H:%M:%S"]
    for name in _instances(lines):
        told.append(f"    section {_escaped(name)}")
        for begin, end, line in bars([one for one in lines if one.instance == name]):
            state = "away" if line.kind == "left" else line.state
            tags = ["crit"] if state.partition(".")[0] in ("rollback", "away") else []
            tags += ["done"] if line.is_local else []
            times = (str(round(one.timestamp() * 1000)) for one in (begin, max(end, begin + timedelta(milliseconds=1))))
            told.append(f"    {_escaped(state, more=':,')} :{', '.join((*tags, *times))}")
    return told


def bars(lines: Sequence[StoryLine]) -> Iterator[tuple[datetime, datetime, StoryLine]]:
    """The states of one instance with their begin and end, by the clock of the service."""
    stays: list[tuple[datetime, StoryLine]] = []
    offset: timedelta | None = next((one.at - one.machine_at for one in lines if one.at and one.machine_at), None)
    for line in lines:
        if line.kind not in ("state", "left") and (not line.is_local or line.took_s is None):
            continue
        if line.at is not None and line.machine_at is not None:
            offset = line.at - line.machine_at
        begin = line.at
        if begin is None and line.machine_at is not None and offset is not None:
            begin = line.machine_at + offset
        begin = begin or (stays[-1][0] if stays else None)
        if begin is not None:
            stays.append((begin, line))
    for (begin, line), (end, _) in itertools.pairwise(stays):
        yield begin, max(begin, end), line
    for begin, line in stays[-1:]:
        yield begin, begin + timedelta(seconds=line.took_s or 0.0), line


def _instances(lines: Iterable[StoryLine]) -> list[str]:
    return sorted({line.instance for line in lines if line.instance})


def _escaped(text: str, more: str = "") -> str:
    """Without what Mermaid takes for its own: ``#`` begins an entity, ``;`` ends a line; and ``more``."""
    return " ".join("".join(" " if one in f"#;{more}" else one for one in text).split())
