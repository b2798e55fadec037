"""CoreUpdate's client as far as a server can see it: its signatures, its captured calls, and what it can read.

``update-api.json`` is the discovery document that updateservicectl's client is generated from (Apache-2.0,
flatcar/updateservicectl@732088b, client/update/v1/): a field of another type than it says ends a command with an error.
"""

import base64
import hashlib
import hmac
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from tests.support.captures import CAPTURES
from tests.support.in_process import Answer, ask

DISCOVERY = Path(__file__).parents[1] / "data" / "coreupdate" / "update-api.json"
HOST = "127.0.0.1:18600"
_nonces = (f"n{number:07}" for number in itertools.count())


def sign(
    user: str, key: str, method: str, target: str, *, at: int, nonce: str = "", host: str = HOST, decoded: bool = True
) -> str:
    """``Authorization`` as coreos/hawk-go makes it: it signs the path without percent signs."""
    name, _, port = host.partition(":")
    path, question, query = target.partition("?")
    resource = (unquote(path) if decoded else path) + question + query
    nonce = nonce or next(_nonces)
    lines = ["hawk.1.header", str(at), nonce, method, resource, name, port or "80", "", "", ""]
    mac = hmac.new(key.encode(), "\n".join(lines).encode(), hashlib.sha256).digest()
    return f'Hawk id="{user}", mac="{base64.b64encode(mac).decode()}", ts="{at}", nonce="{nonce}"'


def over_network(application: ASGIApp, *, address: str = "127.0.0.1", scheme: str = "http") -> ASGIApp:
    """The application as it is reached from ``address``; paths are decoded, as a server does that."""

    async def reached(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        changed = {"path": unquote(path), "raw_path": path.encode(), "client": (address, 50000), "scheme": scheme}
        await application({**scope, **changed, "state": {}}, receive, send)

    return reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A user with a Hawk key, who calls an application."""

    application: ASGIApp
    user: str
    key: str
    at: int

    def call(self, method: str, target: str, body: object = None, **headers: str) -> Answer:
        """One call. ``body``: bytes as they are, else JSON."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        signed = {"authorization": sign(self.user, self.key, method, target, at=self.at), "host": HOST}
        if content and "content_type" not in headers:
            headers["content_type"] = "application/json"
        return ask(self.application, method, target, content, **(signed | headers))

    def api(self, method: str, path: str, body: object = None) -> Answer:
        """One call below the base, with the parameter that every call has."""
        mark = "&" if "?" in path else "?"
        return self.call(method, f"/_ah/api/update/v1/{path}{mark}alt=json", body)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedCall:
    """One call as updateservicectl made it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def read_call(name: str) -> CapturedCall:
    """Take a recorded call apart; its last line is a note by whoever recorded it."""
    head, _, rest = (CAPTURES / name).read_text().partition("\n\n")
    first, *lines = head.split("\n")
    method, target, version = first.split(" ")
    assert version == "HTTP/1.1", name
    headers = {field.lower(): value for field, _, value in (line.partition(": ") for line in lines)}
    body, mark, verdict = rest.rpartition("\n# hawk-mac-")
    assert mark, name
    assert verdict.strip() in ("OK", "BAD"), name
    body = body.removesuffix("\n")
    if "multipart" in headers.get("content-type", ""):
        return CapturedCall(method=method, target=target, headers=headers, body=body.replace("\n", "\r\n").encode())
    text = body + "\n" if body else ""
    assert int(headers.get("content-length", "0")) == len(text), f"{name}: body and Content-Length differ"
    return CapturedCall(method=method, target=target, headers=headers, body=text.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of the discovery document.

    Attributes:
        response: Name of the schema of its answer.
    """

    id: str
    verb: str
    path: str
    response: str


@cache
def _discovery() -> Any:
    return json.loads(DISCOVERY.read_text())


def methods() -> tuple[Method, ...]:
    """All methods that the client may call."""

    def walk(resources: Any) -> Iterator[Method]:
        for resource in resources.values():
            for one in resource.get("methods", {}).values():
                yield Method(id=one["id"], verb=one["httpMethod"], path=one["path"], response=one["response"]["$ref"])
            yield from walk(resource.get("resources", {}))

    return tuple(walk(_discovery()["resources"]))


def response_of(verb: str, path: str) -> str:
    """Name of the schema that the client reads the answer to ``path`` (below the base) into."""
    for one in methods():
        pattern = re.sub(r"\\\{[a-zA-Z]+\\\}", "[^/]+", re.escape(one.path))
        if one.verb == verb and re.fullmatch(pattern, path):
            return one.response
    raise AssertionError(f"the client never calls {verb} {path}")


def unreadable(value: object, schema: str) -> list[str]:
    """What the client could not read of an answer: Go refuses a field of another type."""
    return list(_faults(value, {"$ref": schema}, schema))


def _faults(value: object, kind: Any, where: str) -> Iterator[str]:
    if "$ref" in kind:
        kind = _discovery()["schemas"][kind["$ref"]]
    match kind["type"], value:
        case "object", dict():
            for name, inner in kind["properties"].items():
                if name in value:
                    yield from _faults(value[name], inner, f"{where}.{name}")
            for name in value.keys() - kind["properties"].keys():
                yield f"{where}.{name}: unknown, so the client never sees it"
        case "array", list():
            for one in value:
                yield from _faults(one, kind["items"], f"{where}[]")
        case "string", str():
            if kind.get("format") == "int64" and not re.fullmatch(r"-?[0-9]+", value):
                yield f"{where}: {value!r} is no int64"
        case "boolean", bool():
            pass
        case "integer", int() if not isinstance(value, bool):
            pass
        case "number", int() | float() if not isinstance(value, bool):
            pass
        case _:
            yield f"{where}: {value!r} is no {kind['type']}"
