"""Who serves in each group, counted once and kept: for who judges over the copy of etcd.

A group's rows and presences are looked at once; after that only those that the watch brings. So a check-in under
``min_healthy`` costs the same in a group of ten thousand as in one of ten. By the same rules as ``snapshot.py`` reads
them in etcd.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from outrider.model.documents import Group, Instance, Presence
from outrider.model.keys import Keys
from outrider.service.store.checking import CAN_SERVE, SEEN
from outrider.service.store.context import StoreContext
from outrider.service.store.numbers import NumbersIndex
from outrider.service.store.read_model import Followed, ReadModel


@dataclass(slots=True)
class _Counted:
    """One group. ``rows``: when those were seen that serve unless a sidekick says otherwise."""

    requires_identity: bool
    rows_followed: Followed
    alive_followed: Followed
    alive: dict[str, bool] = field(default_factory=dict)
    rows: dict[str, datetime] = field(default_factory=dict)
    serving: set[str] = field(default_factory=set)
    next_at: datetime | None = None
    """When the first of the rows that serve was not seen for too long."""


class Serving:
    """The instances that serve: how many, and whether one does."""

    def __init__(self, names: set[str]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._names))


class ServingIndex:
    """Of one read model. Safe to use from several threads."""

    def __init__(self, model: ReadModel) -> None:
        self._model = model
        self._counting = threading.Lock()
        self._groups: dict[tuple[str, str], _Counted] = {}

    def of(self, keys: Keys, group: Group, now: datetime) -> Serving:
        """The instances of ``group`` that serve at ``now``, as the copy has them."""
        with self._counting:
            counted = self._groups.get((group.app, group.id))
            if counted is None or counted.requires_identity != group.requires_identity:
                counted = self._groups[group.app, group.id] = _Counted(
                    requires_identity=group.requires_identity,
                    rows_followed=self._model.follow(keys.instances(group.app)),
                    alive_followed=self._model.follow(f"{keys.presences(group.app)}{group.id}/"),
                )
            changed = self._look_at_presences(counted) | self._look_at_rows(counted, group)
            if counted.next_at is not None and now >= counted.next_at:
                changed |= counted.rows.keys()
                counted.next_at = None
            for name in changed:
                self._judge(counted, name, now)
            return Serving(counted.serving)

    def _look_at_presences(self, counted: _Counted) -> set[str]:
        is_anew, changes = self._model.changes(Presence, counted.alive_followed)
        changed = set(counted.alive) if is_anew else set()
        if is_anew:
            counted.alive.clear()
        for key, presence in changes:
            name = key.rpartition("/")[2]
            changed.add(name)
            if presence is None:
                counted.alive.pop(name, None)
            else:
                counted.alive[name] = presence.serving
        return changed

    def _look_at_rows(self, counted: _Counted, group: Group) -> set[str]:
        is_anew, changes = self._model.changes(Instance, counted.rows_followed)
        changed = set(counted.rows) if is_anew else set()
        if is_anew:
            counted.rows.clear()
        for key, row in changes:
            name = key.rpartition("/")[2]
            if row is not None and row.group == group.id and group.counts(row) and row.status in CAN_SERVE:
                counted.rows[name] = row.last_seen
                changed.add(name)
            elif counted.rows.pop(name, None) is not None:
                changed.add(name)
        return changed

    def _judge(self, counted: _Counted, name: str, now: datetime) -> None:
        serves = counted.alive.get(name)
        if serves is None:
            seen = counted.rows.get(name)
            serves = seen is not None and now - seen < SEEN
            if seen is not None and serves:
                counted.next_at = min(counted.next_at or seen + SEEN, seen + SEEN)
        if serves:
            counted.serving.add(name)
        else:
            counted.serving.discard(name)


def index_of(model: ReadModel) -> ServingIndex:
    """The one index of a read model."""
    return model.kept(ServingIndex)


def over_copy(context: StoreContext, model: ReadModel) -> StoreContext:
    """The same context, which reads the copy with this process's own writes."""
    index, numbers, keys = index_of(model), model.kept(NumbersIndex), context.keys
    return replace(
        context,
        cluster=model.ahead,
        decode=model.decode,
        serving=lambda group, now: index.of(keys, group, now),
        numbers=lambda group, now: numbers.of(keys, group, now),
    )
