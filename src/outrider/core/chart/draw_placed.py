"""A sheet as Graphviz source with every place given, for a PNG: Graphviz only paints it.

graphviz-pure brings its own fonts with the very widths that the sheet reckons with, so that no font, and no system
package, is needed on the machine. To be painted by ``neato -n2``. Graphviz counts y upwards.
"""

from collections.abc import Iterator
from itertools import pairwise

from outrider.core.chart.draw_sheet import MAIN, Frame, Sheet, Text, Wire
from outrider.core.chart.draw_theme import Theme, recolored

ENGINE = ("-Kneato", "-n2")
"""Options of graphviz-pure for a source with places."""

DPI = 144
"""Two pixels for each of the sheet's: sharp on a projector."""


def to_placed_dot(sheet: Sheet, theme: Theme = "light") -> str:
    """Graphviz source for ``sheet``."""
    lines = [
        f"graph {_quote(sheet.title)} {{",
        f'  graph [bgcolor="white", pad=0, margin=0, dpi={DPI}, outputorder=nodesfirst];',
        '  node [label="", fontname=Arimo, fixedsize=true, margin=0];',
        "  edge [arrowhead=none];",
        f'  paper [shape=box, style=filled, fillcolor="white", color="white", penwidth=0, '
        f"{_place(sheet, 0, 0, sheet.width, sheet.height)}];",
    ]
    lines += [f"  f{number} [{_frame(sheet, frame)}];" for number, frame in enumerate(sheet.frames)]
    for number, dot in enumerate(sheet.dots):
        wide = 2 * dot.radius
        place = _place(sheet, dot.x - dot.radius, dot.y - dot.radius, wide, wide)
        lines.append(
            f'  d{number} [shape=circle, style=filled, fillcolor="{dot.color}", color="{dot.color}", {place}];'
        )
    lines += [f"  t{number} [{_text(sheet, text)}];" for number, text in enumerate(sheet.texts)]
    for number, wire in enumerate(sheet.wires):
        lines += _wire(sheet, wire, number)
    return recolored("\n".join([*lines, "}"]) + "\n", theme)


def _place(sheet: Sheet, x: float, y: float, width: float, height: float) -> str:
    across, up = x + width / 2, sheet.height - y - height / 2
    return f'pos="{across:.1f},{up:.1f}", width={width / 72:.4f}, height={height / 72:.4f}'


def _frame(sheet: Sheet, frame: Frame) -> str:
    edge = f'color="{MAIN}", penwidth=2' if frame.main else 'color="#5f6368", penwidth=1'
    dashed = ",dashed" if frame.kind == "history" else ""
    place = _place(sheet, frame.x, frame.y, frame.width, frame.height)
    return f'shape=box, style="rounded,filled{dashed}", fillcolor="{frame.fill}", {edge}, {place}'


def _text(sheet: Sheet, text: Text) -> str:
    left, top, right, bottom = text.area
    words = _quote(text.words)
    if text.bold:
        # Bold letters are a little narrower than the area that is kept for them, and stand in its middle.
        words = f"<<b>{_escape(text.words)}</b>>"
    # A letter stands a little higher in Graphviz' line than in the area that we reckon.
    place = _place(sheet, left, top - 0.04 * text.size, right - left, bottom - top)
    return f'shape=plaintext, label={words}, fontsize={text.size}, fontcolor="{text.color}", {place}'


def _wire(sheet: Sheet, wire: Wire, number: int) -> Iterator[str]:
    points = [(x, sheet.height - y) for x, y in wire.points]
    ends = []
    for name, (x, y) in (("a", points[0]), ("b", points[-1])):
        ends.append(f"w{number}{name}")
        yield f'  {ends[-1]} [shape=point, style=invis, width=0.01, height=0.01, pos="{x},{y}"];'
    head = ""
    looks = f'color="{wire.color}", penwidth={3.5 if wire.main else 1.3}'
    if wire.heads:
        (x, y), (a, b) = points[-1], points[-2]
        long = 11 if wire.main else 8
        points[-1] = (x - long * ((x > a) - (x < a)), y - long * ((y > b) - (y < b)))
        head = f"e,{x},{y} "
        looks += f", dir=forward, arrowhead=normal, arrowsize={0.5 if wire.main else 0.7}"
    spline = [points[0]]
    for one, other in pairwise(points):
        spline += [one, other, other]
    curve = " ".join(f"{x},{y}" for x, y in spline)
    yield f'  {ends[0]} -- {ends[1]} [pos="{head}{curve}", {looks}];'


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
