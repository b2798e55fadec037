"""Reading what was recorded from real programs: ``tests/data/captures/``, kept byte for byte.

``*.request.bin`` and ``*.response.bin`` are whole HTTP messages. ``fleet-api/*.txt`` are exchanges with fleet's API:
request line, JSON body when there was one, an empty line; status line, content type, an empty line, JSON answer or
an empty line.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
NOT_CAPTURED = {".gitattributes", "SHA256SUMS"}


def captured_files(pattern: str = "**/*") -> list[str]:
    """Names of all recorded files, relative to ``CAPTURES``, in order."""
    found = (path for path in CAPTURES.glob(pattern) if path.is_file())
    return sorted(name for path in found if (name := path.relative_to(CAPTURES).as_posix()) not in NOT_CAPTURED)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpMessage:
    """One HTTP message: its first line, its headers with names in lower case, its body."""

    start: str
    headers: dict[str, str]
    body: bytes


def read_http(name: str) -> HttpMessage:
    """Take a recorded message apart; its body has the length that its head states."""
    head, separator, body = (CAPTURES / name).read_bytes().partition(b"\r\n\r\n")
    assert separator, f"{name}: no empty line after the head"
    start, *lines = head.decode("ascii").split("\r\n")
    headers = {}
    for line in lines:
        field, colon, value = line.partition(":")
        assert colon, f"{name}: not a header: {line!r}"
        headers[field.strip().lower()] = value.strip()
    assert int(headers["content-length"]) == len(body), f"{name}: body and Content-Length differ"
    return HttpMessage(start=start, headers=headers, body=body)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetExchange:
    """One call of fleet's API and its answer.

    Attributes:
        path: Decoded, without the query.
        query: Decoded; fleet never repeats a name.
        sent: Decoded JSON, None without a body.
        status: HTTP status; ``reason`` its text.
        content_type: None when fleet sent none.
        answer: Decoded JSON, None without a body.
    """

    method: str
    path: str
    query: dict[str, str]
    sent: object
    status: int
    reason: str
    content_type: str | None
    answer: object


def read_fleet_exchange(name: str) -> FleetExchange:
    """Take a recorded exchange apart."""
    request_line, sent, status_line, content_type, blank, answer, *rest = (CAPTURES / name).read_text().split("\n")
    # A request with a body has an empty line after it, one without has only that line.
    if sent:
        assert status_line == "", f"{name}: expected an empty line after the request's body"
        status_line, content_type, blank, answer, *rest = content_type, blank, answer, *rest
    assert blank == "", f"{name}: expected an empty line before the answer"
    assert not any(rest), f"{name}: more lines than an exchange has"
    method, _, target = request_line.partition(" ")
    status, _, reason = status_line.partition(" ")
    field, _, kind = content_type.partition(": ")
    assert field == "Content-Type", f"{name}: expected the content type, found {content_type!r}"
    parts = urlsplit(target)
    return FleetExchange(
        method=method,
        path=unquote(parts.path),
        query={key: values[0] for key, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()},
        sent=json.loads(sent) if sent else None,
        status=int(status),
        reason=reason,
        content_type=None if kind == "None" else kind,
        answer=json.loads(answer) if answer else None,
    )
