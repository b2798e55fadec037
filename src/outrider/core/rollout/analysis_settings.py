"""What the update service asks at the end of a wave, before the next one begins: the ``analyses`` of a policy. Pure.

Each analysis is one question to Prometheus or to an endpoint of the operator's, with a name that waves use. The service
runs no programs: a command that an operator could name over the API would run on the service's machine, with the
service's rights. Neither does it read files that the policy names.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from outrider.core.addresses import http_problem
from outrider.core.analysis.answers import parse_condition
from outrider.core.errors import ConfigError

MAX_ANALYSES = 10
MAX_URL = 2048
MAX_QUERY = 4096
MAX_TIMEOUT_S = 60
MAX_DEADLINE_S = 30 * 86_400
PLACEHOLDERS = ("app", "group", "version")
"""What is replaced, in braces, in addresses and queries; other braces, which PromQL has many of, stay."""
_OF_AN_INSTANCE = re.compile(r"\{(url|host|port|instance)\}")
_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveAnalysis:
    """One question, which a wave may name.

    Attributes:
        name: By which waves name it; unique in its policy.
        url: Of Prometheus, without ``/api/v1``; or of an endpoint.
        query: PromQL; every series that it gives must keep ``condition``.
        condition: ``< 0.01``; of an endpoint, what the number that it answers must be. Without it the endpoint says its
            result itself.
        field: Path of that number in a JSON answer, such as ``stats.rate``.
        timeout_s: Longest time for one answer.
        failures: Failing answers in a row that fail it.
        interval_s: Time between two questions.
        deadline_s: Longest time after the wave's soak time in which it may still pass; then it is undecided.
        undecided: What follows then: the rollout is paused, goes on, or halts.
    """

    name: str
    kind: Literal["prometheus", "http", "command"] = "prometheus"
    url: str = ""
    query: str = ""
    condition: str = ""
    field: str = ""
    timeout_s: int = 5
    failures: int = 1
    interval_s: int = 15
    deadline_s: int = 600
    undecided: Literal["pause", "pass", "fail"] = "pause"

    @property
    def question(self) -> str:
        """Eight hex digits of what is asked: an answer to another question, of the same name, says nothing."""
        asked = (self.kind, self.url, self.query, self.condition, self.field)
        return hashlib.sha256("\0".join(asked).encode()).hexdigest()[:8]


def check_analyses(analyses: tuple[WaveAnalysis, ...], named: Iterable[tuple[int, tuple[str, ...]]]) -> None:
    """Refuse analyses that can't be asked.

    Args:
        analyses: A policy's.
        named: Number of each wave, and the names of the analyses at its end.

    Raises:
        ConfigError: too many, a name twice, an address or a condition that can't be read, a number out of its range, a
            command, or a wave that names an analysis that isn't there.
    """
    if len(analyses) > MAX_ANALYSES:
        raise ConfigError(f"analyses {len(analyses)}: must be 0 to {MAX_ANALYSES}")
    known = [one.name for one in analyses]
    for place, one in enumerate(analyses):
        if not _NAME.fullmatch(one.name):
            raise ConfigError(
                f"analyses: name {one.name[:63]!r}: use 1 to 63 letters, digits or . _ - and begin with a letter or"
                " a digit"
            )
        if known.index(one.name) != place:
            raise ConfigError(f"analyses: {one.name}: an analysis of that name is there already")
        problem = _problem(one)
        if problem:
            raise ConfigError(f"analyses: {one.name}: {problem}")
    for number, names in named:
        for place, name in enumerate(names):
            if name not in known:
                there = f"there are {', '.join(known)}" if known else "the policy has no analyses"
                raise ConfigError(f"waves: wave {number}: no analysis is called {name[:63]!r}; {there}")
            if names.index(name) != place:
                raise ConfigError(f"waves: wave {number}: names the analysis {name} twice")


def _problem(one: WaveAnalysis) -> str:
    if one.kind == "command":
        return (
            "kind command: the update service runs no programs; let the sidekicks run it ([[analysis.checks]] in their"
            " configuration), or let something answer it over HTTP (kind http)"
        )
    needs = ("url", "query", "condition") if one.kind == "prometheus" else ("url",)
    known = {*needs, *(("condition", "field") if one.kind == "http" else ())}
    for key in ("url", "query", "condition", "field"):
        value = getattr(one, key)
        if key in needs and not value:
            return f"{key}: missing, for its kind is {one.kind}"
        if value and key not in known:
            return f"{key}: has no effect, for its kind is {one.kind}; remove it"
    return _problem_of_numbers(one) or _problem_of_texts(one)


def _problem_of_numbers(one: WaveAnalysis) -> str:
    for what, value, least, most in (
        ("timeout_s", one.timeout_s, 1, MAX_TIMEOUT_S),
        ("failures", one.failures, 1, 100),
        ("interval_s", one.interval_s, 1, 86_400),
        ("deadline_s", one.deadline_s, 1, MAX_DEADLINE_S),
    ):
        if not least <= value <= most:
            return f"{what} {value:g}: must be {least} to {most}"
    return "timeout_s is not below deadline_s" if one.timeout_s >= one.deadline_s else ""


def _problem_of_texts(one: WaveAnalysis) -> str:
    for what, text, most in (("url", one.url, MAX_URL), ("query", one.query, MAX_QUERY), ("field", one.field, 200)):
        if len(text) > most:
            return f"{what}: {len(text)} characters; write at most {most}"
        if found := _OF_AN_INSTANCE.search(text):
            return (
                f"{what}: {found[0]} is one instance's, and a wave's analysis asks about all of them; the placeholders"
                f" are {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}"
            )
    if problem := http_problem(_PLACEHOLDER.sub("x", one.url).partition("?")[0]):
        return f"url {one.url[:100]!r}: {problem}"
    if "{" in urlsplit(one.url).netloc:
        return "url: a placeholder in its host; name the host"
    if one.condition:
        try:
            parse_condition(one.condition)
        except ValueError as error:
            return f"condition: {error}"
    elif one.field:
        return 'field: needs a condition, such as "< 0.01"'
    return ""
