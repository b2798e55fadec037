"""The turns of a group in simulated time: the decisions are those of the real lock (``core.rollout``)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from outrider.core.rollout.budgets import Budget, Contending, Room
from outrider.core.rollout.slots import Holding, Take, Waiting, decide, line
from outrider.core.sidekick.memory import Turn

SCOPE = "turns/preview"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """One who waits for a turn, and what it is told."""

    waiting: Waiting
    update: str
    may: Callable[[], bool]
    tell: Callable[[Turn | None], None]


class Lock:
    """Who holds a turn, and who waits for one.

    Attributes:
        slots: Turns that there may be at once.
        held: Instance -> its turn, held or dirty.
        blocked: Releases that are proved bad -> why.
        proved: Release -> the first instance that has committed it.
    """

    def __init__(
        self,
        slots: int,
        budgets: tuple[Budget, ...],
        labels: Mapping[str, Mapping[str, str]],
        serves: Callable[[str], bool],
    ) -> None:
        """``serves``: whether an instance serves now."""
        self.slots = slots
        self.held: dict[str, Turn] = {}
        self.blocked: dict[str, str] = {}
        self.proved: dict[str, str] = {}
        self._budgets, self._labels, self._serves = budgets, labels, serves
        self._queue: dict[str, Taking] = {}
        self._revision = 1

    def enqueue(self, instance: str, update: str, tell: Callable[[Turn | None], None], may: Callable[[], bool]) -> None:
        """Wait for a turn; ``tell`` gets it, or None when ``may`` says no then. Whoever waits again stands last."""
        self._revision += 1
        waiting = Waiting(
            instance=instance, key=instance, create_revision=self._revision, mod_revision=self._revision
        )  # fmt: skip
        self._queue[instance] = Taking(waiting=waiting, update=update, may=may, tell=tell)
        self.look()

    def reclaim(self, instance: str) -> Turn | None:
        """Make the instance's own turn valid again; None when it has none."""
        turn = self.held.get(instance)
        if turn is not None:
            self._revision += 1
            turn = self.held[instance] = Turn(
                scope=SCOPE, number=turn.number, slot_revision=turn.slot_revision, waiter_revision=self._revision,
                update=turn.update,
            )  # fmt: skip
        return turn

    def leave(self, instance: str) -> None:
        """Give turn and place back."""
        self._queue.pop(instance, None)
        self.held.pop(instance, None)
        self.look()

    def forget(self, instance: str) -> bool:
        """The lease has ended: the place in the queue is gone, and a turn stays, dirty. Whether there was either."""
        return self._queue.pop(instance, None) is not None or instance in self.held

    def look(self) -> None:
        """Give the free turns to whose turn it is."""
        while self._queue and len(self.held) < self.slots:
            waiting = [one.waiting for one in self._queue.values()]
            holding = [
                Holding(number=turn.number, instance=name, create_revision=turn.slot_revision)
                for name, turn in self.held.items()
            ]
            held = self._held_back()
            first = next((one.instance for one in line(waiting, holding) if one.instance not in held), None)
            if first is None:
                return
            decision = decide(first, waiting, holding, self.slots, held)
            if not isinstance(decision, Take):
                return
            self._give(first, decision.number)

    def _give(self, instance: str, number: int) -> None:
        taking = self._queue.pop(instance)
        if not taking.may():
            taking.tell(None)
            return
        self._revision += 1
        turn = Turn(
            scope=SCOPE, number=number, slot_revision=self._revision,
            waiter_revision=taking.waiting.create_revision, update=taking.update,
        )  # fmt: skip
        self.held[instance] = turn
        taking.tell(turn)

    def _held_back(self) -> dict[str, str]:
        """Those in line that a budget holds -> why."""
        if not self._budgets:
            return {}
        out: dict[tuple[str, str], list[str]] = {}
        serving: dict[tuple[str, str], list[str]] = {}
        for name, labels in self._labels.items():
            for budget in self._budgets:
                if budget.label in labels:
                    place = budget.label, labels[budget.label]
                    if name in self.held:
                        out.setdefault(place, []).append(name)
                    elif self._serves(name):
                        serving.setdefault(place, []).append(name)
        rooms = {place: Room(out=out.get(place, ()), serving=serving.get(place, ())) for place in {*out, *serving}}
        found: dict[str, str] = {}
        for name in self._queue:
            one = Contending(
                instance=name, labels=self._labels[name], budgets=self._budgets, serves=self._serves(name), rooms=rooms
            )
            if why := one.held:
                found[name] = why
        return found
