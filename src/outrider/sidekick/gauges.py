"""What a sidekick tells Prometheus of itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from outrider import __version__
from outrider.metrics import Sample
from outrider.model.documents import Presence

_P = "outrider_sidekick_"
HELPS: Mapping[str, str] = {
    f"{_P}info": "1, with the version of outrider and the name of the machine.",
    f"{_P}state": "1 for the present state of the statechart.",
    f"{_P}state_seconds": "Seconds in that state.",
    f"{_P}release": "1, with the version that runs here and the one that its group wants.",
    f"{_P}serving": "1 while the instance serves and isn't in the middle of a swap.",
    f"{_P}turn_held": "1 while it holds a turn to swap.",
    f"{_P}waiting": "1 while it waits for something, which `outrider why` tells.",
    f"{_P}blocked": "1 while the version that its group wants is blocked.",
    f"{_P}setback": "1 while a version failed here that isn't blocked for others.",
    f"{_P}failures": "Updates in a row that failed through no fault of the release.",
    f"{_P}check_in_seconds": "Seconds since the update service last answered a check-in; absent before the first.",
    f"{_P}etcd_connected": "1 while its lease in etcd can be trusted.",
    f"{_P}watch_seconds": "Seconds since its watch on etcd brought something; the update service writes each minute.",
    f"{_P}outbox_reports": "Reports that the update service has not accepted yet.",
    f"{_P}journal_steps_total": "Steps in the journal since the instance's first start.",
    f"{_P}journal_writable": "0 while it stands still because its journal can't be written.",
}
"""Name of each metric -> what it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What is measured at one moment.

    Attributes:
        presence: What it shows the fleet; None: it has not begun.
        check_in_s, watch_s: Seconds since then; None: never.
    """

    app: str
    group: str
    instance: str
    machine: str
    presence: Presence | None
    has_turn: bool
    is_blocked: bool
    failures: int
    check_in_s: float | None
    watch_s: float | None
    is_connected: bool
    reports: int
    steps: int
    is_writable: bool


def samples(found: Gauges, now: datetime | None = None) -> Iterator[Sample]:
    """All metrics of one instance."""
    us = {"app": found.app, "group": found.group, "instance": found.instance}

    def sample(name: str, value: float, **labels: str) -> Sample:
        return Sample(name=f"{_P}{name}", value=float(value), labels={**us, **labels})

    yield sample("info", 1, outrider=__version__, machine=found.machine)
    presence = found.presence
    if presence is not None:
        yield sample("state", 1, state=presence.state)
        yield sample("state_seconds", max(0.0, ((now or datetime.now(UTC)) - presence.since).total_seconds()))
        yield sample("release", 1, version=presence.version, wanted=presence.wanted or "")
        yield sample("serving", presence.serving)
        yield sample("waiting", bool(presence.why))
        yield sample("setback", bool(presence.cannot_take))
    yield sample("turn_held", found.has_turn)
    yield sample("blocked", found.is_blocked)
    yield sample("failures", found.failures)
    if found.check_in_s is not None:
        yield sample("check_in_seconds", found.check_in_s)
    yield sample("etcd_connected", found.is_connected)
    if found.watch_s is not None:
        yield sample("watch_seconds", found.watch_s)
    yield sample("outbox_reports", found.reports)
    yield sample("journal_steps_total", found.steps)
    yield sample("journal_writable", found.is_writable)
