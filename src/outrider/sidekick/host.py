"""Several instances in one process: one connection to etcd, one lease, and for each instance a loop of its own.

Everything of an instance runs on its own threads, so one that hangs delays no other. One that fails is started again
alone. A file that is added, changed or removed starts, restarts or ends its instance; one that can't be used leaves its
instance running with the settings before, and the fleet is told.
"""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loguru import logger

from outrider.config.folder import Folder
from outrider.config.sections import EtcdSettings, Settings
from outrider.core.errors import ConfigError, OutriderError
from outrider.failpoints import acting_for
from outrider.sd_notify import Notices, Notifier
from outrider.sidekick.assemble import Assembly, session_of
from outrider.sidekick.gauges import Gauges
from outrider.sidekick.session import EtcdSession

LOOK_S = 2.0
"""How often the folder is looked at."""
BEAT_S = 10.0
"""How often a loop gives its sign of life."""
HUNG_S = 300.0
"""A loop that was silent for so long hangs: the process is let die by systemd's watchdog, and all begin anew."""
AGAIN_MIN_S, AGAIN_MAX_S = 1.0, 60.0
"""Pause before an instance that failed is started again."""

MakeAssembly = Callable[[Settings, EtcdSession, Notices], Assembly]


class Beats:
    """What one instance's loop says of itself; the host passes it on to systemd for all of them."""

    watchdog_interval_s: float | None = BEAT_S

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.is_ready = False
        self.text = "starting"
        self.last = clock()

    def ready(self, status: str = "") -> bool:
        self.is_ready = True
        return self.status(status)

    def status(self, status: str) -> bool:
        self.text = status
        return self.alive()

    def alive(self) -> bool:
        self.last = self._clock()
        return True

    def stopping(self) -> bool:
        return self.alive()


class Instance:
    """One instance's sidekick: runs on a thread of its own, again and again until it is stopped."""

    def __init__(
        self, name: str, settings: Settings, session: EtcdSession, make: MakeAssembly, earlier: Settings | None = None
    ) -> None:
        """``earlier``: what it ran with before; it goes on with that when the new settings can't be taken now."""
        self.name, self.settings, self._earlier = name, settings, earlier
        self.beats = Beats()
        self._session, self._make = session, make
        self._assembly: Assembly | None = None
        self._warning = ""
        self._mutex = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"instance-{name}", daemon=True)

    def start(self) -> "Instance":
        self._thread.start()
        return self

    def warn(self, text: str) -> None:
        """Let the fleet see this beside the instance's state; empty: nothing."""
        with self._mutex:
            self._warning = text
            if self._assembly is not None:
                self._assembly.warn(text)

    def gauges(self) -> Gauges | None:
        """What is measured of it now; None while it isn't running."""
        assembly = self._assembly
        return None if assembly is None else assembly.gauges()

    def stop(self) -> None:
        """Let it end; ``join`` waits for that."""
        with self._mutex:
            self._stopped.set()
            if self._assembly is not None:
                self._assembly.stop()

    def join(self, within_s: float) -> bool:
        """Whether it has ended within ``within_s`` seconds."""
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause_s = AGAIN_MIN_S
        acting_for(self.name)
        with logger.contextualize(instance=self.name):
            while not self._stopped.is_set():
                try:
                    with self._assembled() as assembly:
                        assembly.run()
                        pause_s = AGAIN_MIN_S
                except Exception as error:  # noqa: BLE001 - whatever it is, the other instances go on
                    kind = error.kind if isinstance(error, OutriderError) else type(error).__name__
                    bug = None if isinstance(error, OutriderError) else error
                    logger.bind(error_kind=kind, cause=str(error), again_s=pause_s).opt(exception=bug).error(
                        "sidekick ended unexpectedly"
                    )
                    self.beats.status(f"failed: {error}; starts again")
                    self.beats.is_ready = True
                    if self._stopped.wait(pause_s):
                        return
                    pause_s = min(AGAIN_MAX_S, pause_s * 2)

    @contextmanager
    def _assembled(self) -> Iterator[Assembly]:
        try:
            assembly = self._make(self.settings, self._session, self.beats)
        except ConfigError as problem:
            if self._earlier is None:
                raise
            # a change that must wait for the end of an update: without a sidekick that would never come
            logger.bind(cause=str(problem)).error("settings not used")
            self.settings, self._earlier = self._earlier, None
            self.warn(f"runs with earlier settings: {problem}")
            assembly = self._make(self.settings, self._session, self.beats)
        with self._mutex:
            if self._stopped.is_set():  # it is made and not run: what it holds is let go of by running to the end
                assembly.stop()
            self._assembly = assembly
            assembly.warn(self._warning)
        try:
            yield assembly
        finally:
            with self._mutex:
                self._assembly = None


def make_assembly(settings: Settings, session: EtcdSession, notices: Notices) -> Assembly:
    """An instance's sidekick in a process that it shares."""
    return Assembly(settings, session=session, notifier=notices, shares_process=True)


class Host:
    """Runs the instances of a folder.

    Args:
        notifier: Hears of all of them together.
        make: Makes one instance's sidekick.
    """

    def __init__(
        self,
        folder: Folder,
        notifier: Notifier,
        *,
        make: MakeAssembly = make_assembly,
        make_session: Callable[..., EtcdSession] = session_of,
    ) -> None:
        self._folder, self._notifier = folder, notifier
        self._make, self._make_session = make, make_session
        self._session: EtcdSession | None = None
        self._shared: tuple[EtcdSettings, float] | None = None
        self._instances: dict[Path, Instance] = {}
        self._told: dict[Path, str] = {}
        # a pipe, because a signal's handler may not wait for a lock that its own thread holds
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        self._again = self._stopping = self._is_ready = False
        self._bug: BaseException | None = None
        self._status = ""

    def reload(self) -> None:
        """Read the folder at once, changed or not; safe in a signal handler."""
        self._again = True
        self._wake()

    def stop(self) -> None:
        """Let ``run`` return once all instances have ended; the apps go on running. Safe in a signal handler."""
        self._stopping = True
        self._wake()

    def gauges(self) -> tuple[Gauges, ...]:
        """What is measured of the instances that run now; for any thread."""
        return tuple(found for one in tuple(self._instances.values()) if (found := one.gauges()) is not None)

    def crash(self, error: BaseException) -> None:
        """Let ``run`` raise ``error``: a thread has died that belongs to all of them."""
        self._bug = error
        self._wake()

    def run(self) -> None:
        """Work until ``stop``.

        Raises:
            ConfigError: the folder can't be read, or no file in it can be used at the start.
        """
        self._folder.read()
        if self._folder.problems and not self._folder.loaded:
            raise next(iter(self._errors()))
        if not self._folder.loaded:
            logger.bind(folder=str(self._folder.path)).warning("no instance: the folder has no file NAME.toml")
        try:
            self._apply()
            while not self._stopping and self._bug is None:
                self._wait(min(LOOK_S, self._notifier.watchdog_interval_s or LOOK_S))
                again, self._again = self._again, False
                if self._read(again=again):
                    self._apply()
                self._tell()
            if self._bug is not None:
                raise self._bug
        finally:
            self._notifier.stopping()
            self._end(tuple(self._instances))
            if self._session is not None:
                self._session.close()
            os.close(self._woken)
            os.close(self._waker)

    def _wake(self) -> None:
        with suppress(OSError):  # it is full of such words already, or has ended
            os.write(self._waker, b"!")

    def _wait(self, seconds: float) -> None:
        if select.select([self._woken], [], [], seconds)[0]:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)

    @property
    def instances(self) -> dict[str, str]:
        """What each instance says of itself, by file name without its end."""
        return {path.stem: one.beats.text for path, one in self._instances.items()}

    def _errors(self) -> Iterator[OutriderError]:
        for problem in self._folder.problems.values():
            yield ConfigError(problem)

    def _read(self, *, again: bool) -> bool:
        try:
            return self._folder.read(again=again)
        except OutriderError as error:  # the folder is gone for a moment: what runs goes on
            if self._told.get(self._folder.path) != str(error):
                self._told[self._folder.path] = str(error)
                logger.bind(cause=str(error)).error("folder not read")
            return False

    def _apply(self) -> None:
        """Make what runs into what the files say."""
        loaded, problems = self._folder.loaded, self._folder.problems
        for path, problem in problems.items():
            if self._told.get(path) != problem:
                logger.bind(file=str(path), cause=problem).error("settings not used")
            if path in self._instances:
                self._instances[path].warn(f"runs with earlier settings: {problem}")
        self._told = dict(problems)
        gone = [path for path in self._instances if path not in loaded and path not in problems]
        changed = {
            path: one.settings
            for path, one in self._instances.items()
            if path in loaded and loaded[path].settings != one.settings
        }
        self._end((*gone, *changed))
        self._leave_other_etcd([one.settings for one in loaded.values()])
        for path, one in loaded.items():
            if path in self._instances:
                self._instances[path].warn("")
                continue
            for line in one.warnings:
                logger.bind(file=str(path), setting=line).warning("a setting should be changed")
            session = self._session_for(one.settings)
            logger.bind(file=str(path), instance=one.settings.instance.id).info("instance started")
            self._instances[path] = Instance(path.stem, one.settings, session, self._make, changed.get(path)).start()

    def _leave_other_etcd(self, wanted: list[Settings]) -> None:
        """When all files name another etcd, or another time for the lease, nothing of the session can be kept."""
        if self._session is None or not wanted or _shared(wanted[0]) == self._shared:
            return
        self._end(tuple(self._instances))
        self._session.close()
        self._session = None

    def _session_for(self, settings: Settings) -> EtcdSession:
        if self._session is None:
            self._shared = _shared(settings)
            self._session = self._make_session(settings, on_bug=self.crash)
            self._session.start()
        return self._session

    def _end(self, paths: tuple[Path, ...]) -> None:
        """End these, all at once; one that hangs is left behind and told, for nothing can end a thread."""
        ending = [(path, self._instances.pop(path)) for path in paths]
        for _, one in ending:
            one.stop()
        deadline = time.monotonic() + 2 * BEAT_S
        for path, one in ending:
            if one.join(max(0.1, deadline - time.monotonic())):
                logger.bind(file=str(path)).info("instance ended")
            else:
                logger.bind(file=str(path), state=one.beats.text).error("instance hangs, and is left behind")

    def _tell(self) -> None:
        """Give systemd the sign of life, and a line on all instances."""
        instances = dict(self._instances)
        now = time.monotonic()
        hung = [path.stem for path, one in instances.items() if now - one.beats.last > HUNG_S]
        if not hung:
            self._notifier.alive()
        else:
            logger.bind(instances=hung).critical("an instance's loop hangs: no sign of life is given any more")
        text = _summary({path.stem: one.beats.text for path, one in instances.items()}, len(self._folder.problems))
        if not self._is_ready and all(one.beats.is_ready for one in instances.values()):
            self._is_ready = True
            self._notifier.ready(text)
            self._status = text
        elif text != self._status:
            self._status = text
            self._notifier.status(text)


def _shared(settings: Settings) -> tuple[EtcdSettings, float]:
    """What all instances of one process must have in common."""
    return settings.etcd, settings.lock.ttl_s


def _summary(states: dict[str, str], unusable: int) -> str:
    """Like ``9 instances: 8 waiting, 1 probing (web-b)``, with the chart's states in full."""
    counted: dict[str, list[str]] = {}
    for name, text in states.items():
        counted.setdefault(text.partition(":")[0], []).append(name)
    told = []
    for place, (state, names) in enumerate(sorted(counted.items(), key=lambda item: -len(item[1]))):
        who = f" ({', '.join(sorted(names))})" if place and len(names) <= 3 else ""
        told.append(f"{len(names)} {state}{who}")
    plural = "" if len(states) == 1 else "s"
    files = f"; {unusable} file{'' if unusable == 1 else 's'} can't be used" if unusable else ""
    return f"{len(states)} instance{plural}: {', '.join(told) or 'none'}{files}"
