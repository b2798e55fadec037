"""Versions over time as a stacked chart: how many instances ran each, from the group's history."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from outrider.model.history import milliseconds, moment
from outrider.service.history.over_time import GroupPast, Point
from outrider.service.web.fleet import SHADES, rank

RANGES: Mapping[str, int] = {"1h": 3600, "1d": 86400, "7d": 7 * 86400, "30d": 30 * 86400}
"""Spans that can be looked at, in seconds."""
COLUMNS = 240
WIDTH, HEIGHT = 960, 200
MOST = 6
"""Versions with a colour of their own: those that most ran for longest. The others are one part."""
OTHERS = "others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A version in the chart.

    Attributes:
        path: Of an SVG path: its area.
        shade: Of its colour; None: it is the target.
        most: So many ran it at the same time.
    """

    version: str
    path: str
    shade: int | None
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Versions over a span.

    Attributes:
        most: Instances at the top of the picture.
        words: The picture for who doesn't see it.
        note: What is not known of the span; empty: all is.
    """

    span: str
    layers: tuple[Layer, ...]
    most: int
    words: str
    note: str


def chart_of(past: GroupPast, span: str, target: str, now: datetime) -> Chart:
    """The chart of the last ``span``, one of ``RANGES``."""
    step = RANGES[span] * 1000 // COLUMNS
    # in whole columns: the picture stays the same while nothing has changed
    end = -(-milliseconds(now) // step) * step
    begin = end - step * COLUMNS
    columns = sampled(past.points, begin, step)
    area: Counter[str] = Counter()
    for counts in columns:
        area.update(counts or {})
    named = sorted([version for version, _ in area.most_common(MOST)], key=rank)
    columns = [None if counts is None else _few(counts, named) for counts in columns]
    order = named + ([OTHERS] if len(area) > MOST else [])
    most = max((sum(counts.values()) for counts in columns if counts), default=0)
    layers, base = [], [0] * COLUMNS
    for number, version in enumerate(order):
        tops = [low + (counts or {}).get(version, 0) for low, counts in zip(base, columns, strict=True)]
        layers.append(
            Layer(
                version=version or "(unknown)",
                path="".join(_areas(base, tops, most)),
                shade=None if version == target else number % SHADES,
                most=max(top - low for low, top in zip(base, tops, strict=True)),
            )
        )
        base = tops
    unknown = sum(counts is None for counts in columns)
    note = past.problem
    if not note and unknown:
        first = next((point.at for point in past.points), end)
        note = (
            f"the history begins at {moment(first):%Y-%m-%d %H:%M} UTC"
            if first > begin
            else "nothing is recorded of some parts"
        )
    return Chart(
        span=span,
        layers=tuple(layers),
        most=most,
        words=_words(columns, order),
        note=note,
    )


def usual_span(past: GroupPast, now: datetime) -> str:
    """The span that is shown when nobody has chosen one: a day, or an hour while the history has no more."""
    is_young = bool(past.points) and milliseconds(now) - past.points[0].at < RANGES["1h"] * 1000
    return "1h" if is_young else "1d"


def sampled(points: Sequence[Point], begin: int, step: int) -> list[Mapping[str, int] | None]:
    """What was so at the end of each column; None: nothing is known of it."""
    found: list[Mapping[str, int] | None] = []
    at, now = 0, None
    for column in range(COLUMNS):
        while at < len(points) and points[at].at < begin + (column + 1) * step:
            now = points[at].counts
            at += 1
        found.append(now)
    return found


def shades_of(chart: Chart) -> dict[str, int]:
    """Version -> number of its colour, so that all of a page have the same."""
    return {layer.version: layer.shade for layer in chart.layers if layer.shade is not None}


def _few(counts: Mapping[str, int], named: Sequence[str]) -> dict[str, int]:
    few: Counter[str] = Counter()
    for version, number in counts.items():
        few[version if version in named else OTHERS] += number
    return few


def _areas(low: Sequence[int], high: Sequence[int], most: int) -> Iterator[str]:
    """An area for each run of columns in which there is something, in steps."""
    width = WIDTH // COLUMNS

    def y(number: int) -> int:
        return HEIGHT - round(HEIGHT * number / max(most, 1))

    column = 0
    while column < COLUMNS:
        if high[column] == low[column]:
            column += 1
            continue
        start = column
        while column < COLUMNS and high[column] > low[column]:
            column += 1
        path, at = f"M{start * width} {y(high[start])}", high[start]
        for one in range(start + 1, column):
            if high[one] != at:
                at = high[one]
                path += f"H{one * width}V{y(at)}"
        at = low[column - 1]
        path += f"H{column * width}V{y(at)}"
        for one in range(column - 2, start - 1, -1):
            if low[one] != at:
                at = low[one]
                path += f"H{(one + 1) * width}V{y(at)}"
        yield f"{path}H{start * width}Z"


def _words(columns: Sequence[Mapping[str, int] | None], order: Sequence[str]) -> str:
    last = next((counts for counts in reversed(columns) if counts is not None), None)
    if last is None:
        return "nothing is recorded of this time"
    first = next(counts for counts in columns if counts is not None)

    def say(counts: Mapping[str, int]) -> str:
        shown = [f"{counts[version]} with {version or '(unknown)'}" for version in order if counts.get(version)]
        return ", ".join(shown) or "none"

    return f"at the beginning {say(first)}; at the end {say(last)}"
