"""What Prometheus, HAProxy, a page of metrics or an endpoint answers: bytes in, checked values out."""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from outrider.core.analysis.results import Result
from outrider.core.analysis.sequential import Counts
from outrider.core.errors import OutriderError

SHOWN = 120
"""Characters of another program's words that are shown."""


class NoData(OutriderError):
    """Nothing can be said; ``str()`` is why."""

    kind: ClassVar[str] = "no-data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a number must be for a check to pass: ``< 0.01``."""

    operator: str
    bound: float

    def holds(self, value: float) -> bool:
        match self.operator:
            case "<":
                return value < self.bound
            case "<=":
                return value <= self.bound
            case ">":
                return value > self.bound
            case ">=":
                return value >= self.bound
            case "==":
                return value == self.bound
            case _:
                return value != self.bound

    def __str__(self) -> str:
        return f"{self.operator} {self.bound:g}"


def parse_condition(text: str) -> Condition:
    """Read ``< 0.01``.

    Raises:
        ValueError: it isn't an operator and a finite number; the text says what is wanted.
    """
    found = re.fullmatch(r"\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*", text)
    try:
        bound = float(found[2]) if found else math.nan
    except ValueError:
        bound = math.nan
    if found is None or not math.isfinite(bound):
        raise ValueError(f'{text!r}: wanted: one of < <= > >= == != and a number, such as "< 0.01"')
    return Condition(operator=found[1], bound=bound)


def judged(values: tuple[float, ...], condition: Condition) -> tuple[Result, str]:
    """Whether all values are as they must be, and in words.

    Raises:
        NoData: there is no value, or one is not a number.
    """
    if not values:
        raise NoData("no series")
    if any(not math.isfinite(value) for value in values):
        raise NoData(f"{next(value for value in values if not math.isfinite(value))} is no number to compare")
    broken = next((value for value in values if not condition.holds(value)), None)
    if broken is not None:
        return "fail", f"{broken:g}, and must be {condition}"
    return "pass", f"{', '.join(f'{value:g}' for value in values[:3])} is {condition}"


class _Answer(msgspec.Struct, rename="camel"):
    status: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    error_type: str = ""


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Series(msgspec.Struct):
    value: tuple[float, str]


def prometheus_values(body: bytes) -> tuple[float, ...]:
    """The values of an instant query's answer, one for each series; a scalar is one value.

    Shape: ``{"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [t, "0.1"]}]}}``.

    Raises:
        NoData: it says that it failed, is not such an answer, or a result of another type.

    Source: prometheus.io/docs/prometheus/latest/querying/api, "Format overview" and "Expression query result formats".
    """
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        if answer.status != "success":
            raise NoData(f"{answer.error_type or 'error'}: {_shown(answer.error)}")
        data = msgspec.json.decode(answer.data, type=_Data)
        match data.result_type:
            case "vector":
                series = msgspec.json.decode(data.result, type=tuple[_Series, ...])
                return tuple(float(one.value[1]) for one in series)
            case "scalar":
                return (float(msgspec.json.decode(data.result, type=tuple[float, str])[1]),)
            case other:
                raise NoData(f"the query gives a {other}; write one that gives one number or an instant vector")
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise NoData(f"not an answer of Prometheus: {_shown(str(error))}") from error


class _Told(msgspec.Struct):
    result: str
    reason: str = ""


def told_result(body: bytes) -> tuple[Result, str]:
    """The result that an endpoint of the operator's says: ``pass``, ``fail`` or ``no data``, or the same in JSON.

    Shape: ``{"result": "fail", "reason": "cart: 3 of 10 orders lost"}``, or the word alone, with a reason behind a
    colon if there is one.

    Raises:
        NoData: it says neither ``pass`` nor ``fail``.
    """
    try:
        if body.lstrip().startswith(b"{"):
            told = msgspec.json.decode(body, type=_Told)
        else:
            word, _, reason = body.decode(errors="replace").partition(":")
            told = _Told(result=word, reason=reason)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise NoData(f"not a result: {_shown(str(error))}") from error
    reason = _shown(told.reason)
    match told.result.strip().lower():
        case "pass":
            return "pass", reason or "it says pass"
        case "fail":
            return "fail", reason or "it says fail"
        case "no data":
            raise NoData(reason or "it says no data")
        case other:
            raise NoData(f"says neither pass, fail nor no data: {_shown(other)!r}")


def told_number(body: bytes, field: str) -> float:
    """The number that an endpoint answers: as plain text, or in JSON below ``field``, a path such as ``stats.rate``.

    Raises:
        NoData: there is no number.
    """
    try:
        value: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise NoData(f"not a number: {_shown(body.decode(errors='replace'))!r}") from error
    for name in field.split(".") if field else ():
        if not isinstance(value, dict) or name not in value:
            raise NoData(f"the answer has no {field}")
        value = value[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NoData(f"{field or 'the answer'} is no number")
    return float(value)


class _Counted(msgspec.Struct):
    requests: int
    errors: int


def told_counts(body: bytes) -> Counts:
    """The counters that an app tells of itself: ``{"requests": 1200, "errors": 3}``, since its start.

    Raises:
        NoData: not that, or less than nothing.
    """
    try:
        told = msgspec.json.decode(body, type=_Counted)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise NoData(f'not {{"requests": N, "errors": N}}: {_shown(str(error))}') from error
    if told.requests < 0 or not 0 <= told.errors <= told.requests:
        raise NoData(f"{told.errors} errors in {told.requests} requests can't be")
    return Counts(requests=told.requests, errors=told.errors)


def haproxy_counts(body: bytes, backend: str) -> Mapping[str, Counts]:
    """What HAProxy has counted of each server of ``backend``, by ``host:port``, from its statistics as CSV.

    A request is an answer of any class, a connection that wasn't made, or an answer that didn't come whole; the last
    two and answers of 5xx are errors. Two slots with one address are added up: one of them is no longer used.

    Raises:
        NoData: not HAProxy's statistics; no such backend; or without addresses, which need ``stats show-legends``.

    Source: HAProxy 2.6 management guide, section 9.1, "CSV format".
    """
    rows = list(csv.DictReader(body.decode(errors="replace").removeprefix("# ").splitlines()))
    if not rows or "pxname" not in rows[0] or "hrsp_5xx" not in rows[0]:
        raise NoData("not HAProxy's statistics as CSV: is the address the page's, with ;csv at its end?")
    servers = [row for row in rows if row["pxname"] == backend and row.get("type") == "2"]
    if not servers:
        raise NoData(f"HAProxy shows no server of a backend {backend}")
    found: dict[str, Counts] = {}
    for row in servers:
        address = (row.get("addr") or "").strip()
        if not address:
            raise NoData(
                f"HAProxy doesn't show the addresses of {backend}: add `stats show-legends` beside `stats uri`"
            )
        bad = sum(_number(row, name) for name in ("hrsp_5xx", "econ", "eresp"))
        good = sum(_number(row, f"hrsp_{kind}") for kind in ("1xx", "2xx", "3xx", "4xx", "other"))
        found[address] = found.get(address, Counts()) + Counts(requests=good + bad, errors=bad)
    return found


def _number(row: Mapping[str, str | None], name: str) -> int:
    text = (row.get(name) or "0").strip()
    return int(text) if text.isdigit() else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One line of a page of metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')


def metrics(body: bytes) -> Iterator[Sample]:
    """The samples of a page in Prometheus' text format; lines that aren't any are left out.

    Source: prometheus.io/docs/instrumenting/exposition_formats, "Text-based format".
    """
    for line in body.decode(errors="replace").splitlines():
        found = None if line.startswith("#") else _LINE.fullmatch(line.strip())
        if found is None:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        labels = {name: re.sub(r"\\(.)", _unescaped, text) for name, text in _LABEL.findall(found[2] or "")}
        yield Sample(name=found[1], labels=labels, value=value)


def metric_counts(
    body: bytes, *, metric: str, labels: Mapping[str, str], error_label: str, error_pattern: str
) -> Counts:
    """Requests and errors of one server, from a page of metrics.

    Args:
        metric: Name of the counter of requests.
        labels: What a sample's labels must be.
        error_label: The label that tells an error: ``code``.
        error_pattern: Regular expression that the label of an error matches as a whole: ``5..``.

    Raises:
        NoData: no sample has these labels, or one counts what isn't a number.
    """
    requests = errors = 0.0
    seen = False
    for sample in metrics(body):
        if sample.name != metric or any(sample.labels.get(name) != text for name, text in labels.items()):
            continue
        if not math.isfinite(sample.value) or sample.value < 0:
            raise NoData(f"{metric} is {sample.value}")
        seen = True
        requests += sample.value
        if re.fullmatch(error_pattern, sample.labels.get(error_label, "")):
            errors += sample.value
    if not seen:
        wanted = ",".join(f'{name}="{text}"' for name, text in labels.items())
        raise NoData(f"no sample of {metric}{{{wanted}}}")
    return Counts(requests=int(requests), errors=int(errors))


def _unescaped(found: "re.Match[str]") -> str:
    return "\n" if found[1] == "n" else found[1]


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
