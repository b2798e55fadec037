"""The request context: the principal and the precondition of a request, known to whatever runs on its behalf.

The auth middleware sets it for every request of the API; a store's function that reads or changes something finds it
there, so that no store has to hand it on. Omaha's check-ins have none.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from outrider.model.documents import Role

if TYPE_CHECKING:
    from outrider.service.store.audit import AuditLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a request.

    Attributes:
        name: The user's; in parentheses, which no user's name has, when there are no users to be.
        address: The client's IP address; empty when unknown.
    """

    name: str
    role: Role
    address: str = ""

    @property
    def is_user(self) -> bool:
        """Somebody with a token."""
        return not self.name.startswith("(")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What the document at ``key`` must be for the change to happen (``If-Match``, ``If-None-Match: *``).

    Attributes:
        etags: One of these; None for any, as long as there is one.
        absent: There must be none; ``etags`` says nothing then.
    """

    key: str
    etags: frozenset[str] | None = None
    absent: bool = False

    def holds(self, value: bytes | None) -> bool:
        """Whether ``value``, as stored (None: nothing is), is what was expected."""
        if self.absent or value is None:
            return self.absent and value is None
        return self.etags is None or etag_of(value) in self.etags


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One document that a transaction changes; values as they are stored."""

    key: str
    before: bytes | None
    after: bytes | None


@dataclass(slots=True, kw_only=True)
class RequestContext:
    """One request on its way through the service.

    Attributes:
        did: Method and path.
        request_id: Unique; the client's own when it sent one.
        log: Where its changes are recorded.
        condition: Compared in the transaction of its first change.
        seen: The documents that it read or wrote, by key, as they are stored.
        shows_more: What it answers says more than the document that its path names, which may change by itself.
    """

    principal: Principal
    did: str
    request_id: str
    log: "AuditLog"
    condition: Condition | None = None
    seen: dict[str, bytes] = field(default_factory=dict)
    shows_more: bool = False


_CURRENT: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def current_request() -> RequestContext | None:
    """The request that the calling code serves; None outside the API."""
    return _CURRENT.get()


@contextmanager
def in_request_context(request: RequestContext) -> Iterator[None]:
    """Make ``request`` the current one, for this task and the threads that it hands work to."""
    before = _CURRENT.set(request)
    try:
        yield
    finally:
        _CURRENT.reset(before)


def speaker(by: str) -> str:
    """Who says something: what the client says, and the user when there is one."""
    request = _CURRENT.get()
    if request is None or not request.principal.is_user:
        return by
    return f"{by}, as {request.principal.name}" if by and by != request.principal.name else request.principal.name


def note_more() -> None:
    """Say that the answer is more than the document, so that its tag doesn't prove that a client has it already."""
    request = _CURRENT.get()
    if request is not None:
        request.shows_more = True


def note_seen(key: str, value: bytes) -> None:
    """Remember, for the request that reads it, what is stored at ``key``."""
    request = _CURRENT.get()
    if request is not None:
        request.seen[key] = value


def etag_of(value: bytes) -> str:
    """The entity tag of a document that is stored as ``value``.

    By content, not by etcd's revision: a document is also written as it is, to stop those who race for it
    (``changes.py``), and that must not look like somebody's change.
    """
    return f'"{hashlib.sha256(value).hexdigest()[:32]}"'
