"""A drawing with places: what a layout gives, and what is written as SVG. All lengths are pixels at 100 %.

Widths of text come from one fixed table, so that a layout has the same bytes on every machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from outrider.core.chart.model import Transition

LINE = 14
"""From one line of text to the next."""

SIZE = 12
"""Font size of labels and notes."""

MAIN = "#188038"
"""The colour of the success path."""

MARK, MARK_PAPER = "#174ea6", "#fde293"
"""Words and boxes that are marked."""

# Advance widths of Helvetica in thousandths of the font size (Adobe's AFM files); Arial, Arimo and Liberation Sans
# have the same. Characters with the same width stand together.
_WIDTHS = {
    191: "'", 222: "ijl", 260: "|", 278: " !,./:;I[\\]ft", 333: "()-`r", 334: "{}", 355: '"', 389: "*", 469: "^",
    500: "Jcksvxyz", 556: "#$0123456789?L_abdeghnopqu", 584: "+<=>~", 611: "FTZ", 667: "&ABEKPSVXY",
    722: "CDHNRUw", 778: "GOQ", 833: "Mm", 889: "%", 944: "W", 1000: "→", 1015: "@",
}  # fmt: skip
_WIDTH = {character: width for width, characters in _WIDTHS.items() for character in characters}
_BOLD = 1.1
"""Helvetica-Bold is about this much wider; the SVG makes every text exactly as wide as is reckoned here."""


def text_width(words: str, size: int = SIZE, bold: bool = False) -> float:
    """How wide ``words`` are when set in one line; an unknown character counts as the widest."""
    return sum(_WIDTH.get(character, 1015) for character in words) * size / 1000 * (_BOLD if bold else 1.0)


def wrap(words: str, width: float, size: int = SIZE, bold: bool = False) -> list[str]:
    """``words`` in lines no wider than ``width``, broken at spaces, and within a word that has no room in a line."""
    lines: list[str] = []
    for word in words.split():
        if lines and text_width(f"{lines[-1]} {word}", size, bold) <= width:
            lines[-1] += f" {word}"
            continue
        rest = word
        while text_width(rest, size, bold) > width:
            fits = max(
                count for count in range(1, len(rest)) if count == 1 or text_width(rest[:count], size, bold) <= width
            )
            lines.append(rest[:fits])
            rest = rest[fits:]
        lines.append(rest)
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What a drawing shows besides the chart: instances that are somewhere now, or the way that one update took.

    Attributes:
        legend: What is marked, in a sentence; empty when nothing is.
        notes: Lines for each marked leaf, by its id.
        taken: The leaf that was left, and the line in the chart's file, of each transition that was taken.
    """

    legend: str = ""
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    taken: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One line of text.

    Attributes:
        x: Where it begins.
        y: Its baseline.
        way: The transition that it stands for; None on the second and later lines, and for all other text.
        to: It names this state, and has the colour of the lines that lead there.
    """

    x: int
    y: int
    words: str
    size: int = SIZE
    bold: bool = False
    color: str = "#202124"
    way: Transition | None = None
    to: str = ""

    @property
    def area(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what it covers."""
        width = text_width(self.words, self.size, self.bold)
        return self.x, self.y - 0.78 * self.size, self.x + width, self.y + 0.22 * self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The edge of a state: a box, or (``compound``) what lies around boxes.

    Attributes:
        main: A box on the success path.
    """

    id: str
    kind: str
    x: int
    y: int
    width: int
    height: int
    fill: str
    main: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """A line through ``points``.

    Attributes:
        heads: Ends in an arrowhead.
    """

    points: tuple[tuple[int, int], ...]
    color: str
    heads: bool = False
    main: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A filled circle: where lines meet, or where the chart starts."""

    x: int
    y: int
    radius: int
    color: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Everything on a drawing, from the back to the front."""

    title: str
    width: int
    height: int
    frames: tuple[Frame, ...]
    wires: tuple[Wire, ...]
    dots: tuple[Dot, ...]
    texts: tuple[Text, ...]
