"""The tasks' worker: has what must run once done before a swap, by this instance or by another."""

import threading
from collections.abc import Callable
from typing import Protocol, assert_never

from loguru import logger

from outrider.core.errors import DriverError, OutriderError
from outrider.core.sidekick.effects import LeaveTask, RunTask, TaskEffect
from outrider.core.sidekick.events import TaskFailed, TaskFinished, TaskProgressed
from outrider.core.sidekick.memory import Release
from outrider.etcd.seam import Cluster, Watch, WatchEvent
from outrider.failpoints import failpoint, with_current_effect
from outrider.sidekick.task_claims import AllDone, Claimed, HasFailed, Pending, Result, TaskClaims
from outrider.sidekick.task_programs import Interrupted
from outrider.sidekick.workers.worker import Post, now

RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0
LOOK_S = 2.0
"""Between two looks at what no watch tells of: this sidekick's own presence and permission."""


class Programs(Protocol):
    """Who runs the programs of tasks."""

    def run(self, claimed: Claimed, release: Release) -> Result:
        """As ``TaskPrograms.run``."""

    def close(self) -> None:
        """End what runs."""


class Follow:
    """One request to have tasks done, round by round: ``run`` does them on a thread, a simulation as it likes."""

    def __init__(
        self, claims: TaskClaims, programs: Programs, effect: RunTask, request: int | None, post: Post
    ) -> None:
        self._claims, self._programs, self._effect, self._request = claims, programs, effect, request
        self._post = post
        self._claimed: Claimed | None = None
        self._result: Result | None = None
        self._told = ""
        self.left = False
        self.over = False

    @property
    def is_busy(self) -> bool:
        """A task is claimed here, and its result isn't written."""
        return self._claimed is not None

    def leave(self) -> None:
        """Wait for nothing any more; a task that is claimed is brought to its end."""
        self.left = True

    def round(self) -> float:
        """Do the next thing.

        Returns:
            Seconds after which another round may help, if nothing changes before; 0: at once.

        Raises:
            Unknown: no answer from etcd; another round does the same again.
        """
        if self._claimed is not None:
            self._go_on(self._claimed)
            return 0.0
        if self.left:
            self.over = True
            return 0.0
        outcome = self._claims.look(self._effect)
        match outcome:
            case None:
                return 0.0
            case Claimed():
                self._claimed = outcome
                self._tell(f"task {outcome.spec.name} of {self._effect.release.version} runs here")
            case Pending():
                self._tell(outcome.words)
                return LOOK_S if not outcome.revision else 30.0
            case HasFailed():
                self._end(TaskFailed(at=now(), request=self._request, cause=outcome.cause, evidence="task-failed"))
            case AllDone():
                self._end(TaskFinished(at=now(), request=self._request, done=outcome.done))
            case _:
                assert_never(outcome)
        return 0.0

    def _go_on(self, claimed: Claimed) -> None:
        if self._result is None:
            try:
                self._result = self._programs.run(claimed, self._effect.release)
            except Interrupted:
                self.over = True
            except DriverError as error:
                self._claims.give_back(claimed)
                self._claimed = None
                self._end(TaskFailed(at=now(), request=self._request, cause=str(error), evidence=error.evidence))
            return
        counts = self._claims.finish(claimed, self._result, self._effect)
        logger.bind(task=claimed.spec.name, result=self._result.why, counts=counts).info("task ended")
        self._claimed = self._result = None

    def _tell(self, words: str) -> None:
        if words != self._told and not self.left:
            self._told = words
            self._post(TaskProgressed(at=now(), request=self._request, words=words))

    def _end(self, event: TaskFinished | TaskFailed) -> None:
        self.over = True
        if not self.left:
            self._post(event)


class TaskWork:
    """Performs ``task.*``."""

    def __init__(
        self,
        cluster: Cluster,
        claims: TaskClaims,
        programs: Programs,
        *,
        post: Post,
        crash: Callable[[BaseException], None],
        start: Callable[[Follow], None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            crash: Told of a bug that a thread died of.
            start: How a request is followed; the default gives it a thread of its own.
        """
        self._cluster, self._claims, self._programs, self._post, self._crash = cluster, claims, programs, post, crash
        self._start = start or self._start_thread
        self._changed = threading.Condition()
        self._changes = 0
        self._closed = False
        self._current: Follow | None = None
        self._threads: list[threading.Thread] = []

    def interrupt(self, effect: TaskEffect) -> None:
        """Whatever is waited for so far is waited for no more."""
        with self._changed:
            if self._current is not None:
                self._current.leave()
            self._changed.notify_all()

    def perform(self, effect: TaskEffect, request: int | None) -> None:
        match effect:
            case RunTask():
                self.interrupt(effect)
                self._current = Follow(self._claims, self._programs, effect, request, self._post)
                self._start(self._current)
            case LeaveTask():
                pass  # done by interrupt
            case _:
                assert_never(effect)

    def close(self) -> None:
        """End; a program that runs is ended, too, and its task is unknown until somebody has looked."""
        self._programs.close()
        with self._changed:
            self._closed = True
            if self._current is not None:
                self._current.leave()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(10.0)

    def _start_thread(self, follow: Follow) -> None:
        thread = threading.Thread(target=with_current_effect(lambda: self._follow(follow)), name="task", daemon=True)
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()

    def _follow(self, follow: Follow) -> None:
        watches: list[Watch] = []
        try:
            delay_s = RETRY_MIN_S
            while not follow.over and not self._is_over(follow):
                with self._changed:
                    seen = self._changes
                try:
                    if not watches:
                        watches = self._watch()
                    wait_s, delay_s = follow.round(), RETRY_MIN_S
                except OutriderError as error:
                    logger.bind(error_kind=error.kind, cause=str(error)).warning("task waits for etcd")
                    wait_s, delay_s = delay_s, min(RETRY_MAX_S, delay_s * 2)
                if wait_s:
                    self._wait(follow, seen, wait_s)
        except BaseException as error:  # noqa: BLE001 - handed to the loop, which dies of it
            self._crash(error)
        finally:
            for watch in watches:
                watch.close()

    def _is_over(self, follow: Follow) -> bool:
        return self._closed and follow.left

    def _wait(self, follow: Follow, seen: int, wait_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or follow.left or self._changes != seen, wait_s)

    def _watch(self) -> list[Watch]:
        watches: list[Watch] = []
        try:
            for prefix in self._claims.watched:
                with failpoint("task.read"):
                    revision = self._cluster.list(prefix).revision
                watches.append(self._cluster.watch(prefix, revision + 1, self._noted))
        except OutriderError:
            for watch in watches:
                watch.close()
            raise
        return watches

    def _noted(self, event: WatchEvent) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()
