"""Learns of workloads' ends by asking, where nobody tells: one thread, one question for each of them per interval.

No answer is no end: it is asked again, and the log says so once.
"""

import threading
from collections.abc import Callable

from loguru import logger

from outrider.core.errors import DriverError
from outrider.runtimes import Exited

Ask = Callable[[str], Exited | None]
"""How the workload with this id has ended; None while it runs. Raises DriverError when that isn't known."""


class Lookout:
    """A registered wish to learn of one workload's end."""

    def __init__(self, workload_id: str, deliver: Callable[[Exited], None]) -> None:
        self.workload_id = workload_id
        self._deliver = deliver
        self._lock = threading.RLock()
        self.done = False

    def close(self) -> None:
        """Nothing is delivered after this returns, except when it is called from the delivery itself."""
        with self._lock:
            self.done = True

    def tell(self, exited: Exited) -> None:
        """Deliver it, once."""
        with self._lock:
            if not self.done:
                self.done = True
                self._deliver(exited)


class Polling:
    """Asks for all watched workloads on one thread, which starts with the first of them."""

    def __init__(self, name: str, ask: Ask, every_s: float) -> None:
        self._name, self._ask, self._every_s = name, ask, every_s
        self._lock = threading.Lock()
        self._lookouts: list[Lookout] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._silent = False

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> Lookout:
        """Call ``deliver`` once when the workload has ended; soon if it has already."""
        lookout = Lookout(workload_id, deliver)
        with self._lock:
            self._lookouts.append(lookout)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"{self._name}-ends", daemon=True)
                self._thread.start()
        self._wake.set()
        return lookout

    def close(self) -> None:
        """Stop asking; nothing more is delivered once it returns."""
        self._closed = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            with self._lock:
                self._lookouts = [each for each in self._lookouts if not each.done]
                waiting = tuple(self._lookouts)
            ends: dict[str, Exited | None] = {}
            for lookout in waiting:
                if lookout.workload_id not in ends and not self._closed:
                    ends[lookout.workload_id] = self._end_of(lookout.workload_id)
                exited = ends.get(lookout.workload_id)
                if exited is not None and not self._closed:
                    lookout.tell(exited)
            self._wake.wait(self._every_s if waiting else None)
            self._wake.clear()

    def _end_of(self, workload_id: str) -> Exited | None:
        try:
            exited = self._ask(workload_id)
        except DriverError as error:
            if not self._silent:
                logger.bind(workload=workload_id, runtime=self._name, cause=str(error)).warning(
                    "can't tell whether the workload runs"
                )
            self._silent = True
            return None
        self._silent = False
        return exited
