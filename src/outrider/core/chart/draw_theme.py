"""Light and dark: every colour of a drawing has a counterpart with the same meaning on dark paper."""

import re
from collections.abc import Mapping
from typing import Literal

Theme = Literal["light", "dark"]

DARK: Mapping[str, str] = {
    "white": "#202124",
    "#202124": "#e8eaed",  # ink
    "#5f6368": "#bdc1c6",  # notes and edges
    "#80868b": "#9aa0a6",
    "#9aa0a6": "#80868b",
    "#188038": "#81c995",  # the success path
    # papers of the top states
    "#e8f0fe": "#1b2a41",
    "#fff4dc": "#3a2f16",
    "#e6f4ea": "#173324",
    "#f3e8fd": "#30213f",
    "#e4f7fb": "#14333a",
    "#fde8e8": "#3f1f1f",
    "#eeeeee": "#303134",
    "#fbe9f3": "#3c1f30",
    # lines, one lane after the other
    "#c5221f": "#f28b82",
    "#1967d2": "#8ab4f8",
    "#9334e6": "#c58af9",
    "#9e5600": "#fdd663",
    "#00796b": "#78d9c8",
    "#c2185b": "#ff8bcb",
    "#3949ab": "#aab4f5",
    "#5d4037": "#d7b8ab",
    "#016fb1": "#7fcfff",
    "#6a1b9a": "#e0a6f5",
    # what is marked
    "#fde293": "#4d3a00",
    "#174ea6": "#aecbfa",
}
"""Light -> dark."""

_COLOR = re.compile(r'#[0-9a-f]{6}\b|(?<=")white(?=")|(?<=[cC]olor )white\b|(?<=color: )white\b')


def recolored(source: str, theme: Theme) -> str:
    """``source`` of any format with its colours exchanged for those of ``theme``."""
    return source if theme == "light" else _COLOR.sub(lambda found: DARK[found[0]], source)
