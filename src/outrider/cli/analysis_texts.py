"""Analyses at the end of waves as a person writes them: ``errors; prometheus http://prom:9090; < 0.01; query ...``.

The query comes last and reaches to the end of the text: PromQL may hold any character.
"""

import re
from collections.abc import Callable
from typing import Any

from outrider.cli.rest_client import Json
from outrider.core.errors import ConfigError

ANALYSIS: Json = {
    "name": "",
    "kind": "prometheus",
    "url": "",
    "query": "",
    "condition": "",
    "field": "",
    "timeout_s": 5,
    "failures": 1,
    "interval_s": 15,
    "deadline_s": 600,
    "undecided": "pause",
}
"""What an analysis is that says nothing of itself."""
EXAMPLE = "errors; prometheus http://prometheus:9090; < 0.01; query sum(rate(errors_total[5m]))"
_HOW = (
    "write NAME; prometheus URL; CONDITION; query PROMQL, or NAME; http URL, and where wanted failures N; every TIME;"
    " within TIME; timeout TIME; field PATH; undecided pause|pass|fail"
)
_TIMES = {"every": "interval_s", "within": "deadline_s", "timeout": "timeout_s"}
_TEXTS = ("prometheus", "http", "command")


def read_analyses(texts: tuple[str, ...], seconds: Callable[[str], int]) -> list[Json]:
    """Read analyses, ``none`` as no analyses.

    Raises:
        ConfigError: one can't be read; the service checks the values themselves.
    """
    return [] if texts == ("none",) else [_analysis(text, seconds) for text in texts]


def analysis_text(analysis: Json, duration: Callable[[int], str]) -> str:
    """An analysis as ``read_analyses`` takes it."""
    parts = [analysis["name"], f"{analysis['kind']} {analysis['url']}"]
    parts += [analysis["condition"]] if analysis["condition"] else []
    parts += [f"field {analysis['field']}"] if analysis["field"] else []
    parts += [f"failures {analysis['failures']}"] if analysis["failures"] != ANALYSIS["failures"] else []
    for word, name in _TIMES.items():
        parts += [f"{word} {duration(analysis[name])}"] if analysis[name] != ANALYSIS[name] else []
    parts += [f"undecided {analysis['undecided']}"] if analysis["undecided"] != ANALYSIS["undecided"] else []
    parts += [f"query {analysis['query']}"] if analysis["query"] else []
    return "; ".join(parts)


def _analysis(text: str, seconds: Callable[[str], int]) -> Json:
    head, *rest = re.split(r";\s*query\s", text, maxsplit=1)
    query = rest[0].strip() if rest else ""
    name, *parts = (part.strip() for part in head.split(";"))
    found: dict[str, Any] = {"name": name}
    if query:
        found["query"] = query
    try:
        for part in filter(None, parts):
            key, value = _part(part, seconds)
            if key == "url":
                found["kind"] = part.split()[0]
            if key in found:
                raise ConfigError(f"{part!r} says {key} a second time")
            found[key] = value
    except ConfigError as error:
        raise ConfigError(f"--analysis {text[:200]!r}: {error}; {_HOW}, such as '{EXAMPLE}', or none") from error
    return ANALYSIS | found


def _part(part: str, seconds: Callable[[str], int]) -> tuple[str, Any]:
    word, _, rest = part.partition(" ")
    rest = rest.strip()
    if word in _TEXTS and rest:
        return "url", rest
    if word in _TIMES:
        return _TIMES[word], seconds(rest)
    if word == "failures" and re.fullmatch(r"[0-9]{1,6}", rest):
        return "failures", int(rest)
    if word in ("field", "undecided") and rest:
        return word, rest
    if part[:1] in "<>=!":
        return "condition", part
    raise ConfigError(f"{part!r} can't be read")
