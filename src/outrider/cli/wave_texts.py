"""Waves and budgets as a person writes them: ``canary=yes; 2; soak 30m; approval``, ``at most 1 per rack``."""

import re
from collections.abc import Callable, Sequence
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
    "analyses": [],
}
"""What a wave is that says nothing of itself."""
_HOW = "write SELECTOR; COUNT or SHARE%; soak TIME; success SHARE%; analysis NAME; approval"
_EXAMPLE = "'canary=yes; 2; soak 30m; approval'"


def read_waves(texts: tuple[str, ...], seconds: Callable[[str], int]) -> list[Json]:
    """Read waves, ``none`` as no waves.

    Raises:
        ConfigError: one can't be read; the service checks the numbers themselves.
    """
    return [] if texts == ("none",) else [_wave(text, seconds) for text in texts]


def wave_text(wave: Json, duration: Callable[[int], str]) -> str:
    """A wave as ``read_waves`` takes it."""
    selector = wave["selector"] or ANY
    # a bare number, or `approval`, is the name of a label for a selector, and something else at the head of a wave
    parts = [f"{selector},{selector}" if _is_part(selector) else selector]
    parts += [str(wave["count"])] if wave["count"] is not None else []
    parts += [f"{wave['percent']:g}%"] if wave["percent"] is not None else []
    parts += [f"soak {duration(wave['soak_s'])}"] if wave["soak_s"] else []
    parts += [f"success {wave['success_percent']:g}%"] if wave["success_percent"] != WAVE["success_percent"] else []
    # a service of an older version knows no analyses
    parts += [f"analysis {', '.join(wave['analyses'])}"] if wave.get("analyses") else []
    parts += ["approval"] if wave["approval"] else []
    return "; ".join(parts)


def read_budgets(texts: tuple[str, ...]) -> list[Json]:
    """Read budgets, ``none`` as no budgets; two of one label become one.

    Raises:
        ConfigError: one can't be read; the service checks the numbers themselves.
    """
    return [] if texts == ("none",) else merged_budgets([_budget(text) for text in texts])


def merged_budgets(budgets: Sequence[Json]) -> list[Json]:
    """One for each label. Of two that say the same, both are kept, and refused later."""
    found: list[Json] = []
    for one in budgets:
        same = next((each for each in found if each["label"] == one["label"]), None)
        if same is None or any(one[name] and same[name] for name in ("max_out", "min_serving")):
            found.append(dict(one))
        else:
            same.update({name: one[name] for name in ("max_out", "min_serving") if one[name]})
    return found


def budget_texts(budget: Json) -> list[str]:
    """A budget as ``read_budgets`` takes it."""
    texts = [] if budget["max_out"] is None else [f"at most {budget['max_out']} per {budget['label']}"]
    return texts + (
        [f"at least {budget['min_serving']} serving per {budget['label']}"] if budget["min_serving"] else []
    )


def _budget(text: str) -> Json:
    words = " ".join(text.split())
    if match := re.fullmatch(r"at most ([0-9]{1,6}) per (\S+)", words):
        return {"label": match[2], "max_out": int(match[1]), "min_serving": 0}
    if match := re.fullmatch(r"at least ([0-9]{1,6}) serving per (\S+)", words):
        return {"label": match[2], "max_out": None, "min_serving": int(match[1])}
    raise ConfigError(f"--budget {text!r}: write 'at most 1 per rack', 'at least 2 serving per site', or none")


def _wave(text: str, seconds: Callable[[str], int]) -> Json:
    selector, *parts = (part.strip() for part in text.split(";"))
    if _is_part(selector):  # it names nobody, so it means everybody
        selector, parts = ANY, [selector, *parts]
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


def _is_part(text: str) -> bool:
    """Whether it says how many, or what holds after the wave, and not who."""
    return text == "approval" or bool(re.fullmatch(r"[0-9]+|[0-9.]+ ?%|(soak|success|analysis) .*", text))


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
    if part.startswith("analysis "):
        names = [name.strip() for name in part.removeprefix("analysis ").split(",")]
        return "analyses", list(filter(None, names))
    raise ConfigError(f"{part!r} can't be read")
