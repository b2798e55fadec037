"""What etcd did not permit: which key, to which user, by which roles.

etcd's own answer is "permission denied", without a key. Every user may read itself and its own roles, so what is
missing is found out by comparing them with what was asked.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from etcd3 import etcdrpc

from outrider.core.errors import DriverError
from outrider.etcd.channel import Nodes
from outrider.etcd.seam import Compare, DeletePrefix, NotNewer, Op, PermissionDenied
from outrider.etcd.wire import encode_key, prefix_range

Access = Literal["read", "write"]
_GRANTS: Mapping[int, frozenset[Access]] = {
    0: frozenset({"read"}),
    1: frozenset({"write"}),
    2: frozenset({"read", "write"}),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One range of keys (``end`` empty: one key), and what was to be done with it."""

    start: bytes
    end: bytes
    access: Access

    @classmethod
    def of(cls, key: str, access: Access, *, prefix: bool = False) -> "Asked":
        """Of a key or a prefix."""
        return cls(*(prefix_range(key) if prefix else (encode_key(key), b"")), access)

    def __str__(self) -> str:
        text = self.start.decode(errors="replace")
        return f"{self.access} of {text}{'*' if self.end else ''}"


def asked_in(compares: Sequence[Compare], ops: Sequence[Op]) -> tuple[Asked, ...]:
    """All ranges that a transaction reads and writes."""
    return (
        *(Asked.of(one.key, "read", prefix=isinstance(one, NotNewer)) for one in compares),
        *(
            Asked.of(one.prefix, "write", prefix=True) if isinstance(one, DeletePrefix) else Asked.of(one.key, "write")
            for one in ops
        ),
    )


@dataclass(frozen=True, slots=True)
class Grant:
    """One permission of a role."""

    start: bytes
    end: bytes
    access: frozenset[Access]

    def covers(self, asked: Asked) -> bool:
        """Whether this permission alone is enough."""
        if asked.access not in self.access or asked.start < self.start:
            return False
        if not self.end:
            return not asked.end and asked.start == self.start
        if self.end == b"\0":
            return True
        return asked.end <= self.end if asked.end and asked.end != b"\0" else not asked.end and asked.start < self.end


def grants_of(nodes: Nodes) -> tuple[tuple[str, ...], tuple[Grant, ...]]:
    """Names and permissions of our own roles.

    Raises:
        DriverError: etcd doesn't say.
    """

    def roles(connection: Any, limit_s: float, metadata: Any) -> Any:
        return connection.auth.UserGet(etcdrpc.AuthUserGetRequest(name=nodes.user), timeout=limit_s, metadata=metadata)

    names = tuple(nodes.call("user", roles, repeatable=True).roles)
    found: list[Grant] = []
    for name in names:

        def role(connection: Any, limit_s: float, metadata: Any, name: str = name) -> Any:
            request = etcdrpc.AuthRoleGetRequest(role=name)
            return connection.auth.RoleGet(request, timeout=limit_s, metadata=metadata)

        found += (
            Grant(one.key, one.range_end, _GRANTS[one.permType])
            for one in nodes.call("role", role, repeatable=True).perm
        )
    return names, tuple(found)


def explained(nodes: Nodes, asked: Sequence[Asked]) -> PermissionDenied:
    """The error with the key, the user and the roles, as far as they can be found out."""
    who, lacking = "the user of our client certificate", asked
    if nodes.user is not None:
        who = f"user {nodes.user}"
        try:
            names, grants = grants_of(nodes)
        except DriverError:
            pass
        else:
            who += f" (role {', '.join(names)})" if names else " (without a role)"
            lacking = [one for one in asked if not any(grant.covers(one) for grant in grants)] or asked
    first = lacking[0] if lacking else None
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return PermissionDenied(
        f"etcd permits {who} no {first}{more}: permission denied; `outrider database roles` says what each user needs"
    )


class Denials:
    """What is denied at present, for people: told when it changes. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: dict[Asked, str] = {}
        self._listeners: list[Callable[[str], None]] = []

    def tell(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with the words for all that is denied, now if there is any, and at each change."""
        with self._lock:
            self._listeners.append(listener)
            words = self._words()
        if words:
            listener(words)

    def denied(self, asked: Sequence[Asked], error: PermissionDenied) -> None:
        """This was denied."""
        self._change(lambda: self._texts.update({asked[0]: str(error)}) if asked else None)

    def permitted(self, asked: Callable[[], Sequence[Asked]]) -> None:
        """This was done: what was denied of it isn't any more. Costs nothing while nothing is denied."""
        if self._texts:
            done = set(asked())

            def forget() -> None:
                for one in done & self._texts.keys():
                    del self._texts[one]

            self._change(forget)

    def _change(self, change: Callable[[], None]) -> None:
        with self._lock:
            before = self._words()
            change()
            words, listeners = self._words(), tuple(self._listeners)
        if words != before:
            for listener in listeners:
                listener(words)

    def _words(self) -> str:
        return "; ".join(dict.fromkeys(self._texts.values()))
