"""What pages say of a group, from its overview: versions as bars, progress, and what a person must look at."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from outrider.core.errors import ConfigError, NotFound
from outrider.core.versions import parse
from outrider.model.documents import App, Presence
from outrider.service.rollouts.explain import GroupOverview, count, describe_crash, describe_turn, read_overviews
from outrider.service.rollouts.waits import about
from outrider.service.store.context import some
from outrider.service.store.rollouts import RolloutNow, shown
from outrider.service.web.site import Visit

Tone = Literal["good", "busy", "held", "bad", "rest"]
NO_VERSION = "(unknown)"
SHADES = 6
"""Colours of versions that are not the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A part of a group in the bar of its versions. ``x`` and ``width``: per mille."""

    version: str
    count: int
    x: int
    width: int
    tone: Tone
    shade: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Something that a person must look at."""

    tone: Tone
    where: str
    words: str
    group: str
    app: str
    instance: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A group in a few facts.

    Attributes:
        state: In a word or two: ``running``, ``paused``, ``blocked``, ``up to date``.
        on_target, known, serving: Numbers of instances.
        words: Progress of the rollout, in a line; empty: there is none.
        group: Its id; ``group_label``: its name for people, the id when it has no other.
        ends: When it will have ended; empty: nobody knows.
    """

    app: str
    label: str
    group: str
    group_label: str
    channel: str
    target: str
    state: str
    tone: Tone
    on_target: int
    known: int
    serving: int
    bars: tuple[Bar, ...]
    words: str
    ends: str
    attention: tuple[Attention, ...]

    @property
    def done(self) -> int:
        """Per mille of the instances on the target."""
        return 0 if not self.known else round(1000 * self.on_target / self.known)


def read_fleet(visit: Visit) -> tuple[tuple[App | None, tuple[GroupOverview, ...]], ...]:
    """Every app that the visitor may see, with its groups; None for one that sidekicks alone know."""
    context, only = visit.context, visit.visitor.principal.apps
    known: dict[str, App | None] = {one.id: one for one in context.children(App, visit.keys.apps())}
    for one in context.all_below(Presence, visit.keys.all_presences()):
        known.setdefault(one.app, None)
    found = []
    for name in sorted(known):
        if only and name not in only:
            continue
        try:
            found.append((known[name], read_overviews(context, name)))
        except NotFound:  # an app without groups
            found.append((known[name], ()))
    return tuple(found)


def card_of(overview: GroupOverview, label: str, visit: Visit) -> Card:
    """A group in a few facts."""
    rollout = _rollout(overview)
    runs = _versions(overview)
    known, target = len(overview.instances), overview.target.label or ""
    on_target = sum(number for version, number in runs.items() if version == target)
    state, tone = state_of(overview, rollout, on_target)
    return Card(
        app=overview.app,
        label=label,
        group=overview.name,
        group_label=overview.label,
        channel="" if overview.group is None else overview.group.channel,
        target=target,
        state=state,
        tone=tone,
        on_target=on_target,
        known=known,
        serving=sum(one.serving for one in overview.alive.values()),
        bars=bars_of(runs, target),
        words=overview.rollout if rollout is not None and rollout.finished is None else "",
        ends=_ends(overview, visit),
        attention=attention_of(overview, label, visit),
    )


def _rollout(overview: GroupOverview) -> RolloutNow | None:
    if overview.snapshot is None or overview.snapshot.wanted is None:
        return None
    return shown(overview.snapshot)


def _versions(overview: GroupOverview) -> Counter[str]:
    """Version -> instances that run it, as their sidekicks say, else as they said last."""
    return Counter(
        one.runs or NO_VERSION
        for one in (overview.alive.get(name) or overview.rows.get(name) for name in overview.instances)
        if one is not None
    )


def bars_of(runs: Counter[str], target: str) -> tuple[Bar, ...]:
    """The versions of a group, the oldest first, by how many run each."""
    total, x = sum(runs.values()), 0
    bars: list[Bar] = []
    for shade, version in enumerate(sorted(runs, key=rank)):
        width = round(1000 * (x_end := sum(bar.count for bar in bars) + runs[version]) / total) - x
        tone: Tone = "good" if version == target else "rest"
        bars.append(Bar(version=version, count=runs[version], x=x, width=width, tone=tone, shade=shade % SHADES))
        x = round(1000 * x_end / total)
    return tuple(bars)


def rank(label: str) -> tuple[bool, Any, str]:
    """Unknown ones first, then by version; a release's label begins with its version."""
    try:
        return True, parse(label.partition(" ")[0]), label
    except ConfigError:
        return False, 0, label


def state_of(overview: GroupOverview, rollout: RolloutNow | None, on_target: int) -> tuple[str, Tone]:
    """How a group is, in a word or two."""
    if overview.problem:
        return "damaged", "bad"
    if overview.block is not None:
        return "target blocked", "bad"
    if rollout is None:
        return "no target" if overview.target.label is None else "foreign update service", "rest"
    if overview.target.paused:
        return "group paused", "held"
    if rollout.state != "running":
        return rollout.state, "bad" if rollout.state == "halted" else "held"
    if rollout.waits_for_approval:
        return "waits for approval", "held"
    if on_target == len(overview.instances):
        return "up to date", "good"
    return (
        ("updating", "busy")
        if rollout.opened or rollout.waiting or rollout.finished is None
        else ("up to date", "good")
    )


def _ends(overview: GroupOverview, visit: Visit) -> str:
    snapshot = overview.snapshot
    if snapshot is None or snapshot.wanted is None:
        return ""
    left = len(snapshot.waiting) + len(snapshot.progress.opened)
    return about(snapshot.progress, left - 1, visit.now) if left else ""


def attention_of(overview: GroupOverview, label: str, visit: Visit) -> tuple[Attention, ...]:
    """What a person must look at in a group, the most important first."""
    where = f"{label}/{overview.label}"

    def note(tone: Tone, words: str, instance: str = "") -> Attention:
        return Attention(tone=tone, where=where, words=words, app=overview.app, group=overview.name, instance=instance)

    found: list[Attention] = []
    if overview.problem:
        return (note("bad", overview.problem),)
    rollout = _rollout(overview)
    if overview.block is not None:
        found.append(
            note("bad", f"{overview.target.label} is blocked by {overview.block.instance}: {overview.block.why}")
        )
    if rollout is not None and rollout.state == "halted" and overview.block is None:
        found.append(note("bad", f"the rollout of {rollout.version} is halted{_because(rollout)}"))
    for scope in overview.scopes:
        found += [note("bad", describe_turn(scope, turn)) for turn in scope.turns if turn.state == "dirty"]
    found += [note("bad", f"{one.instance}: {line}", one.instance) for one in overview.strangers
              for line in overview.strangers_of(one.instance)[:1]]  # fmt: skip
    found += [note("bad", line) for line in overview.unable]
    found += [note("bad", f"{name}: {describe_crash(crash, visit.now)}", name) for name, crash in
              sorted(overview.crashes.items())]  # fmt: skip
    if rollout is not None and rollout.waits_for_approval:
        found.append(note("held", f"{rollout.version} waits for approval"))
    if rollout is not None and rollout.state == "paused":
        found.append(note("held", f"the rollout of {rollout.version} is paused{_because(rollout)}"))
    if overview.target.paused:
        found.append(note("held", "the group is paused"))
    away = [name for name, row in overview.rows.items() if name not in overview.alive and row.had_sidekick]
    if away:
        found.append(note("held", f"{count(len(away), 'sidekick')} offline: {some(away)}"))
    found += [note("held", line) for line in overview.tasks]
    return tuple(found)


def _because(rollout: RolloutNow) -> str:
    by = f" by {rollout.by}" if rollout.by else ""
    return f"{by}: {rollout.why}" if rollout.why else by
