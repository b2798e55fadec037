"""gRPC's errors, sorted by what they say about the request: not sent, no answer, refused, or sign in again."""

import re
from collections.abc import Callable
from typing import TypeVar

import grpc

from outrider.core.errors import Refused
from outrider.etcd.seam import PermissionDenied, ReadOnly

_UNSENT = ("failed to connect to all addresses", "DNS resolution failed")
_STALE_TOKEN = ("invalid auth token", "revision of auth store is old", "user name is empty")
_READ_ONLY = ("database space exceeded", "corrupt cluster")
_SAID_NO = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)

R = TypeVar("R")


class TooLarge(Refused):
    """An answer doesn't fit into one message; ask for less at once."""


class Compacted(Refused):
    """The revision asked for has been compacted away."""


class NotSent(Exception):
    """The node could not be asked, so nothing happened there."""


class NoAnswer(Exception):
    """The node was asked and did not answer; it may have done it."""


class StaleToken(Exception):
    """etcd doesn't know the token, or wants one; the request was not done."""


def is_stale_token(text: str) -> bool:
    """Whether this error text of etcd asks for signing in again."""
    return any(known in text for known in _STALE_TOKEN)


def checked(ask: Callable[[], R]) -> R:
    """Call, and sort gRPC's errors by what they say about the request."""
    try:
        return ask()
    except grpc.RpcError as error:
        code, text = error.code(), (error.details() or "").strip()
        if code is grpc.StatusCode.UNAVAILABLE and text.startswith(_UNSENT):
            raise NotSent(short(text)) from error
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise NoAnswer("no answer in time") from error
        if is_stale_token(text):
            raise StaleToken(text) from error
        if "larger than max" in text:
            raise TooLarge(short(text)) from error
        if "has been compacted" in text:
            raise Compacted(short(text)) from error
        if any(known in text for known in _READ_ONLY):
            raise ReadOnly(short(text)) from error
        if code is grpc.StatusCode.PERMISSION_DENIED or "permission denied" in text:
            raise PermissionDenied(short(text)) from error
        if code in _SAID_NO:
            raise Refused(f"etcd refused the request: {short(text)}") from error
        raise NoAnswer(short(text) or code.name) from error
    except ValueError as error:  # gRPC: "Cannot invoke RPC on closed channel!"
        raise NotSent("the connection was closed") from error


def short(text: str) -> str:
    """The part of gRPC's error text that a person can use, on one line."""
    if "Connection refused" in text:
        return "connection refused"
    text = re.sub(r"^UNKNOWN: (ipv[46]:\S+: )?", "", text.partition("last error: ")[2] or text)
    return " ".join(text.removeprefix("etcdserver: ").split())[:200]
