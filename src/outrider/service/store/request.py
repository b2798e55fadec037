"""A request as the stores see it: its principal, its precondition, and the documents that it has seen.

It is an argument wherever something is read or written on its behalf; nothing finds it by itself.
"""

import hashlib
from dataclasses import dataclass, field

from outrider.model.documents import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The user, or the program, on whose behalf a request is made.

    Attributes:
        name: The user's name; a name in parentheses, which no user can have, where there are no users.
        address: The client's IP address; empty when unknown.
        apps: The role holds for these apps alone; empty: for all.
    """

    name: str
    role: Role
    address: str = ""
    apps: tuple[str, ...] = ()

    @property
    def is_user(self) -> bool:
        """A user with a token."""
        return not self.name.startswith("(")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What the document at ``key`` must be for the change to happen (``If-Match``, ``If-None-Match: *``).

    Attributes:
        etags: The document has one of these; None: any document will do.
        absent: There is no document; ``etags`` says nothing then.
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
class Seen:
    """What one request has read and written: entity tags are made of it.

    Attributes:
        documents: By key, as they are stored.
        shows_more: The answer says more than the document that the path names, and that part may change by itself.
    """

    documents: dict[str, bytes] = field(default_factory=dict)
    shows_more: bool = False


@dataclass(slots=True, kw_only=True)
class RequestContext:
    """One admitted request on its way through the service.

    Attributes:
        did: Method and path, or the command line's own command.
        request_id: Unique; the client's own when it sent one.
        condition: Compared in the transaction of the request's first change; None afterwards, and when there is none.
    """

    principal: Principal
    did: str
    request_id: str
    condition: Condition | None = None
    seen: Seen = field(default_factory=Seen)

    def speaker(self, by: str) -> str:
        """The name to store with what the client says: its own word ``by``, and the user when there is one."""
        name = self.principal.name
        if not self.principal.is_user:
            return by
        return f"{by}, as {name}" if by and by != name else name


def etag_of(value: bytes) -> str:
    """The entity tag of a document that is stored as ``value``.

    By content, not by etcd's revision: a transaction also writes documents unchanged, to stop its rivals
    (``changes.py``), and such a write must not look like a change.
    """
    return f'"{hashlib.sha256(value).hexdigest()[:32]}"'
