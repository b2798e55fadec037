"""A sheet as SVG, with nothing from outside: no script, no style sheet, no font file.

Every text says how long it is (``textLength``): where none of the fonts is installed, another one is squeezed or
stretched into the same place instead of running over its neighbours. The paper is white by itself, so that the drawing
can be read on a dark page; the dark theme has dark paper in the same way.
"""

from collections.abc import Callable, Iterator

from outrider.core.chart.draw_sheet import MAIN, Frame, Sheet, Text, Wire, text_width
from outrider.core.chart.draw_theme import Theme, recolored

FONTS = "Arimo, 'Liberation Sans', Arial, Helvetica, sans-serif"


def _as_drawn(_: Frame | Text, drawn: str) -> str:
    return drawn


def to_svg(
    sheet: Sheet,
    theme: Theme = "light",
    *,
    around_frame: Callable[[Frame, str], str] = _as_drawn,
    around_text: Callable[[Text, str], str] = _as_drawn,
) -> str:
    """The whole file.

    Args:
        around_frame: Given a frame and what is drawn for it, gives what stands in the file, such as a link around it.
        around_text: The same for words.
    """
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{sheet.width}" height="{sheet.height}" '
        f'viewBox="0 0 {sheet.width} {sheet.height}" font-family="{FONTS}">',
        f"<title>{_escape(sheet.title)}</title>",
        f'<rect width="{sheet.width}" height="{sheet.height}" fill="white"/>',
        *(around_frame(frame, _frame(frame)) for frame in sheet.frames),
    ]
    for wire in sheet.wires:
        lines += _wire(wire)
    lines += [f'<circle cx="{dot.x}" cy="{dot.y}" r="{dot.radius}" fill="{dot.color}"/>' for dot in sheet.dots]
    lines += [around_text(text, _text(text)) for text in sheet.texts]
    return recolored("\n".join([*lines, "</svg>"]) + "\n", theme)


def _frame(frame: Frame) -> str:
    place = f'x="{frame.x}" y="{frame.y}" width="{frame.width}" height="{frame.height}"'
    edge = f'stroke="{MAIN}" stroke-width="2"' if frame.main else 'stroke="#5f6368"'
    dashes = ' stroke-dasharray="2 2"' if frame.kind == "history" else ""
    return f'<rect {place} rx="{9 if frame.kind == "compound" else 6}" fill="{frame.fill}" {edge}{dashes}/>'


def _wire(wire: Wire) -> Iterator[str]:
    points = list(wire.points)
    width = 3.5 if wire.main else 1.3
    if wire.heads:
        (x, y), (a, b) = points[-1], points[-2]
        long, half = (11, 5) if wire.main else (8, 4)
        dx, dy = (x > a) - (x < a), (y > b) - (y < b)
        back = (x - long * dx, y - long * dy)
        points[-1] = back
        tips = ((x, y), (back[0] + half * dy, back[1] + half * dx), (back[0] - half * dy, back[1] - half * dx))
        yield f'<polygon points="{_points(tips)}" fill="{wire.color}"/>'
    yield (
        f'<polyline points="{_points(points)}" fill="none" stroke="{wire.color}" stroke-width="{width}" '
        'stroke-linejoin="round" stroke-linecap="round"/>'
    )


def _points(points: list[tuple[int, int]] | tuple[tuple[int, int], ...]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _text(text: Text) -> str:
    weight = ' font-weight="bold"' if text.bold else ""
    length = f"{text_width(text.words, text.size, text.bold):.1f}"
    return (
        f'<text x="{text.x}" y="{text.y}" font-size="{text.size}"{weight} fill="{text.color}" '
        f'textLength="{length}" lengthAdjust="spacingAndGlyphs">{_escape(text.words)}</text>'
    )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
