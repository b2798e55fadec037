"""An instance: what it is doing, what it reported, its last update as a story, and commands to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from outrider.core.chart.draw_path import lay_out_path
from outrider.core.chart.draw_prune import prune
from outrider.core.chart.draw_sheet import Marks
from outrider.core.chart.draw_svg import to_svg
from outrider.core.chart.draw_theme import Theme
from outrider.core.chart.flat import flattened
from outrider.core.errors import NotFound, OutriderError
from outrider.core.omaha.events import failure_text
from outrider.core.sidekick.guards import decided_by
from outrider.model.documents import Command, Instance
from outrider.service.history.activity_log import read_activity
from outrider.service.history.stories import GroupStory, read_story
from outrider.service.rollouts.explain import GroupOverview, called, explain_in
from outrider.service.rollouts.waits import length
from outrider.service.web.actions.instance import OF_INSTANCE
from outrider.service.web.actions.rollout import overview_of
from outrider.service.web.fleet import Tone
from outrider.service.web.rows import rows_of
from outrider.service.web.site import Drawing, Page, Visit
from outrider.service.web.timeline import after_report
from outrider.statechart import load_sidekick_chart
from outrider.story.merged import StoryLine

API_INSTANCE = "/api/v1/apps/{app}/instances/{instance}"
MOST_LINES = 200
"""Lines of a story on the page, the last ones; `outrider story` has all."""
MOST_EVENTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Something that the instance reported. ``took``: until the next report of the same update; empty: none came."""

    at: datetime
    words: str
    version: str
    tone: Tone
    took: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A line of a story. ``width``: of its bar, per mille of the longest; 0: how long it took isn't known."""

    at: datetime | None
    words: str
    took: str
    width: int
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The last update. ``missing``: why there is nothing to tell; ``left_out``: how many earlier lines."""

    lines: tuple[Told, ...] = ()
    version: str = ""
    began: datetime | None = None
    notes: tuple[str, ...] = ()
    missing: str = ""
    left_out: int = 0


def view(visit: Visit) -> Mapping[str, Any]:
    """The instance that the path names."""
    overview, name = _overview_with(visit)
    command = visit.context.get_or_none(Command, visit.keys.command(overview.app, name))
    told = explain_in(overview, name, command, visit.now)
    events = read_activity(visit.context, app=overview.app, group=overview.name, instance=name)[:MOST_EVENTS]
    return {
        "app": visit.names["app"],
        "group": overview.name,
        "above": f"{visit.app_label(overview.app)}/{overview.label}",
        "row": next(row for row in rows_of(overview) if row.instance == name),
        "target": overview.target.label or "",
        # the page says above which instance it is
        "reasons": [line.removeprefix(f"{called(overview, name)}: ") for line in told],
        "facts": _facts(overview, name),
        "reports": _reports(overview.rows.get(name)),
        "events": [one for _, one in events],
        "may_command": visit.may("POST", f"{API_INSTANCE}/command".format(**visit.names)),
        "may_see_activity": visit.may("GET", f"/api/v1/activity?app={overview.app}"),
        # called outside of what is live: etcd keeps the history, the copy doesn't have it
        "story": lambda: _story(visit, overview),
    }


def _overview_with(visit: Visit) -> tuple[GroupOverview, str]:
    """The group that the path names, which has the instance.

    Raises:
        NotFound: it has not.
    """
    overview, name = overview_of(visit), visit.names["instance"]
    if name not in overview.instances:
        raise NotFound(f"group {overview.name} has no instance {name!r}")
    return overview, name


def _facts(overview: GroupOverview, name: str) -> list[tuple[str, str]]:
    """What is known of it and seldom changes, by name."""
    presence, row = overview.alive.get(name), overview.rows.get(name)
    found: list[tuple[str, str]] = []
    if presence is not None:
        found += [
            ("goes back to", presence.previous_release or presence.previous),
            ("environment", str(presence.environment or "")),
            ("turns", f"in the scope {presence.shared_scope}" if presence.shared_scope else ""),
            ("serves at", presence.serves_url or presence.url or ""),
            ("process", presence.process),
        ]
    if row is not None:
        found += [
            ("status", row.status),
            ("granted", row.granted or ""),
            ("address", row.address),
            ("alias", row.alias),
            ("OEM", row.oem),
            ("architecture", row.arch),
            ("check-ins", "proved" if row.proved else "" if row.had_sidekick else "never proved"),
        ]
    return [(what, value) for what, value in found if value]


def _reports(row: Instance | None) -> list[Report]:
    """What it reported, newest first, with the time until the next report of the same update."""
    history = () if row is None else row.history
    found = []
    for number, one in enumerate(history):
        words, tone = after_report(one)
        following = history[number + 1] if number + 1 < len(history) and tone not in ("good", "bad") else None
        found.append(
            Report(
                at=one.at,
                words=words if not one.error_code else f"{words}: {failure_text(one.error_code)}",
                version=one.release or one.version,
                tone=tone,
                took="" if following is None else _length(max(0.0, (following.at - one.at).total_seconds())),
            )
        )
    return found[::-1]


def _story(visit: Visit, overview: GroupOverview) -> Story:
    try:
        story = _read_story(visit, overview)
    except OutriderError as error:
        return Story(missing=str(error))
    longest = max((line.took_s or 0.0 for line in story.lines), default=0.0)
    chosen = story.lines[-MOST_LINES:]
    return Story(
        lines=tuple(_told(line, longest) for line in chosen),
        version=story.version,
        began=story.began,
        notes=story.notes,
        left_out=len(story.lines) - len(chosen),
    )


def _read_story(visit: Visit, overview: GroupOverview) -> GroupStory:
    return read_story(visit.ours.stores.context, overview.app, overview.name, instance=visit.names["instance"])


def _told(line: StoryLine, longest_s: float) -> Told:
    ended = f" → {line.event}" if line.event and line.state else ""
    said = line.text or line.event or line.kind
    words = f"{line.state}{ended}{f': {line.text}' if line.text else ''}" if line.state else said
    width = round(1000 * line.took_s / longest_s) if line.took_s and longest_s else 0
    return Told(
        at=line.at or line.machine_at,
        words=words,
        took="" if line.took_s is None else _length(line.took_s),
        width=max(width, 6) if width or line.took_s else 0,
        place=f"local step, between {line.place}" if line.is_local else f"revision {line.place}",
    )


def _length(seconds: float) -> str:
    """``0.12s`` below ten seconds, else as everywhere."""
    return f"{seconds:.2g}s" if seconds < 10 else length(timedelta(seconds=seconds))


def draw(visit: Visit) -> bytes:
    """The way of its last update through the statechart."""
    overview, name = _overview_with(visit)
    theme: Theme = "dark" if visit.query.get("theme") == "dark" else "light"
    presence = overview.alive.get(name)
    try:
        lines: Sequence[StoryLine] = _read_story(visit, overview).lines
    except OutriderError:  # nothing is recorded: where it is now can be drawn nevertheless
        lines = ()
    stays = [line for line in lines if line.instance == name and line.state][-MOST_LINES:]
    notes: dict[str, list[str]] = {}
    for number, line in enumerate(stays, start=1):
        took = "" if line.took_s is None else f", {_length(line.took_s)}"
        notes.setdefault(line.state, []).append(f"step {number}{took}")
    if presence is not None:
        notes.setdefault(presence.state, []).append("now")
    return _drawn(tuple((state, _first(words)) for state, words in notes.items()), theme)


def _first(words: list[str]) -> tuple[str, ...]:
    return tuple(words) if len(words) <= 3 else (*words[:2], f"and {len(words) - 2} more")


@lru_cache(maxsize=32)
def _drawn(marks: tuple[tuple[str, tuple[str, ...]], ...], theme: Theme) -> bytes:
    whole = flattened(load_sidekick_chart())
    small = prune(whole, decided_by("start-first"))
    chart = small if all(state in small.states for state, _ in marks) else whole
    noted = Marks(notes={state: words for state, words in marks if state in chart.states})
    return to_svg(lay_out_path(chart, chart.name, noted), theme).encode()


PAGE = Page(
    path=OF_INSTANCE,
    template="instance.html",
    reads=f"GET {API_INSTANCE}",
    view=view,
    title="{instance} of {app}/{group}",
)
STATECHART = Drawing(path=f"{OF_INSTANCE}/statechart.svg", reads=f"GET {API_INSTANCE}", draw=draw)
