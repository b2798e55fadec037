"""The instances of a group as rows: filtered and sorted by what the address says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from outrider.core.labels import shown as shown_labels
from outrider.service.rollouts.explain import CANNOT_BEGIN, GroupOverview, current_reason
from outrider.service.web.fleet import Tone

COLUMNS = ("instance", "state", "version", "since", "why", "machine", "labels", "seen")
_NEVER = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One instance.

    Attributes:
        state: Full path of the chart's state; in parentheses what was seen last of one without a living sidekick.
        seen: Its last check-in.
        drains: It was told to leave the balancer.
    """

    instance: str
    state: str
    tone: Tone
    version: str
    is_at_target: bool
    since: datetime | None
    why: str
    machine: str
    labels: str
    seen: datetime | None
    serving: bool
    drains: bool

    @property
    def short_state(self) -> str:
        """The last part of the state."""
        return self.state.rpartition(".")[2]

    @property
    def text(self) -> str:
        """What a filter looks in."""
        return f"{self.instance} {self.state} {self.version} {self.why} {self.machine} {self.labels}".casefold()


def rows_of(overview: GroupOverview) -> list[Row]:
    """Every instance of a group, by name."""
    waiting = set() if overview.snapshot is None else {one.instance for one in overview.snapshot.waiting}
    return [_row(overview, name, name in waiting) for name in overview.instances]


def _row(overview: GroupOverview, name: str, waits: bool) -> Row:
    presence, row, target = overview.alive.get(name), overview.rows.get(name), overview.target.release
    labels, seen = shown_labels(overview.labels_of(name)), None if row is None else row.last_seen
    strange = "; ".join(overview.strangers_of(name))
    if presence is not None:
        at_target = presence.is_at(target)
        why = (current_reason(overview, name) if waits else "") or presence.why
        busy = presence.state.partition(".")[0] != "idle"
        failed = bool(presence.cannot_take) or presence.state.startswith("rollback") or bool(strange)
        tone: Tone = (
            "bad" if failed else "busy" if busy else "held" if presence.drain_since or not at_target else "good"
        )
        return Row(
            instance=name,
            state=presence.state,
            tone=tone,
            version=presence.runs,
            is_at_target=at_target,
            since=presence.since,
            why="; ".join(filter(None, (why, presence.notice, presence.cannot_why, strange))),
            machine=presence.machine,
            labels=labels,
            seen=seen,
            serving=presence.serving,
            drains=presence.drain_since is not None,
        )
    crash = overview.crashes.get(name)
    unbegun = crash is not None and crash.cannot_begin
    died = "" if crash is None else f"{CANNOT_BEGIN if unbegun else 'sidekick ended unexpectedly'}: {crash.what}"
    offline = "" if row is None or not row.had_sidekick else "sidekick offline"
    return Row(
        instance=name,
        state="(cannot begin)" if unbegun else f"({row.status})" if row is not None else "(unknown)",
        tone="bad" if died or strange or (row is not None and row.status == "error") else "rest",
        version="" if row is None else row.runs,
        is_at_target=row is not None and target is not None and row.is_at(target),
        since=None,
        why="; ".join(filter(None, (died, strange, offline, "" if row is None else row.why))),
        machine="" if row is None else row.address,
        labels=labels,
        seen=seen,
        serving=False,
        drains=False,
    )


_KEYS: Mapping[str, Callable[[Row], object]] = {
    "instance": lambda row: row.instance,
    "state": lambda row: row.state,
    "version": lambda row: row.version,
    "since": lambda row: row.since or _NEVER,
    "why": lambda row: row.why,
    "machine": lambda row: row.machine,
    "labels": lambda row: row.labels,
    "seen": lambda row: row.seen or _NEVER,
}


def chosen(rows: list[Row], query: Mapping[str, str]) -> list[Row]:
    """The rows that ``q`` (every word of it) and ``state`` choose, in the order of ``sort``; ``-`` turns it round."""
    words, state = query.get("q", "").casefold().split(), query.get("state", "")
    found = [
        row
        for row in rows
        if all(word in row.text for word in words)
        and (not state or row.state.partition(".")[0] == state or (state == "other" and not row.is_at_target))
    ]
    sort = query.get("sort", "")
    key = _KEYS.get(sort.removeprefix("-"))
    if key is not None:
        found.sort(key=lambda row: (key(row), row.instance), reverse=sort.startswith("-"))
    return found
