"""Simulated time: what happens next, and when."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from tests.sim.manual_clock import ManualClock


@dataclass(slots=True)
class Appointment:
    """Something that will be done; ``call_off`` makes that nothing."""

    action: Callable[[], None] | None

    def call_off(self) -> None:
        self.action = None


class Agenda:
    """Appointments in order of time, then of making. Time passes only by ``advance``."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Appointment]] = []
        self._count = 0

    def __len__(self) -> int:
        """How many appointments stand, those that were called off left out."""
        return sum(appointment.action is not None for _, _, appointment in self._heap)

    def at(self, delay_s: float, action: Callable[[], None]) -> Appointment:
        """Do ``action`` in ``delay_s`` seconds."""
        self._count += 1
        appointment = Appointment(action)
        heapq.heappush(self._heap, (self.now_s + delay_s, self._count, appointment))
        return appointment

    def next_s(self) -> float | None:
        """When the next one is due; None when there is none."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def advance(self) -> None:
        """Let time pass until the next appointment, and keep it."""
        if self.next_s() is not None:
            self.now_s, _, appointment = heapq.heappop(self._heap)
            if appointment.action is not None:
                appointment.action()


class AgendaClock(ManualClock):
    """A clock that shows an agenda's time."""

    def __init__(self, agenda: Agenda) -> None:
        super().__init__()
        self._agenda = agenda

    def __call__(self) -> float:
        return self._agenda.now_s
