"""Threads that come when there is work and go when there is none.

What must not wait for anything else had a thread of its own before: thirty in a sidekick, all asleep. Here each
*serial queue* runs its tasks in order, one at a time, as such a thread did; it borrows a thread for as long as it has
work. A task always gets a thread at once, an idle one or a new one, so one that hangs delays no other queue (P3).
"""

import contextvars
import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable

Task = Callable[[], object]
Timer = tuple[float, int, Task]

IDLE_S = 5.0
"""A thread without work waits so long for the next task, and then ends: an update's effects follow within that."""


class ElasticPool:
    """Runs each task at once. Any thread may use it.

    Args:
        name: Of its threads.
        idle_s: How long a thread without work is kept.
    """

    def __init__(self, name: str, idle_s: float = IDLE_S) -> None:
        self._name, self._idle_s = name, idle_s
        lock = threading.RLock()
        self._changed, self._sooner = threading.Condition(lock), threading.Condition(lock)
        self._tasks: deque[Task] = deque()
        self._idle = self._threads = 0
        self._timers: list[Timer] = []
        self._numbers = itertools.count()
        self._has_clock = self._closed = False

    @property
    def threads(self) -> int:
        """How many there are now."""
        with self._changed:
            return self._threads

    def run(self, task: Task) -> None:
        """Run it on a thread that does nothing else until it has ended. Never waits.

        Raises:
            RuntimeError: the machine has no thread left, and no other one is there that could do it later.
        """
        with self._changed:
            self._tasks.append(task)
            if self._idle >= len(self._tasks):
                self._changed.notify()
                return
            self._threads += 1
        try:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        except RuntimeError:
            with self._changed:
                self._threads -= 1
                if self._threads == 0 and task in self._tasks:
                    self._tasks.remove(task)
                    raise

    def run_later(self, delay_s: float, task: Task) -> Timer:
        """Run it after ``delay_s`` seconds, unless it is cancelled or the pool closed before."""
        with self._changed:
            timer = (time.monotonic() + delay_s, next(self._numbers), task)
            if self._closed:
                return timer
            heapq.heappush(self._timers, timer)
            if not self._has_clock:
                self._has_clock = True
                threading.Thread(target=self._tell_time, name=f"{self._name}-timer", daemon=True).start()
            elif self._timers[0] is timer:
                self._sooner.notify()
            return timer

    def cancel(self, timer: Timer) -> None:
        """Don't run it; nothing happens when it was run already."""
        with self._changed:
            if timer in self._timers:
                self._timers.remove(timer)
                heapq.heapify(self._timers)

    def _tell_time(self) -> None:
        """One thread for all timers, as long as there are any."""
        while True:
            with self._changed:
                while self._timers and (left_s := self._timers[0][0] - time.monotonic()) > 0:
                    self._sooner.wait(left_s)
                if not self._timers:
                    self._has_clock = False
                    return
                task = heapq.heappop(self._timers)[2]
            self.run(task)
            del task

    def close(self) -> None:
        """Forget all timers; let idle threads end now, and the others when they have no work left."""
        with self._changed:
            self._closed = True
            self._timers.clear()
            self._sooner.notify_all()
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while (task := self._next()) is not None:
                task()
                del task  # or an idle thread keeps alive what its last task worked on
        finally:
            with self._changed:
                self._threads -= 1

    def _next(self) -> Task | None:
        until = time.monotonic() + self._idle_s
        with self._changed:
            while not self._tasks:
                left_s = until - time.monotonic()
                if self._closed or left_s <= 0:
                    return None
                self._idle += 1
                self._changed.wait(left_s)
                self._idle -= 1
            return self._tasks.popleft()


class SerialQueue:
    """Runs its tasks in order, one at a time, on threads of a pool; they share one context, as on one thread."""

    def __init__(self, pool: ElasticPool) -> None:
        self._pool = pool
        self._changed = threading.Condition()
        self._tasks: deque[Task] = deque()
        self._thread: int | None = None
        self._running = False
        self._context = contextvars.Context()

    @property
    def is_own_thread(self) -> bool:
        """Whether one of the queue's own tasks asks."""
        return self._thread == threading.get_ident()

    def put(self, task: Task) -> None:
        """Queue it behind the others; returns at once."""
        with self._changed:
            self._tasks.append(task)
            if self._running:
                return
            self._running = True
        try:
            self._pool.run(self._run)
        except RuntimeError:  # no thread left: the next task tries again
            self._end()
            raise

    def clear(self) -> None:
        """Forget what has not begun."""
        with self._changed:
            self._tasks.clear()

    def join(self, within_s: float | None) -> bool:
        """Whether nothing is queued or under way any more, waited for; at once for one of its own tasks."""
        if self.is_own_thread:
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, within_s)

    def _run(self) -> None:
        try:
            self._thread = threading.get_ident()
            while (task := self._next()) is not None:
                self._context.run(task)
                del task
        except BaseException:  # a bug, told by this thread's end; what is queued behind it is done all the same
            with self._changed:
                has_more = bool(self._tasks)
                if not has_more:
                    self._end()
            if has_more:
                self._pool.run(self._run)
            raise

    def _next(self) -> Task | None:
        with self._changed:
            if self._tasks:
                return self._tasks.popleft()
            self._end()
            return None

    def _end(self) -> None:
        with self._changed:
            self._running, self._thread = False, None
            self._changed.notify_all()


class Rounds:
    """Work that comes round again: soon after it is asked for, and when a round says so; never two rounds at once.

    Args:
        pool: Lends the threads; None: one of its own, which ends with it.
        work: One round; returns the seconds until the next one, None: until somebody asks.
        name: Of threads of its own.
    """

    def __init__(self, pool: ElasticPool | None, work: Callable[[], float | None], name: str = "rounds") -> None:
        self._owns = pool is None
        self._pool, self._work = pool or ElasticPool(name), work
        self._queue = SerialQueue(self._pool)
        self._mutex = threading.Lock()
        self._is_queued = self._closed = False
        self._not_before = 0.0
        self._timer: Timer | None = None

    def ask(self) -> None:
        """Let a round begin soon; several that ask meanwhile get one."""
        with self._mutex:
            if self._is_queued or self._closed:
                return
            self._is_queued = True
        self._queue.put(self._go)

    def ask_in(self, delay_s: float) -> None:
        """The same, after a while, in place of an earlier time."""
        with self._mutex:
            if self._timer is not None:
                self._pool.cancel(self._timer)
            self._timer = None if self._closed else self._pool.run_later(delay_s, self.ask)

    def hold(self, delay_s: float) -> float:
        """For a round that failed: none before that time, whoever asks. Returns it, as the round does."""
        self._not_before = time.monotonic() + delay_s
        return delay_s

    def close(self, within_s: float) -> bool:
        """No further round begins; whether the one under way, if any, has ended in time."""
        with self._mutex:
            self._closed = True
            if self._timer is not None:
                self._pool.cancel(self._timer)
        if self._owns:
            self._pool.close()
        return self._queue.join(within_s)

    def _go(self) -> None:
        with self._mutex:
            self._is_queued = False
            if self._closed:
                return
            left_s = self._not_before - time.monotonic()
        after_s = left_s if left_s > 0 else self._work()
        if after_s is None:
            return
        if after_s > 0:
            self.ask_in(after_s)
        else:
            self.ask()
