"""Where requests and errors of each server are counted."""

from collections.abc import Callable, Mapping
from typing import assert_never
from urllib.parse import urlsplit

from outrider.analysis.checks import fetched
from outrider.config.analysis import AnalysisSettings, filled
from outrider.core.analysis.answers import NoData, haproxy_counts, metric_counts, told_counts
from outrider.core.analysis.sequential import Counts
from outrider.failpoints import failpoint

ASKED_AT_MOST = 20
"""Servers on the old version that are asked one by one: more say little more, and each round asks them all."""

Source = Callable[[Mapping[str, str]], Mapping[str, Counts]]
"""Servers, address -> instance, to the counters of those that can be read.

Raises:
    NoData: none can be, and why.
"""


def source_of(settings: AnalysisSettings, service: str) -> Source | None:
    """The source that ``analysis.compare`` names; None without one. ``service``: ``balancer.service``."""
    match settings.compare:
        case "none":
            return None
        case "haproxy":
            return lambda servers: _haproxy(settings, settings.backend or service, servers)
        case "metrics":
            return lambda servers: _each(settings, servers, _metrics)
        case "app":
            return lambda servers: _each(settings, servers, _app)
        case _:
            assert_never(settings.compare)


def asks_each(settings: AnalysisSettings) -> bool:
    """Whether each server is a question of its own."""
    pages = (filled(url, {"url": "", "host": "", "port": "", "instance": ""}) for url in settings.counts_urls)
    return settings.compare == "app" or (settings.compare == "metrics" and set(pages) != set(settings.counts_urls))


def _haproxy(settings: AnalysisSettings, backend: str, servers: Mapping[str, str]) -> Mapping[str, Counts]:
    """The sum over all HAProxys. Where one can't be read, none count."""
    total: dict[str, Counts] = {}
    for url in settings.counts_urls:
        counts = haproxy_counts(_page(url, settings.counts_timeout_s), backend)
        for server in servers:
            found = counts.get(urlsplit(server).netloc)
            if found is not None:
                total[server] = total.get(server, Counts()) + found
    return total


def _metrics(settings: AnalysisSettings, facts: Mapping[str, str], pages: dict[str, bytes]) -> Counts:
    total = Counts()
    for template in settings.counts_urls:
        url = filled(template, facts)
        if url not in pages:
            pages[url] = _page(url, settings.counts_timeout_s)
        total += metric_counts(
            pages[url],
            metric=settings.metric,
            labels={name: filled(text, facts) for name, text in settings.labels.items()},
            error_label=settings.error_label,
            error_pattern=settings.error_pattern,
        )
    return total


def _app(settings: AnalysisSettings, facts: Mapping[str, str], pages: dict[str, bytes]) -> Counts:
    return told_counts(_page(f"{facts['url']}{settings.counts_path}", settings.counts_timeout_s))


def _each(
    settings: AnalysisSettings,
    servers: Mapping[str, str],
    read: Callable[[AnalysisSettings, Mapping[str, str], dict[str, bytes]], Counts],
) -> Mapping[str, Counts]:
    counts, pages, reasons = dict[str, Counts](), dict[str, bytes](), list[str]()
    for server, instance in servers.items():
        parts = urlsplit(server)
        facts = {"url": server, "host": parts.hostname or "", "port": str(parts.port or 80), "instance": instance}
        try:
            counts[server] = read(settings, facts, pages)
        except NoData as reason:
            reasons.append(f"{instance}: {reason}")
    if not counts and reasons:
        raise NoData(reasons[0])
    return counts


def _page(url: str, timeout_s: float) -> bytes:
    with failpoint("analysis.ask"):
        status, body = fetched(url, timeout_s)
    if status != 200:
        raise NoData(f"{url} answers {status}")
    return body
