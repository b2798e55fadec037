"""The section ``[analysis]``, with its checks: ``[[analysis.checks]]``."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from outrider.config.rules import computed, setting
from outrider.core.addresses import http_problem
from outrider.core.analysis.answers import parse_condition
from outrider.core.analysis.sequential import Plan

PLACEHOLDERS = ("url", "host", "port", "instance", "version", "app", "group")
"""What is replaced, in braces, in addresses, queries, commands and labels."""
_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}"
_URL = r"(https?://\S+|\{url\}\S*)"
_EXAMPLE = {"url": "http://host:1", "port": "1"}


class AnalysisCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One check: ``[[analysis.checks]]``.

    Attributes:
        name: For people; unique.
        url: Of Prometheus, without ``/api/v1``; or of an endpoint.
        query: PromQL; every series that it gives must keep ``condition``.
        condition: ``< 0.01``; of an endpoint, what the number that it answers must be. Without it the endpoint says its
            result itself.
        field: Path of that number in a JSON answer, such as ``stats.rate``.
        command: Program and arguments. Exit status 0 passes, 1 fails, any other is no data.
        token_file: Of the bearer token that Prometheus or the endpoint wants; read anew for each question.
        failures: Failing results in a row that fail the analysis.
    """

    name: str
    kind: Literal["prometheus", "command", "http"]
    url: str = ""
    query: str = ""
    condition: str = ""
    field: str = ""
    command: tuple[str, ...] = ()
    token_file: Path | None = None
    timeout_s: float = 5.0
    failures: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisSettings:
    """[analysis]: what a new version must show under traffic, after the soak, before the swap counts."""

    checks: tuple[AnalysisCheck, ...] = setting(
        (), "Checks, each a table [[analysis.checks]]: a PromQL query, a command or an endpoint."
    )
    compare: Literal["none", "haproxy", "metrics", "app"] = setting(
        "none",
        "Where the errors of the new version and of the instances on the old one are counted: HAProxy's statistics,"
        " a page of metrics in Prometheus' format, or a path of the app.",
    )
    undecided: Literal["pause", "pass", "fail"] = setting(
        "pause",
        "What an instance does when its analysis has found nothing bad, and not enough good, at the deadline. Only pass"
        " keeps the new version; nothing of it blocks the release.",
    )
    duration_s: float = setting(60.0, "Time for which the checks are asked at least.", least=0)
    interval_s: float = setting(5.0, "Time from one round of questions to the next.", above=0)
    deadline_s: float = setting(600.0, "Time in which the analysis must be decided.", above=0)
    counts_urls: tuple[str, ...] = setting(
        (),
        "Of HAProxy's statistics as CSV, one for each HAProxy in front of the app, or of pages of metrics. {url},"
        " {host}, {port} and {instance} are replaced by those of each server.",
        pattern=_URL,
        wanted="http://HOST:PORT/PATH or https://HOST:PORT/PATH",
    )
    counts_path: str = setting(
        "/counts",
        'Path of the app that answers {"requests": N, "errors": N}, counted since its start.',
        pattern=r"/\S*",
        wanted="a path that begins with /",
        empty=False,
    )
    counts_timeout_s: float = setting(5.0, "Longest time for one answer with counts.", above=0)
    backend: str = setting("", "Name of the app's backend in HAProxy. Default: balancer.service.")
    metric: str = setting("", "Name of the counter of requests on a page of metrics.")
    labels: Mapping[str, str] = computed(
        dict, "Labels that a server's samples have, with the placeholders of counts_urls."
    )
    error_label: str = setting("code", "Label of that counter that tells an error.")
    error_pattern: str = setting("5..", "Regular expression that this label matches as a whole when it is an error.")
    ratio: float = setting(3.0, "So many times the old version's error rate must be found.", above=1)
    base_rate: float = setting(
        0.01,
        "Share of failing requests. A new version passes once it is shown to stay below ratio times this, even where"
        " the old one has no errors at all.",
        above=0,
        most=0.5,
    )
    false_alarms: float = setting(
        0.01, "Chance that a rollout of a version that is no worse is failed by the comparison.", above=0, most=0.5
    )

    @property
    def is_wanted(self) -> bool:
        """Whether anything is analysed."""
        return bool(self.checks) or self.compare != "none"

    @property
    def plan(self) -> Plan:
        """What the comparison must find."""
        return Plan(ratio=self.ratio, base_rate=self.base_rate, false_alarms=self.false_alarms)


def filled(text: str, facts: Mapping[str, str]) -> str:
    """``text`` with its placeholders replaced; other braces, which PromQL has many of, stay."""
    return _PLACEHOLDER.sub(lambda found: facts.get(found[1], found[0]), text)


def _exemplary(url: str) -> str:
    """An address as it might be once its placeholders are replaced; without its query, which may have any form."""
    return _PLACEHOLDER.sub(lambda found: _EXAMPLE.get(found[1], "x"), url).partition("?")[0]


def analysis_problems(settings: AnalysisSettings, service: str) -> Iterator[tuple[str, str]]:
    """What is wrong with a check, or between these settings: the key to blame and the problem.

    Args:
        service: ``balancer.service``.
    """
    names = [check.name for check in settings.checks]
    for place, check in enumerate(settings.checks):
        if names.index(check.name) != place:
            yield "analysis.checks", f"[{place}]: a check called {check.name!r} is there already"
        for problem in _check_problems(check):
            yield "analysis.checks", f"[{place}] {check.name}: {problem}"
        if check.timeout_s >= settings.deadline_s:
            yield "analysis.checks", f"[{place}] {check.name}: timeout_s is not below analysis.deadline_s"
    if settings.duration_s >= settings.deadline_s:
        yield "analysis.deadline_s", f"is not above analysis.duration_s ({settings.duration_s:g})"
    if settings.ratio * settings.base_rate > 1:
        yield "analysis.ratio", f"times analysis.base_rate ({settings.base_rate:g}) is more than every request"
    yield from _compare_problems(settings, service)


def _check_problems(check: AnalysisCheck) -> Iterator[str]:
    if not re.fullmatch(_NAME, check.name):
        yield "name: use 1 to 63 letters, digits, blanks or . _ - and begin with a letter or a digit"
    if check.timeout_s <= 0 or check.failures < 1:
        yield "timeout_s must be more than 0, and failures at least 1"
    needs = {"prometheus": ("url", "query", "condition"), "command": ("command",), "http": ("url",)}[check.kind]
    known = {*needs, *(("condition", "field", "token_file") if check.kind == "http" else ())}
    known |= {"token_file"} if check.kind == "prometheus" else set()
    for key in ("url", "query", "condition", "field", "command", "token_file"):
        if key in needs and not getattr(check, key):
            yield f"{key}: missing, for its kind is {check.kind}"
        elif key not in known and getattr(check, key):
            yield f"{key}: has no effect, for its kind is {check.kind}; remove it"
    if check.url and (problem := http_problem(_exemplary(check.url))):
        yield f"url: {check.url!r}: {problem}"
    if check.condition:
        try:
            parse_condition(check.condition)
        except ValueError as problem:
            yield f"condition: {problem}"
    if check.field and not check.condition:
        yield 'field: needs a condition, such as "< 0.01"'
    if check.token_file is not None and not check.token_file.is_file():
        yield f"token_file: {check.token_file}: no such file"


def _compare_problems(settings: AnalysisSettings, service: str) -> Iterator[tuple[str, str]]:
    if settings.compare in ("haproxy", "metrics") and not settings.counts_urls:
        example = "http://lb-1:8404/stats;csv" if settings.compare == "haproxy" else "http://lb-1:8082/metrics"
        yield "analysis.counts_urls", f"missing, for analysis.compare is {settings.compare}; for example [{example!r}]"
    if settings.compare == "haproxy" and not (settings.backend or service):
        yield "analysis.backend", "missing: name the app's backend in HAProxy, for there is no balancer.service"
    for url in settings.counts_urls:
        if problem := http_problem(_exemplary(url)):
            yield "analysis.counts_urls", f"{url!r}: {problem}"
    if settings.compare == "metrics":
        if not settings.metric:
            yield "analysis.metric", "missing: name the counter of requests, such as http_requests_total"
        texts = (*settings.counts_urls, *settings.labels.values())
        if settings.metric and not any(re.search(r"\{(url|host|port|instance)\}", text) for text in texts):
            yield (
                "analysis.labels",
                "all servers would have the same counts: tell them apart by a label such as"
                ' { service = "shop-{instance}@etcd" }, or by {host} and {port} in analysis.counts_urls',
            )
    try:
        re.compile(settings.error_pattern)
    except re.error as problem:
        yield "analysis.error_pattern", f"{settings.error_pattern!r}: not a regular expression: {problem}"
