"""An instance as it describes itself: one that checks in, or one that is deferred."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from outrider.etcd.seam import Entry
from outrider.model.documents import Deferral

PATIENCE = timedelta(seconds=30)
"""How long a place is kept for a woken instance: a living sidekick checks in within milliseconds."""

SEEN = timedelta(hours=24)
"""An older row does not prove that its instance serves."""
CAN_SERVE = frozenset({"undefined", "complete", "on-hold"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckingInstance:
    """An instance, as it describes itself at its check-in.

    Attributes:
        running: Version that it runs.
        runs: Label of the release that it runs; empty: it names a version only.
        proved: The check-in is.
        is_new: It never ran anything, as far as its row says.
    """

    instance: str
    running: str
    runs: str = ""
    arch: str = ""
    prefix: str = ""
    rollback_allowed: bool = False
    rollback_forbidden: bool = False
    takes_turns: bool = False
    proved: bool = False
    is_new: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredInstance:
    """One deferred instance. ``entry``: its stored key."""

    instance: str
    deferred: Deferral
    entry: Entry

    @property
    def checking(self) -> CheckingInstance:
        """The instance, as it described itself at its last check-in."""
        deferred = self.deferred
        return CheckingInstance(
            instance=self.instance,
            running=deferred.running,
            runs=deferred.runs,
            arch=deferred.arch,
            prefix=deferred.prefix,
            rollback_allowed=deferred.rollback_allowed,
            rollback_forbidden=deferred.rollback_forbidden,
            proved=deferred.proved,
            is_new=deferred.is_new,
            takes_turns=deferred.takes_turns,
        )

    def has_reservation(self, now: datetime) -> bool:
        """A place is kept for it, because it was woken a moment ago."""
        return self.deferred.woken_at is not None and now - self.deferred.woken_at < PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNumbers:
    """What a check-in must know of the others of its group.

    Attributes:
        open: How many grants are open.
        some: A few of them, by instance.
        woken: Instances for which a place is kept, first come first.
    """

    open: int
    some: tuple[tuple[str, Entry], ...]
    woken: tuple[DeferredInstance, ...]
