"""Waves of a policy as a person writes them: ``canary=yes; 2; soak 30m; approval``."""

import re
from collections.abc import Callable
from typing import Any

from outrider.cli.rest_client import Json
from outrider.core.errors import ConfigError
from outrider.core.labels import parse_selector

ANY = "any"
WAVE: Json = {
    "selector": "",
    "count": None,
    "percent": None,
    "soak_s": 0,
    "success_percent": 100.0,
    "approval": False,
}
"""What a wave is that says nothing of itself."""
_HOW = "write SELECTOR; COUNT or SHARE%; soak TIME; success SHARE%; approval"
_EXAMPLE = "'canary=yes; 2; soak 30m; approval'"


def read_waves(texts: tuple[str, ...], seconds: Callable[[str], int]) -> list[Json]:
    """Read waves, ``none`` as no waves.

    Raises:
        ConfigError: one can't be read; the service checks the numbers themselves.
    """
    return [] if texts == ("none",) else [_wave(text, seconds) for text in texts]


def wave_text(wave: Json, duration: Callable[[int], str]) -> str:
    """A wave as ``read_waves`` takes it."""
    parts = [wave["selector"] or ANY]
    parts += [str(wave["count"])] if wave["count"] is not None else []
    parts += [f"{wave['percent']:g}%"] if wave["percent"] is not None else []
    parts += [f"soak {duration(wave['soak_s'])}"] if wave["soak_s"] else []
    parts += [f"success {wave['success_percent']:g}%"] if wave["success_percent"] != WAVE["success_percent"] else []
    parts += ["approval"] if wave["approval"] else []
    return "; ".join(parts)


def _wave(text: str, seconds: Callable[[str], int]) -> Json:
    selector, *parts = (part.strip() for part in text.split(";"))
    found: dict[str, Any] = {"selector": "" if selector == ANY else selector}
    try:
        parse_selector(found["selector"])
        for part in parts:
            name, value = _part(part, seconds)
            if name in found:
                raise ConfigError(f"{part!r} says {name} a second time")
            found[name] = value
    except ConfigError as error:
        raise ConfigError(f"--wave {text!r}: {error}; {_HOW}, such as {_EXAMPLE}, or none") from error
    return WAVE | found


def _part(part: str, seconds: Callable[[str], int]) -> tuple[str, Any]:
    if part == "approval":
        return "approval", True
    if re.fullmatch(r"[0-9]{1,6}", part):
        return "count", int(part)
    if match := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%", part):
        return "percent", float(match[1])
    if match := re.fullmatch(r"success ([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%", part):
        return "success_percent", float(match[1])
    if part.startswith("soak "):
        return "soak_s", seconds(part.removeprefix("soak "))
    raise ConfigError(f"{part!r} can't be read")
