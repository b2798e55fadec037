"""A group's policy in a file: the settings of the REST API, with short texts where a person writes them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import msgspec

from outrider.cli.analysis_texts import ANALYSIS, EXAMPLE
from outrider.cli.commands.policy import (
    analyses,
    budgets,
    deny_windows,
    freezes,
    per_interval,
    seconds,
    text_of,
    waves,
    windows,
)
from outrider.cli.declared.reader import Reader, line_of, plain
from outrider.cli.declared.tree import Items, Node, Scalar, Table
from outrider.cli.rest_client import Json
from outrider.cli.wave_texts import WAVE, merged_budgets
from outrider.core.errors import ConfigError
from outrider.core.rollout.policy_settings import Policy, check_policy

SETTINGS = tuple(each.name for each in fields(Policy))
DEFAULT: Json = msgspec.json.decode(msgspec.json.encode(Policy()))
"""As the REST API shows a policy that defers nobody."""


def read_policy(reader: Reader, what: str, node: Node) -> Json:
    """All settings of a policy: those that the file names, and the defaults of the others."""
    table = reader.table(node, what, SETTINGS)
    found = dict(DEFAULT)
    for name in table.entries:
        if name in DEFAULT:
            value = reader.checked(line_of(table, name), _value, what, name, table)
            found[name] = DEFAULT[name] if value is _WRONG else value
    _check(reader, what, table, found)
    return found


_WRONG = object()
_WINDOW: Json = {"days": [], "opens": "00:00", "closes": "24:00"}
_LISTS: Mapping[str, tuple[Callable[[tuple[str, ...]], list[Json]], str, Json]] = {
    "windows": (windows, "mon-fri 09:00-17:00", _WINDOW),
    "deny_windows": (deny_windows, "fri 16:00-24:00", _WINDOW),
    "freezes": (freezes, "2026-12-20..2027-01-03 holidays", {"begins": "", "ends": "", "why": ""}),
    "waves": (waves, "canary=yes; 2; soak 30m; approval", WAVE),
    "analyses": (analyses, EXAMPLE, ANALYSIS),
    "budgets": (budgets, "at most 1 per rack", {"label": "", "max_out": None, "min_serving": 0}),
}
"""Settings that are lists: how a text is read, an example, and what a table has by default."""


def _value(what: str, name: str, table: Table) -> Any:
    """As the API takes it.

    Raises:
        ConfigError: it can't be read.
    """
    node = table.entries[name]
    given = node.value if isinstance(node, Scalar) and isinstance(node.value, str) else plain(node)
    if name in _LISTS:
        if not isinstance(node, Items):
            raise ConfigError(f"{what}.{name}: must be a list such as ['{_LISTS[name][1]}']")
        found = [each for item in node.items for each in _listed(what, name, item)]
        return merged_budgets(found) if name == "budgets" else found
    if isinstance(given, str):
        word = given.strip()
        if name == "max_per_interval":
            return _reworded(what, name, lambda: per_interval(word))
        if name == "update_timeout_s":
            return _reworded(what, name, lambda: seconds(word))
        if name in ("max_in_progress", "max_failures", "approve_after_s") and word == "none":
            return None
        if name == "approve_after_s":
            return _reworded(what, name, lambda: seconds(word))
        if name in ("pin", "time_zone", "downgrade", "canary_selector"):
            return given
        if isinstance(node, Scalar) and node.loose:
            given = plain(node)
    default = DEFAULT[name]
    wanted: Any = type(default) if default is not None else int
    if wanted is int and isinstance(given, bool):
        raise ConfigError(f"{what}.{name}: must be a whole number")
    if wanted is float and isinstance(given, int) and not isinstance(given, bool):
        return float(given)
    if name == "max_per_interval":
        if not isinstance(given, dict) or set(given) != {"count", "interval_s"}:
            raise ConfigError(
                f"{what}.{name}: write COUNT/DURATION such as '1/5m', or a table with count and interval_s"
            )
        return given
    if not isinstance(given, wanted):
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        raise ConfigError(f"{what}.{name}: must be {words[wanted]}")
    return given


def _listed(what: str, name: str, item: Node) -> list[Json]:
    """A window or a freeze, as a text or as the table that the API has."""
    read, example, defaults = _LISTS[name]
    given = plain(item)
    if isinstance(item, Scalar) and isinstance(item.value, str):
        text = item.value
        found: list[Json] = _reworded(what, name, lambda: read((text,)))
        return found
    if not isinstance(given, dict) or not set(given) <= set(defaults):
        raise ConfigError(f"{what}.{name}: write texts such as '{example}'")
    return [dict(defaults) | given]


def _reworded(what: str, name: str, read: Any) -> Any:
    """What the command line's own reading of it says, without the name of its option."""
    try:
        return read()
    except ConfigError as error:
        text = re.sub(r"^--(window|deny-window|freeze|wave|analysis|budget|max-per-interval) ", "", str(error))
        raise ConfigError(f"{what}.{name}: {text}") from error


def _check(reader: Reader, what: str, table: Table, found: Json) -> None:
    """Whether it can be carried out; a problem is blamed on the setting that the message names."""
    try:
        policy = msgspec.convert(found, Policy)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        name = place.partition("`")[0].partition("[")[0].partition(".")[0]
        reader.refuse(line_of(table, name), f"{what}.{name}: {message.replace('`', '').lower()}")
        return
    try:
        check_policy(policy)
    except ConfigError as error:
        reader.refuse(line_of(table, _blamed(policy, table, str(error))), f"{what}: {error}")


def _blamed(policy: Policy, table: Table, problem: str) -> str:
    """The setting that makes this problem alone; else the one that the line begins with."""
    for name in (one for one in table.entries if one in DEFAULT):
        try:
            check_policy(replace(Policy(), **{name: getattr(policy, name)}))
        except ConfigError as error:
            if str(error) == problem:
                return name
    return problem.partition(":")[0]


def shown(settings: Mapping[str, Any]) -> Json:
    """A policy as a file has it: what isn't the default, in short texts."""
    return {
        name: text_of(name, value) for name, value in settings.items() if name in DEFAULT and value != DEFAULT[name]
    }
