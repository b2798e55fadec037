"""What the names in the chart mean, a sentence or two each, from the code that they stand for."""

import inspect
import re

from outrider.core.sidekick.effects import EFFECT_TYPES
from outrider.core.sidekick.events import TIMERS
from outrider.core.sidekick.guards import GUARDS
from outrider.core.sidekick.remember import EVENT_TYPES
from outrider.core.sidekick.rules import INTERNAL


def event_words(name: str) -> str:
    """What has happened when the event ``name`` comes; empty for a name that means nothing to a sidekick."""
    if name in TIMERS:
        timer, _, word = name.rpartition(".")
        return f"the time limit {timer!r} has passed" if word == "expired" else f"the pause {timer!r} is over"
    if name in EVENT_TYPES:
        return _summary(EVENT_TYPES[name])
    return "the chart itself says so, in the same step" if name in INTERNAL else ""


def guard_words(name: str) -> str:
    """What a guard asks; its name in words where the code says no more."""
    return _summary(GUARDS[name]) if name in GUARDS else name.replace("_", " ")


def effect_words(name: str) -> str:
    """What an effect does; empty for an unknown one."""
    return _summary(EFFECT_TYPES[name]) if name in EFFECT_TYPES else ""


def _summary(thing: object) -> str:
    """The first paragraph of its docstring, as one line."""
    words = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    # dataclasses without a docstring of their own get their signature as one
    if not words or re.match(r"\w+\(.*\)$", words, re.DOTALL):
        return getattr(thing, "__name__", "").replace("_", " ")
    return " ".join(words.replace("``", "").split()).rstrip(".")
