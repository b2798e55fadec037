"""A clock for simulations."""

from collections.abc import Callable


class ManualClock:
    """A clock that moves only when told; calling it gives seconds."""

    def __init__(self) -> None:
        self._now = 0.0
        self._moved: list[Callable[[], None]] = []

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; leases whose time is up end before this returns."""
        self._now += seconds
        for moved in self._moved:
            moved()

    def on_moved(self, call: Callable[[], None]) -> None:
        self._moved.append(call)
