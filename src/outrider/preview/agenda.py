"""Simulated time: what happens next, and when."""

import heapq
from collections.abc import Callable
from datetime import datetime, timedelta


class Agenda:
    """Appointments in order of time, then of making. Time passes only by ``advance``.

    Attributes:
        now_s: Seconds since the beginning.
        pending: Appointments that may still change something; those that were called off and mere rests left out.
    """

    def __init__(self, began: datetime) -> None:
        self.began, self.now_s, self.pending = began, 0.0, 0
        self._heap: list[tuple[float, int, Appointment]] = []
        self._count = 0

    @property
    def now(self) -> datetime:
        """The time of day, aware UTC."""
        return self.began + timedelta(seconds=self.now_s)

    def at(self, delay_s: float, action: Callable[[], None], *, rests: bool = False) -> "Appointment":
        """Do ``action`` in ``delay_s`` seconds. ``rests``: it repeats a question, and keeps nothing going."""
        self._count += 1
        appointment = Appointment(self, action, rests=rests)
        heapq.heappush(self._heap, (self.now_s + max(0.0, delay_s), self._count, appointment))
        return appointment

    def advance(self) -> None:
        """Let time pass until the next appointment, and keep it."""
        while self._heap:
            due_s, _, appointment = heapq.heappop(self._heap)
            action = appointment.take()
            if action is not None:
                self.now_s = due_s
                action()
                return


class Appointment:
    """Something that will be done; ``call_off`` makes that nothing."""

    def __init__(self, agenda: Agenda, action: Callable[[], None], *, rests: bool) -> None:
        self._agenda, self._rests = agenda, rests
        self._action: Callable[[], None] | None = action
        agenda.pending += not rests

    def take(self) -> Callable[[], None] | None:
        """What is to be done, once; None when it was called off."""
        action, self._action = self._action, None
        self._agenda.pending -= action is not None and not self._rests
        return action

    def call_off(self) -> None:
        """Do nothing."""
        self.take()
