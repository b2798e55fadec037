"""etcd's own users and roles: what one of them may do, read and made by an administrator of etcd."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from etcd3 import etcdrpc

from outrider.core.errors import Refused
from outrider.etcd.channel import Nodes
from outrider.etcd.seam import EtcdAddress
from outrider.etcd.wire import encode_key, prefix_range

ACCESS = {"read": 0, "write": 1, "readwrite": 2}
"""etcd's numbers for them."""


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """One range of keys (``end`` empty: one key) and what is permitted there, by etcd's number."""

    start: bytes
    end: bytes
    access: int

    @classmethod
    def of(cls, key: str, access: str, *, prefix: bool) -> "Permission":
        """For a key or a prefix; ``access``: ``read``, ``write`` or ``readwrite``."""
        return cls(*(prefix_range(key) if prefix else (encode_key(key), b"")), ACCESS[access])


class EtcdUsers:
    """Asks etcd as the user of ``address``, who must have the role root where etcd asks for users.

    Every method may raise ``Unknown`` (no answer) and ``Refused``, as ``PermissionDenied`` for anybody but root.
    """

    def __init__(self, address: EtcdAddress) -> None:
        self._nodes = Nodes(address)

    def close(self) -> None:
        """End the connection."""
        self._nodes.close()

    def are_asked_for(self) -> bool:
        """Whether etcd asks for users (``etcdctl auth enable``)."""
        try:  # nobody's name and no password: etcd's answer tells whether it asks for them (AuthStatus is too young)
            self._ask("Authenticate", etcdrpc.AuthenticateRequest(name="-", password=""))
        except Refused as no:
            return "authentication is not enabled" not in str(no)
        return True

    def enable(self) -> None:
        """Ask for users from now on. There must be a user root with the role root."""
        self._ask("AuthEnable", etcdrpc.AuthEnableRequest())

    def users(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self._ask("UserList", etcdrpc.AuthUserListRequest()).users)

    def roles_of(self, user: str) -> tuple[str, ...]:
        """Names of a user's roles."""
        return tuple(self._ask("UserGet", etcdrpc.AuthUserGetRequest(name=user)).roles)

    def permissions(self, role: str) -> frozenset[Permission] | None:
        """What a role permits; None: there is no such role."""
        try:
            answer = self._ask("RoleGet", etcdrpc.AuthRoleGetRequest(role=role))
        except Refused as no:
            if "role name not found" in str(no):
                return None
            raise
        return frozenset(Permission(one.key, one.range_end, one.permType) for one in answer.perm)

    def make_role(self, role: str, wanted: Collection[Permission]) -> bool:
        """Let a role permit exactly what is ``wanted``; whether anything was changed."""
        found = self.permissions(role)
        if found is None:
            self._ask("RoleAdd", etcdrpc.AuthRoleAddRequest(name=role))
        before, after = found or frozenset(), frozenset(wanted)
        places = {(one.start, one.end) for one in after}
        for one in sorted(before):
            if (one.start, one.end) not in places:
                request = etcdrpc.AuthRoleRevokePermissionRequest(role=role, key=one.start, range_end=one.end)
                self._ask("RoleRevokePermission", request)
        for one in sorted(after - before):
            request = etcdrpc.AuthRoleGrantPermissionRequest(name=role)
            request.perm.permType, request.perm.key, request.perm.range_end = one.access, one.start, one.end
            self._ask("RoleGrantPermission", request)
        return found != after

    def make_user(self, user: str, password: str | None) -> bool:
        """Add a user, without a password for one who shows a certificate; False when there is one already."""
        if user in self.users():
            return False
        request = etcdrpc.AuthUserAddRequest(name=user, password=password or "")
        if password is None:
            # field 3, options.no_password: younger than our stubs
            request.MergeFromString(b"\x1a\x02\x08\x01")
        self._ask("UserAdd", request)
        return True

    def give_role(self, user: str, role: str) -> bool:
        """Let a user have a role; whether it is new."""
        if role in self.roles_of(user):
            return False
        self._ask("UserGrantRole", etcdrpc.AuthUserGrantRoleRequest(user=user, role=role))
        return True

    def _ask(self, method: str, request: Any) -> Any:
        return self._nodes.call(
            method,
            lambda connection, limit_s, metadata: getattr(connection.auth, method)(
                request, timeout=limit_s, metadata=metadata
            ),
            repeatable=False,
        )
