"""The instances of a group with their labels, as a policy that chooses by labels counts them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from outrider.core.rollout import waves
from outrider.model.documents import Group, Instance, Presence, Target
from outrider.service.store.context import StoreContext

SILENT = timedelta(hours=2)
"""An instance that was silent for so long is waited for no more: a living sidekick checks in at least every hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member(waves.Member):
    """A known instance. ``is_seen``: its labels are those of a sidekick, not only those of a client without one."""

    is_seen: bool


def read_members(context: StoreContext, group: Group, target: Target | None, now: datetime) -> dict[str, Member]:
    """The living sidekicks of a group, and the instances that have checked in lately.

    A row counts for the time without a presence: a lease that lapses must not make a group smaller at once.
    """
    release = None if target is None else target.release
    alive = {
        one.instance: one
        for one in context.children(Presence, f"{context.keys.presences(group.app)}{group.id}/")
    }  # fmt: skip
    rows = {
        row.id: row
        for row in context.children(Instance, context.keys.instances(group.app))
        if row.group == group.id and group.counts(row) and (row.id in alive or now - row.last_seen < SILENT)
    }
    members = {}
    for name in sorted({*alive, *rows}):
        presence, row = alive.get(name), rows.get(name)
        labels = presence.labels if presence is not None else row.labels if row is not None else {}
        is_there = release is not None and (
            (row is not None and row.is_at(release)) or (presence is not None and presence.is_at(release))
        )
        members[name] = Member(labels=labels, is_there=is_there, is_seen=presence is not None or bool(labels))
    return members
