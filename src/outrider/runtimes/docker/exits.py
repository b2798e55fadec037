"""Looks out for a container's end. A daemon that goes away is no end: it is asked again until it answers.

Each watch has a thread of its own, which asks Docker to tell when the container has ended, for some seconds at a time.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from loguru import logger

from outrider.core.errors import DriverError
from outrider.runtimes.docker.container import Ending, ending_of
from outrider.runtimes.docker.engine import Engine, EngineError

_ASK_S = 20.0
_AGAIN_S = 1.0
_LATELY_S = 60
"""How far back it is looked for somebody's stop or kill: Docker's own grace is ten seconds, ours thirty."""


class ContainerWatch:
    """A look-out for one container's end."""

    def __init__(self, engine: Engine, container: str, deliver: Callable[[Ending], None], *, memory_bytes: int) -> None:
        """``container``: its id; empty: it doesn't run, and that is told at once."""
        self._engine, self._container, self._deliver = engine, container, deliver
        self._memory_bytes = memory_bytes
        self._closed, self._delivering = threading.Event(), threading.RLock()
        threading.Thread(target=self._run, name="docker-watch", daemon=True).start()

    def close(self) -> None:
        """Stop looking; nothing is delivered after it returns. Safe to call twice, and from ``deliver``."""
        with self._delivering:
            self._closed.set()

    def _run(self) -> None:
        ending = Ending(status="gone", evidence="ended") if not self._container else self._wait()
        if ending is None:
            return
        with self._delivering:
            if not self._closed.is_set():
                self._closed.set()
                self._deliver(ending)

    def _wait(self) -> Ending | None:
        away = False
        while not self._closed.is_set():
            try:
                code = self._engine.wait(self._container, _ASK_S)
                if code is not None:
                    return self._judged(code, away=away)
            except EngineError as said:
                if said.status == 404:
                    return ending_of(None, None, asked=True, away=away)
                logger.bind(container=self._container[:12], cause=str(said)).warning(
                    "end of a container not looked for"
                )
                self._closed.wait(_AGAIN_S)
            except DriverError:
                away = True
                self._closed.wait(_AGAIN_S)
        return None

    def _judged(self, code: int, *, away: bool) -> Ending:
        """What the end means.

        Raises:
            DriverError: Docker doesn't answer: the container may have ended because Docker did.
        """
        found: dict[str, Any] | None = self._engine.inspect(self._container)
        state = None if found is None else found["State"]
        asked = found is not None and self._was_asked()
        return ending_of(state, code, asked=asked, away=away, memory_bytes=self._memory_bytes)

    def _was_asked(self) -> bool:
        """Whether somebody let Docker send it a signal; so does Docker itself before it ends."""
        now = int(time.time())
        with self._engine.client() as docker:
            wanted = {"container": [self._container], "event": ["kill"]}
            return any(True for _ in docker.events(since=now - _LATELY_S, until=now + 1, filters=wanted, decode=True))
