"""Learns of the end of processes through pidfds: of our own children, and of those that an earlier sidekick started.

One thread waits for all of them and reads the status of our own children, so that none stays a zombie.
"""

import os
import select
import subprocess
import threading
from collections.abc import Callable

from outrider.runtimes.process.family import reap
from outrider.runtimes.process.identity import look_at

_REAP_S = 10.0
"""Time between two looks for orphans that ended; an ended one costs an entry in the kernel's table of processes."""
GONE = "gone"
"""The status of a process that isn't our child: only its parent may read it."""


class Lookout:
    """A registered wish to learn of one process's end."""

    def __init__(self, deliver: Callable[[str], None]) -> None:
        self._deliver = deliver
        self._lock = threading.RLock()
        self._done = False

    def close(self) -> None:
        """Nothing is delivered after this returns, except when it is called from the delivery itself."""
        with self._lock:
            self._done = True

    def tell(self, status: str) -> None:
        with self._lock:
            if not self._done:
                self._done = True
                self._deliver(status)


class _Watched:
    """One process: its pidfd, and the child object when it is ours."""

    def __init__(self, pid: int, pidfd: int, child: "subprocess.Popen[bytes] | None") -> None:
        self.pid, self.pidfd, self.child = pid, pidfd, child
        self.lookouts: list[Lookout] = []


class Exits:
    """Waits for the end of any number of processes on one thread, which starts with the first of them."""

    def __init__(self, *, reaps: bool = False) -> None:
        """Begin without a thread.

        Args:
            reaps: This process is a child subreaper, so orphans that end have to be reaped here.
        """
        self._reaps = reaps
        self._lock = threading.Lock()
        self._watched: dict[tuple[int, int], _Watched] = {}
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._pending: list[tuple[Lookout, str]] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def own(self, child: "subprocess.Popen[bytes]", started: int, deliver: Callable[[str], None]) -> Lookout:
        """Take over a child that this process has started: its status is read when it ends, and delivered."""
        lookout = Lookout(deliver)
        self._register(child.pid, started, child, lookout)
        return lookout

    def watch(self, pid: int, started: int, deliver: Callable[[str], None]) -> Lookout:
        """Call ``deliver`` with the status once that very process has ended; at once if it has already."""
        lookout = Lookout(deliver)
        self._register(pid, started, None, lookout)
        return lookout

    def ended(self, deliver: Callable[[str], None], status: str = GONE) -> Lookout:
        """A look-out for what doesn't run: it hears ``status`` at once, from the same thread as all others."""
        lookout = Lookout(deliver)
        with self._lock:
            self._pending.append((lookout, status))
            self._call()
        return lookout

    def close(self) -> None:
        """Stop waiting. The processes live on; nothing more is delivered."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._call()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _register(self, pid: int, started: int, child: "subprocess.Popen[bytes] | None", lookout: Lookout) -> None:
        with self._lock:
            watched = self._watched.get((pid, started)) or self._open(pid, started, child)
            if watched is not None:
                watched.lookouts.append(lookout)
            else:
                self._pending.append((lookout, GONE))
            self._call()

    def _open(self, pid: int, started: int, child: "subprocess.Popen[bytes] | None") -> _Watched | None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        found = look_at(pid)
        if found is None or found.started != started:
            os.close(pidfd)
            return None
        watched = self._watched[(pid, started)] = _Watched(pid, pidfd, child)
        self._epoll.register(pidfd, select.EPOLLIN)
        return watched

    def _call(self) -> None:
        """Make the thread look at what has changed; the lock is held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="exits", daemon=True)
            self._thread.start()
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        zombies: set[tuple[int, int]] = set()
        while True:
            ready = {descriptor for descriptor, _ in self._epoll.poll(_REAP_S if self._reaps else None)}
            if self._reaps and not ready:
                zombies = reap(zombies)
            with self._lock:
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                ended = [key for key, watched in self._watched.items() if watched.pidfd in ready or self._closed]
                gone = [self._watched.pop(key) for key in ended]
                tell, self._pending = self._pending, []
                for watched in gone:
                    self._epoll.unregister(watched.pidfd)
                    os.close(watched.pidfd)
                if self._closed:
                    self._epoll.close()
                    os.close(self._wake)
                    return
            for watched in gone:
                status = _status(watched.child)
                tell.extend((lookout, status) for lookout in watched.lookouts)
            for lookout, status in tell:
                lookout.tell(status)


def _status(child: "subprocess.Popen[bytes] | None") -> str:
    """``exit 3`` or ``signal 9``; reading it lets the kernel forget a child of ours."""
    if child is None:
        return GONE
    code = child.wait()
    return f"exit {code}" if code >= 0 else f"signal {-code}"
