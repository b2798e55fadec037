"""Load for an update service: as many first requests of new instances as it answers, as updatectl's ``instance bench``.

One request per instance: ping, update check and event 3:1, with an id that was never used before. What is measured is
service and this client together. Source: updateservicectl instance.go.
"""

import secrets
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from outrider.clients.fake import FakeSettings, ask, render
from outrider.core.errors import OutriderError
from outrider.core.omaha import Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came of it. ``answers`` are those that were understood, ``offers`` those of them with an update."""

    seconds: float
    answers: int
    offers: int
    errors: int

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds if self.seconds else 0.0


class Bench:
    """``settings.clients`` threads that ask for ``seconds``."""

    def __init__(
        self,
        settings: FakeSettings,
        seconds: float,
        tell: Callable[[str], None],
        tell_progress: Callable[[str], None] | None = None,
    ) -> None:
        """Prepare it; ``tell`` gets one line for each error that is new, ``tell_progress`` one each second."""
        self._settings, self._seconds, self._tell, self._tell_progress = settings, seconds, tell, tell_progress
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._answers = self._offers = self._errors = 0
        # Where the ids begin is random: those of an earlier run are known already.
        self._number = secrets.randbits(60)
        self._told: set[str] = set()

    def run(self) -> Measured:
        """Ask until the time is over, or until ``stop``."""
        threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(self._settings.clients)]
        began_s = time.monotonic()
        for thread in threads:
            thread.start()
        while (left_s := began_s + self._seconds - time.monotonic()) > 0 and not self._stopping.wait(min(1.0, left_s)):
            took_s = time.monotonic() - began_s
            if self._tell_progress is not None:
                with self._lock:
                    self._tell_progress(f"{self._answers} answers so far, {self._answers / took_s:.1f} per second")
        self._stopping.set()
        for thread in threads:
            thread.join()
        took_s = time.monotonic() - began_s
        return Measured(seconds=took_s, answers=self._answers, offers=self._offers, errors=self._errors)

    def stop(self) -> None:
        """End it early."""
        self._stopping.set()

    def _ask(self) -> None:
        settings = self._settings
        boot = str(uuid.uuid4())
        while not self._stopping.is_set():
            with self._lock:
                self._number += 1
                name = f"deadbeefdeadbeef{self._number:016x}"
            body = render(settings, version=settings.version, boot=boot, name=name, event="3:1", check=True, ping=True)
            try:
                answer, _ = ask(settings, body)
            except OutriderError as error:
                self._note(error)
                continue
            with self._lock:
                self._answers += 1
                self._offers += isinstance(answer.update_check, Offer)

    def _note(self, error: OutriderError) -> None:
        with self._lock:
            self._errors += 1
            if str(error) not in self._told and len(self._told) < 20:
                self._told.add(str(error))
                self._tell(str(error))
        # A service that is away is not asked as fast as the machine can.
        self._stopping.wait(0.1)
