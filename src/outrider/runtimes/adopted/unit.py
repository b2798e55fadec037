"""A systemd unit that somebody else has written and started.

What starts it at boot is disabled before it is stopped: its successor would find its port taken.
"""

from collections.abc import Callable, Mapping

from loguru import logger

from outrider.config.sections import Settings
from outrider.core.blame import Evidence
from outrider.core.errors import ConfigError, DriverError
from outrider.runtimes import Exited, ExitWatch
from outrider.runtimes.adopted import AdoptedRecord, Candidate, Sighting
from outrider.runtimes.adopted.listening import listening_urls
from outrider.runtimes.polling import Polling
from outrider.runtimes.systemd import SystemdSettings
from outrider.runtimes.systemd.bus import Manager, UnitState
from outrider.runtimes.systemd.results import GONE, result_of
from outrider.runtimes.systemd.units import stop_unit, wait_started

_OURS = "outrider-app-"
_ENABLED = ("enabled", "enabled-runtime")


def look(name: str, settings: Settings, environment: Mapping[str, str], *, url: str) -> Candidate:
    """As ``Adopter.look``: by its name, with or without ``.service``, or a pattern that fits one that runs."""
    manager = Manager()
    try:
        return _candidate(manager, _state(manager, name), settings, url)
    finally:
        manager.close()


def foreign(record: AdoptedRecord, settings: Settings, environment: Mapping[str, str]) -> "ForeignUnit":
    """As ``Adopter.foreign``."""
    return ForeignUnit(record, settings, Manager())


class ForeignUnit:
    """Implements ``Foreign``."""

    def __init__(self, record: AdoptedRecord, settings: Settings, manager: Manager) -> None:
        self._record, self._manager = record, manager
        self._start_timeout_s = settings.workload.start_timeout_s
        self._polling = Polling("adopted", self._ended, settings.of(SystemdSettings).poll_interval_s)

    def find(self) -> Sighting | None:
        """As ``Foreign.find``."""
        state = self._manager.state(self._record.id)
        if not state.runs:
            return None
        pid = int(self._manager.properties(state).get("MainPID", 0))
        return Sighting(handle=f"{self._record.id}, pid {pid}" if pid else self._record.id, url=self._record.url)

    def stop(self, grace_s: float) -> None:
        """As ``Foreign.stop``."""
        self._disable()
        stop_unit(self._manager, self._record.id, grace_s)

    def start(self) -> None:
        """As ``Foreign.start``."""
        self._manager.reset_failed(self._record.id)
        self._manager.start(self._record.id)
        state = wait_started(self._manager, self._record.id, self._start_timeout_s)
        if not state.runs:
            result = result_of(self._manager.properties(state))
            raise DriverError(f"{self._record.id} can't be started again: {result.status}", evidence="unknown")
        if self._record.policy.get("enabled"):
            self._manager.enable(self._record.id)

    def watch(self, deliver: Callable[[str, Evidence], None]) -> ExitWatch:
        """As ``Foreign.watch``: systemd is asked every ``systemd.poll_interval_s``."""

        def tell(exited: Exited) -> None:
            deliver(exited.status, exited.evidence)

        return self._polling.watch(self._record.id, tell)

    def health(self) -> str:
        """As ``Foreign.health``: a unit has none."""
        raise DriverError(f"{self._record.id} is no container: choose another probe.kind", evidence="wrong-setting")

    def close(self) -> None:
        """Stop asking."""
        self._polling.close()
        self._manager.close()

    def _ended(self, unit: str) -> Exited | None:
        state = self._manager.state(unit)
        if state.runs:
            return None
        result = result_of(self._manager.properties(state) if state.load != "not-found" else {})
        return Exited(workload_id=unit, status=result.status or GONE, evidence=result.evidence)

    def _disable(self) -> None:
        """That it would come back at the next boot is no reason to keep its successor from working now."""
        try:
            state = self._manager.state(self._record.id)
            if self._manager.properties(state, "Unit").get("UnitFileState") in _ENABLED:
                self._manager.disable(self._record.id)
        except DriverError as error:
            logger.bind(unit=self._record.id, cause=str(error)).warning(
                "adopted unit not disabled: it starts at the next boot unless somebody disables it"
            )


def _state(manager: Manager, name: str) -> UnitState:
    """The unit that is meant.

    Raises:
        ConfigError: none runs, or several do.
    """
    full = name if name.endswith(".service") else f"{name}.service"
    if any(char in name for char in "*?["):
        found = [each for each in manager.states(full) if each.runs]
        if len(found) != 1:
            several = (
                f"{', '.join(each.name for each in found)} run: name one of them" if found else "no such unit runs"
            )
            raise ConfigError(f"unit {name!r}: {several}")
        return found[0]
    state = manager.state(full)
    if state.load == "not-found":
        raise ConfigError(f"unit {full!r}: systemd knows none of this name")
    if state.active != "active":
        raise ConfigError(f"unit {full!r}: does not run ({state.active}, {state.sub}); start it")
    return state


def _candidate(manager: Manager, state: UnitState, settings: Settings, url: str) -> Candidate:
    name, unit, service = state.name, manager.properties(state, "Unit"), manager.properties(state)
    if name.startswith(_OURS):
        raise ConfigError(f"unit {name!r}: a sidekick started it already")
    if settings.instance.runtime == "systemd" and settings.of(SystemdSettings).unit == name:
        raise ConfigError(
            f"unit {name!r}: systemd.unit is the same, so the next version would run in it, and this one could not be"
            " brought back; give systemd.unit another name, such as a template"
        )
    if by := unit.get("TriggeredBy", ()):
        raise ConfigError(f"unit {name!r}: {', '.join(by)} would start it again; it can't be adopted as long as it may")
    pid = int(service.get("MainPID", 0))
    enabled = unit.get("UnitFileState") in _ENABLED
    return Candidate(
        kind="unit",
        id=name,
        name=name,
        handle=f"unit {name} (pid {pid})" if pid else f"unit {name}",
        urls={url: ""} if url else dict.fromkeys(listening_urls(pid, settings.workload.host), ""),
        policy={"enabled": enabled},
        no_restart="it is a transient unit, which is gone once it has ended" if unit.get("Transient") else "",
        after=f"systemctl stop{', and disable, so that it does not start at boot' if enabled else ''}; its file stays",
    )
