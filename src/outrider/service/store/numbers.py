"""The open grants and the kept places of each group, for who judges over the copy of etcd: without reading all of them.

A limit asks how many updates are under way, not which ones: their number is in the rollout, which is compared. Here is
what it is checked against, and some of them for the reason that a person reads. Of the waiting instances those matter
for which a place is kept; they are followed with the watch. So a check-in costs the same whether ten grants are open
or ten thousand.
"""

import threading
from dataclasses import dataclass, field
from datetime import datetime

from outrider.model.documents import Deferral, Group
from outrider.model.keys import Keys
from outrider.service.store.checking import DeferredInstance, GroupNumbers
from outrider.service.store.read_model import Followed, ReadModel

SHOWN = 3
"""Open grants that are read one by one: a reason names so many."""


@dataclass(slots=True)
class _Woken:
    """The instances of one group that were woken, and since when."""

    followed: Followed
    since: dict[str, datetime] = field(default_factory=dict)


class NumbersIndex:
    """Of one read model. Safe to use from several threads."""

    def __init__(self, model: ReadModel) -> None:
        self._model = model
        self._following = threading.Lock()
        self._groups: dict[str, _Woken] = {}

    def of(self, keys: Keys, group: Group, now: datetime) -> GroupNumbers:
        """Of ``group`` at ``now``, as the copy has it with what this process has written over it."""
        grants = keys.grants(group.app, group.id)
        number, some = self._model.some_ahead(grants, SHOWN)
        named = tuple((entry.key[len(grants) :], entry) for entry in some)
        return GroupNumbers(open=number, some=named, woken=self._woken(keys, group, now))

    def _woken(self, keys: Keys, group: Group, now: datetime) -> tuple[DeferredInstance, ...]:
        folder = keys.deferrals(group.app, group.id)
        with self._following:
            woken = self._groups.get(folder)
            if woken is None:
                woken = self._groups[folder] = _Woken(self._model.follow(folder))
            is_anew, changes = self._model.changes(Deferral, woken.followed)
            if is_anew:
                woken.since.clear()
            for key, deferral in changes:
                name = key[len(folder) :]
                if deferral is None or deferral.woken_at is None:
                    woken.since.pop(name, None)
                else:
                    woken.since[name] = deferral.woken_at
            names = list(woken.since)
        found = (self._kept_for(f"{folder}{name}", name, group, now) for name in names)
        return tuple(sorted((one for one in found if one is not None), key=lambda one: one.entry.create_revision))

    def _kept_for(self, key: str, name: str, group: Group, now: datetime) -> DeferredInstance | None:
        # it may have checked in since, in a transaction that the watch has not brought
        entry = self._model.entry_known(key)
        deferral = None if entry is None else self._model.document(Deferral, entry)
        if entry is None or deferral is None or (group.requires_identity and not deferral.proved):
            return None
        one = DeferredInstance(instance=name, deferred=deferral, entry=entry)
        return one if one.has_reservation(now) else None
