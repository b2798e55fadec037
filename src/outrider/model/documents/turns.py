"""Turns to swap: who waits, and who holds one."""

from datetime import datetime

import msgspec

from outrider.model.documents.base import Document
from outrider.model.keys import group_scope, shared_scope


class Contender(Document, frozen=True, kw_only=True):
    """An instance that takes turns, and where: what all keys of a scope say, so that no key is ever taken apart.

    Attributes:
        app: By its canonical key.
        shared_scope: Name of the operator's scope; empty: the turns are those of the group.
        labels: Of the instance. Those of a slot key are frozen: they hold until the turn ends.
    """

    app: str
    group: str
    instance: str
    shared_scope: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def scope(self) -> str:
        """Where its turns are counted."""
        return shared_scope(self.shared_scope) if self.shared_scope else group_scope(self.app, self.group)

    @property
    def member(self) -> str:
        """Its name there. An instance's name is unique in its app only, and an operator's scope has several apps."""
        return f"{self.app}/{self.instance}" if self.shared_scope else self.instance

    def waiter(self, *, release: str, since: datetime) -> "Waiter":
        """What its key in the queue says."""
        return Waiter(
            app=self.app,
            group=self.group,
            instance=self.instance,
            shared_scope=self.shared_scope,
            labels=self.labels,
            release=release,
            since=since,
        )

    def slot(self, *, release: str, since: datetime, update: str) -> "Slot":
        """What its slot key says."""
        return Slot(
            app=self.app,
            group=self.group,
            instance=self.instance,
            shared_scope=self.shared_scope,
            labels=self.labels,
            release=release,
            since=since,
            update=update,
        )


class Waiter(Contender, frozen=True, kw_only=True):
    """``{scope}/queue/{member}``, under the sidekick's lease. ``release``: the version it wants to run."""

    release: str
    since: datetime


class Slot(Contender, frozen=True, kw_only=True):
    """``{scope}/slots/{n}/{member}``, without a lease: it outlives its owner, so that a crash can't free it.

    Attributes:
        update: Id of the update in the owner's journal: how a restarted sidekick knows the turn as its own.
    """

    release: str
    since: datetime
    update: str

    @property
    def frozen_labels(self) -> tuple[tuple[str, str], ...]:
        """Name and value of each label that it was taken under, by name."""
        return tuple(sorted(self.labels.items()))


class BudgetSlot(Contender, frozen=True, kw_only=True):
    """``{scope}/budgets/{label}={value}/slots/{n}/{member}``, without a lease: it comes and goes with a turn.

    Attributes:
        label, value: Of the instance, which the budget counts.
        turn: Number of the turn's slot.
        update: As in that slot.
    """

    label: str
    value: str
    turn: int
    update: str
    since: datetime
