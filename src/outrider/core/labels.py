"""Labels of instances, and selectors that choose instances by them.

A label says where or what an instance is: ``site = "a"``, ``rack = "3"``. A selector is written as in Kubernetes:
``site=a,rack!=3``, ``site in (a, b)``, ``rack notin (1, 2)``, ``canary`` (it has the label), ``!canary`` (it hasn't).
All requirements of a selector must hold; an empty one selects every instance. As there, ``!=`` and ``notin`` also hold
for an instance without the label.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from outrider.core.errors import ConfigError

MAX_LABELS = 16
MAX_SELECTOR = 500
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,62})"
_VALUE = r"[A-Za-z0-9](?:[A-Za-z0-9._:/@+-]{0,62})"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<without>{_NAME})"
    rf"|(?P<name>{_NAME})(?:\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\)"
    rf"|\s*(?P<operator>==|=|!=)\s*(?P<value>{_VALUE}))?)\s*"
)

Operator = Literal["in", "notin", "exists", "absent"]


def check_name(name: str) -> str:
    """Return the name of a label that can be used.

    Raises:
        ConfigError: it can't.
    """
    if not re.fullmatch(_NAME, name):
        raise ConfigError(f"label {name!r}: use 1 to 63 letters, digits or . _ / - and begin with a letter or a digit")
    return name


def check_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return labels that can be used.

    Raises:
        ConfigError: too many, or a name or a value that can't be used.
    """
    if len(labels) > MAX_LABELS:
        raise ConfigError(f"{len(labels)} labels; at most {MAX_LABELS}")
    for name, value in labels.items():
        check_name(name)
        if not re.fullmatch(_VALUE, value):
            raise ConfigError(
                f"label {name} = {value!r}: use 1 to 63 letters, digits or . _ : / @ + - and begin with a letter or a"
                " digit"
            )
    return labels


def shown(labels: Mapping[str, str]) -> str:
    """``rack=3,site=a``."""
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One condition of a selector."""

    name: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """For an instance with these labels."""
        value = labels.get(self.name)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """What a selector's text says."""

    text: str
    requirements: tuple[Requirement, ...]

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether an instance with these labels is meant."""
        return all(one.holds(labels) for one in self.requirements)


def parse_selector(text: str) -> Selector:
    """Read a selector.

    Raises:
        ConfigError: it can't be read; the message says from where on.
    """
    if len(text) > MAX_SELECTOR:
        raise ConfigError(f"selector: {len(text)} characters; at most {MAX_SELECTOR}")
    if not text.strip():
        return Selector(text="", requirements=())
    at, found = 0, []
    while True:
        match = _REQUIREMENT.match(text, at)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            raise ConfigError(
                f"selector {text!r}: can't be read from {text[at:].strip()[:40]!r} on; write for example"
                " site=a,rack!=3, 'site in (a, b)', canary or !canary"
            )
        found.append(_requirement(text, match))
        if match.end() == len(text):
            return Selector(text=text.strip(), requirements=tuple(found))
        at = match.end() + 1


def _requirement(text: str, match: re.Match[str]) -> Requirement:
    if match["absent"]:
        return Requirement(name=match["without"], operator="absent")
    name = match["name"]
    if match["set"]:
        values = tuple(one.strip() for one in match["values"].split(","))
        wrong = next((one for one in values if not re.fullmatch(_VALUE, one)), None)
        if wrong is not None:
            raise ConfigError(f"selector {text!r}: {wrong!r} is no value of a label")
        return Requirement(name=name, operator="in" if match["set"] == "in" else "notin", values=values)
    if match["operator"]:
        return Requirement(name=name, operator="notin" if match["operator"] == "!=" else "in", values=(match["value"],))
    return Requirement(name=name, operator="exists")
