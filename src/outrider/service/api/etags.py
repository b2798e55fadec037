"""Entity tags on the wire: the ``ETag`` of an answer, and the conditions that clients make with it (RFC 9110)."""

import hashlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Send

from outrider.core.errors import ConfigError
from outrider.service.store.request import Condition, Seen, etag_of

_ABOUT_A_BODY = ("content-length", "content-type")


def condition_of(headers: Headers, resource: str | None) -> Condition | None:
    """The condition of a writing request; None when it has none.

    Raises:
        ConfigError: the condition is invalid, or the path does not name one document.
    """
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is None and none_match is None:
        return None
    if resource is None:
        raise ConfigError(
            "If-Match: this path does not name one document; send the condition to the path of a document"
        )
    if none_match is not None:
        if match is not None or none_match.strip() != "*":
            raise ConfigError(
                "If-None-Match: a change takes only `*`, without If-Match: the document must not exist yet"
            )
        return Condition(key=resource, absent=True)
    assert match is not None
    if match.strip() == "*":
        return Condition(key=resource)
    # A weak tag (W/) never matches in a writing request.
    return Condition(key=resource, etags=frozenset(_split(match)))


class AnswerWithEtag:
    """Sends an answer with its entity tag, or 304 when the client has it already.

    The tag of a list is made of its bytes, because no revision of etcd says that a list is unchanged: the revision of
    the newest entry misses removals, and the store's revision moves with every write.
    """

    def __init__(
        self, send: Send, request_id: str, seen: Seen, resource: str | None, headers: Headers, *, reading: bool
    ) -> None:
        """Wrap ``send`` for one request.

        Args:
            send: Where the answer goes.
            request_id: Is sent back as ``X-Request-ID``.
            seen: What the endpoint reads and writes; filled when the answer begins.
            resource: Key of the document that the path names; None: the path does not name one document.
            headers: The request's.
            reading: The request changes nothing.
        """
        self._send, self._request_id, self._seen, self._resource = send, request_id, seen, resource
        self._known = headers.get("if-none-match") if reading else None
        self._reading = reading
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        """Take the next message of the answer."""
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Request-ID"] = self._request_id
            headers = Headers(scope=message)
            json = headers.get("content-type", "").startswith("application/json")
            if self._reading and message["status"] == 200 and json and "etag" not in headers:
                self._start = message  # until the body is known
                return
            if not self._reading and message["status"] in (200, 201):
                self._etag(message, None)
            await self._send(message)
            return
        if self._start is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        etag = self._etag(start, self._body)
        headers = MutableHeaders(scope=start)
        headers.setdefault("Cache-Control", "private, no-cache")
        known = None if self._seen.shows_more else self._known
        if known is not None and (known.strip() == "*" or etag in _split(known, weak=True)):
            start["status"], self._body = 304, b""
            for name in _ABOUT_A_BODY:
                del headers[name]
        await self._send(start)
        await self._send({"type": "http.response.body", "body": self._body})

    def _etag(self, start: Message, body: bytes | None) -> str | None:
        stored = self._seen.documents.get(self._resource) if self._resource else None
        if stored is None and body is None:
            return None
        etag = etag_of(stored) if stored is not None else f'"{hashlib.sha256(body or b"").hexdigest()[:32]}"'
        MutableHeaders(scope=start)["ETag"] = etag
        return etag


def _split(etags: str, *, weak: bool = False) -> list[str]:
    """The tags of a header; ``weak``: weak tags count as strong ones."""
    every = [etag.strip() for etag in etags.split(",")]
    return [etag.removeprefix("W/") for etag in every] if weak else every
