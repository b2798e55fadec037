"""The update service's permission to begin an update, as the transaction that takes the turn needs it (P16)."""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from outrider.etcd.seam import Cluster, Compare, ModifiedAt, Op, Put
from outrider.failpoints import failpoint
from outrider.model.damage import read_or_none
from outrider.model.documents import OpenGrant, encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """What a turn for an update needs besides a place: the update service's grant, made under the present brake.

    Attributes:
        grant: Key of the instance's own grant.
        brake: Key of the group's brake.
        version: What must be granted.
    """

    grant: str
    brake: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Permitted:
    """The permission holds: what the transaction that takes the turn compares, and what it writes into the grant."""

    compares: tuple[Compare, ...] = ()
    ops: tuple[Op, ...] = ()


def permitted(cluster: Cluster, permission: Permission, now: datetime) -> Permitted | str:
    """Read the permission as it is now.

    The grant is written in the transaction that takes the turn. So the service, which compares the grant when it
    takes it back, and this instance can't both succeed.

    Returns:
        A text: why it does not hold, for a person.

    Raises:
        Unknown: etcd gives no answer.
    """
    with failpoint("turn.read"):
        entry, brake = cluster.get(permission.grant), cluster.get(permission.brake)
    revision = 0 if brake is None else brake.mod_revision
    grant = None if entry is None else read_or_none(OpenGrant, entry.key, entry.value)
    if entry is None or grant is None:
        return f"{permission.grant} is gone: the update service took its permission back"
    if grant.version != permission.version:
        return f"{permission.grant} is for {grant.version}, not for {permission.version}"
    if grant.brake != revision:
        return f"{permission.brake} changed: the grant is from before a pause or a halt"
    if grant.begin_before is not None and now >= grant.begin_before:
        return f"{permission.grant}: the update had to begin before {grant.begin_before:%H:%M:%S} UTC"
    begun = Put(key=entry.key, value=encode(msgspec.structs.replace(grant, begun=now)), lease=entry.lease)
    return Permitted(
        compares=(
            ModifiedAt(key=entry.key, revision=entry.mod_revision),
            ModifiedAt(key=permission.brake, revision=revision),
        ),
        ops=(begun,),
    )
