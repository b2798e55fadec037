"""The state of a group: its sidekicks, its turns, and why an instance doesn't update (P7).

The state is read directly from etcd, so these commands work without the update service and beside a foreign one.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.core.omaha import FailureCode, failure_text
from outrider.core.release import ReleaseId
from outrider.core.rollout.ends import (
    BEGIN_ENDS,
    BUDGET_ENDS,
    ENDS,
    IDENTITY_ENDS,
    OFFLINE_ENDS,
    TASK_BLOCK_ENDS,
    filled_in,
)
from outrider.core.rollout.policy import Defer, Grant, Verdict
from outrider.core.rollout.slots import TurnState, line, turns
from outrider.model.damage import read_or_none, readable
from outrider.model.documents import (
    Block,
    Command,
    Contender,
    Crash,
    Gone,
    Group,
    Instance,
    Presence,
    Stranger,
    Target,
    decode,
)
from outrider.model.identity import UnprovedCheckins
from outrider.model.keys import group_scope, shared_scope
from outrider.service.rollouts.waits import (
    about,
    about_interval,
    again,
    begin_before,
    closing,
    doing,
    in_state,
    length,
    state_ends,
)
from outrider.service.store.changes import Change
from outrider.service.store.context import StoreContext, absent_app, app_id_of, direct
from outrider.service.store.judging import judge
from outrider.service.store.rollouts import shown, unable
from outrider.service.store.snapshot import CheckingInstance, GroupSnapshot, read_snapshot
from outrider.service.store.task_states import words_of_others
from outrider.turns.budgets import read_budgets, taken_budgets
from outrider.turns.turns import read_contenders, read_scope

ENDS_WITH = "ends: "
"""What the lines begin with that say what ends a wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeOverview:
    """The turns of one scope, as a group sees them. Instances of other apps are named ``APP/INSTANCE``.

    Attributes:
        shared: Name of the scope that an operator named; empty: the group's own.
        slots: How many turns the group's instances let there be.
        turns: One per slot, and those beyond the slots that still exist.
        queue: Instances that wait for a turn, the next one first.
        members: Those in ``turns`` and ``queue`` that are of the group.
        release: The command that frees a turn of it, without the slot's number.
        stuck: Instances with a dirty turn whose sidekicks live -> what these wait for.
        held: Instances that wait for a turn and that a disruption budget holds -> why.
        budgets: Slots of budgets that are taken: ``rack=3`` -> instances.
        doing: What the group's living instances do: ``draining, 12s of at most 30s``.
    """

    shared: str
    slots: int
    turns: tuple[TurnState, ...]
    queue: tuple[str, ...]
    members: frozenset[str]
    release: str
    stuck: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    budgets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    doing: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """`` of scope NAME`` where it isn't the group's own."""
        return f" of scope {self.shared}" if self.shared else ""

    @property
    def of_the_group(self) -> tuple[TurnState, ...]:
        """The turns that count as the group's: its own scope's, and in one with others what its instances hold."""
        return tuple(turn for turn in self.turns if not self.shared or turn.instance in self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOverview:
    """A group with everything that decides what its instances do.

    Attributes:
        group: None when only sidekicks know it (they use another update service).
        block: Why the target is blocked; None when it isn't.
        alive: Sidekicks with a lease, by instance.
        rows: Instances that ever checked in, by instance.
        scopes: Where the group's instances take turns.
        snapshot: The rollout, and the instances that the policy defers; None without a group.
        problem: Why the rest can't be known: a document of the group can't be read. Empty when all can.
        crashes: What sidekicks of the group died of lately, by instance.
        strangers: Living sidekicks that may not be the instances that they say they are.
        tasks: What is to be said of the tasks that follow its rollouts and aren't done.
        unproved: Check-ins that changed nothing, because they were not proved.
    """

    app: str
    name: str
    group: Group | None
    target: Target
    block: Block | None
    alive: dict[str, Presence]
    rows: dict[str, Instance]
    scopes: tuple[ScopeOverview, ...]
    snapshot: GroupSnapshot | None = None
    problem: str = ""
    crashes: Mapping[str, Crash] = field(default_factory=dict)
    strangers: tuple[Stranger, ...] = ()
    tasks: tuple[str, ...] = ()
    unproved: UnprovedCheckins | None = None

    def unproved_as(self, instance: str, now: datetime) -> tuple[str, ...]:
        """What was said lately in the instance's name without proof, in a line; empty when nothing was."""
        one = None if self.unproved is None else self.unproved.of(instance, now)
        if one is None:
            return ()
        times = "" if one.count == 1 else f" {one.count} times, last"
        when, where = f"{ago(one.last, now)} ago", one.address or "an unknown address"
        return (f"unproved check-in as {instance}{times} {when} from {where}: it got no update and changed nothing",)

    def strangers_of(self, instance: str) -> tuple[str, ...]:
        """One line for each stranger that says that it is the instance."""
        return tuple(
            f"a sidekick on {one.machine or 'an unknown machine'} may not be {instance}: {one.why}"
            for one in self.strangers
            if one.instance == instance
        )

    def labels_of(self, instance: str) -> Mapping[str, str]:
        """Of an instance: as its sidekick says now, else as they were at its last check-in."""
        presence, row = self.alive.get(instance), self.rows.get(instance)
        return presence.labels if presence is not None else row.labels if row is not None else {}

    @property
    def label(self) -> str:
        """Its name for people; its id when it has no other."""
        return self.name if self.group is None else self.group.label or self.name

    @property
    def titled(self) -> str:
        """Its id, with its name for people when that is another one."""
        return self.name if self.group is None else self.group.titled

    @property
    def rollout(self) -> str:
        """Progress of the rollout in one line; empty without a release."""
        if self.snapshot is None or self.snapshot.wanted is None:
            return ""
        now = shown(self.snapshot)
        by, why = (f" by {now.by}" if now.by else ""), (f": {now.why}" if now.why else "")
        counts = [f"{now.succeeded} done"]
        counts += [
            f"{len(some)} {what}"
            for some, what in ((now.opened, "under way"), (now.failures, "failed"), (now.waiting, "deferred"))
            if some
        ]
        over = now.state == "running" and now.finished is not None
        state = f"finished {ago(now.finished, self.snapshot.now)} ago" if over and now.finished else now.state
        at_wave = [now.wave_words] if now.wave_words and now.why != now.wave_words else []
        return f"rollout of {now.version}: {state}{by}{why}; {', '.join([*counts, *self.unable, *at_wave])}"

    @property
    def unable(self) -> tuple[str, ...]:
        """``1 machine cannot take 3.0.0: web-2: /var is mounted noexec``; empty when all can."""
        names = unable([self.alive[name] for name in sorted(self.alive)], self.target.label)
        if not names:
            return ()
        return (f"{count(len(names), 'machine')} cannot take {self.target.label}: {'; '.join(names)}",)

    @property
    def instances(self) -> tuple[str, ...]:
        """Every instance that is alive or known, by name."""
        return tuple(sorted({*self.alive, *self.rows, *self.crashes, *(one.instance for one in self.strangers)}))


def read_overviews(context: StoreContext, app: str, group: str | None = None) -> tuple[GroupOverview, ...]:
    """Read an app's groups, or one of them.

    Raises:
        NotFound: neither the service nor a living sidekick knows the app, or the group.
    """
    app_id, keys = app_id_of(app), context.keys
    entries = direct(context.cluster.list(keys.groups(app_id)).entries, keys.groups(app_id))
    groups = {one.id: one for _, one in readable(Group, entries)}
    damaged = {entry.key.removeprefix(keys.groups(app_id)) for entry in entries} - set(groups)
    rows = context.children(Instance, keys.instances(app_id))
    alive = context.all_below(Presence, keys.presences(app_id))
    crashes = context.children(Crash, keys.crashes(app_id))
    strangers = context.all_below(Stranger, keys.strangers(app_id))
    living = {one.group for one in alive} | {one.group for one in strangers}
    known = {row.group for row in rows} | {one.group for one in crashes}
    names = sorted({*groups, *damaged} | living | known)
    if group is not None and group not in names:
        raise NotFound(f"app {app_id} has no group {group!r}; its groups: {', '.join(names) or 'none'}")
    if not names and context.cluster.get(keys.app(app_id)) is None:
        raise NotFound(absent_app(app))
    sharing = read_contenders(context.cluster, keys, keys.all_shared_turns()).known
    found = []
    for name in (each for each in names if group is None or each == group):
        try:
            if name in damaged:
                raise Conflict(f"{keys.groups(app_id)}{name}: the group's document can't be read")
            found.append(_read(context, app_id, name, groups.get(name), alive, rows, sharing))
        except Conflict as error:  # of this group alone
            found.append(_damaged(app_id, name, alive, rows, str(error)))
    return tuple(
        replace(
            one,
            crashes={crash.instance: crash for crash in crashes if crash.group == one.name},
            strangers=tuple(stranger for stranger in strangers if stranger.group == one.name),
        )
        for one in found
    )


def _damaged(
    app_id: str, name: str, alive: Iterable[Presence], rows: Iterable[Instance], problem: str
) -> GroupOverview:
    """What is known of a group of which a document can't be read: its instances."""
    return GroupOverview(
        app=app_id,
        name=name,
        group=None,
        target=Target(version=None),
        block=None,
        alive={one.instance: one for one in alive if one.group == name},
        rows={row.id: row for row in rows if row.group == name},
        scopes=(),
        problem=problem,
    )


def _read(
    context: StoreContext,
    app_id: str,
    name: str,
    group: Group | None,
    alive: Iterable[Presence],
    rows: Iterable[Instance],
    sharing: Iterable[Contender],
) -> GroupOverview:
    keys = context.keys
    target = context.get(Target, keys.target(app_id, name)) or Target(version=None)
    ours = {one.instance: one for one in alive if one.group == name}
    shared = {one.shared_scope for one in ours.values()}
    shared |= {one.shared_scope for one in sharing if (one.app, one.group) == (app_id, name)}
    words = {one.instance: one.why for one in ours.values()}
    busy = doing(ours, context.now())
    own = _scope(context, app_id, name, "", target.slots, words, busy)
    scopes = [_scope(context, app_id, name, one, target.slots, words, busy) for one in sorted(shared - {""})]
    if not scopes or "" in shared or own.queue or any(turn.state != "free" for turn in own.turns):
        scopes.insert(0, own)
    return GroupOverview(
        app=app_id,
        name=name,
        group=group,
        target=target,
        block=None if target.release is None else _block(context, app_id, name, target.release),
        alive=ours,
        rows={row.id: row for row in rows if row.group == name},
        scopes=tuple(scopes),
        snapshot=None if group is None else read_snapshot(context, Change(context.cluster), app_id, name),
        tasks=words_of_others(context, app_id, name),
        unproved=context.get_or_none(UnprovedCheckins, keys.unproved(app_id, name)),
    )


def _block(context: StoreContext, app_id: str, group: str, release: ReleaseId) -> Block | None:
    """The block of a release. One that can't be read still blocks (P5)."""
    key = context.keys.block(app_id, release.key(group))
    entry = context.cluster.get(key)
    if entry is None:
        return None
    unreadable = Block(
        version=release.version, sha256="", instance="(unknown)", why="the document can't be read", at=context.now()
    )
    return read_or_none(Block, key, entry.value) or unreadable


def _scope(
    context: StoreContext,
    app: str,
    group: str,
    shared: str,
    slots: int,
    words: Mapping[str, str],
    busy: Mapping[str, str],
) -> ScopeOverview:
    scope = read_scope(context.cluster, context.keys, shared_scope(shared) if shared else group_scope(app, group))
    contenders: dict[str, Contender] = {stored.slot.member: stored.slot for stored in scope.slots.values()}
    for member, entry in scope.queue.items():
        with suppress(Conflict):  # another outrider's: then only its name is known
            contenders.setdefault(member, decode(Contender, entry.key, entry.value))
    names = {member: one.instance if one.app == app else member for member, one in contenders.items()}
    states = tuple(
        replace(turn, instance=names[turn.instance]) if turn.instance is not None else turn
        for turn in turns(scope.waiting, scope.holding, slots)
    )
    dirty = {turn.instance for turn in states if turn.state == "dirty"}
    return ScopeOverview(
        shared=shared,
        slots=slots,
        turns=states,
        queue=tuple(names.get(each.instance, each.instance) for each in line(scope.waiting, scope.holding)),
        members=frozenset(names[member] for member, one in contenders.items() if (one.app, one.group) == (app, group)),
        release=f"outrider lock release {f'--scope {shared}' if shared else f'{app} {group}'} --slot",
        stuck={name: why for name, why in words.items() if name in dirty and why},
        held={
            names.get(member, member): why
            for member, why in read_budgets(context.cluster, context.keys, scope).held.items()
            if member not in {stored.slot.member for stored in scope.slots.values()}
        },
        budgets=taken_budgets(scope),
        doing=busy,
    )


def explain(context: StoreContext, app: str, instance: str) -> tuple[str, ...]:
    """Explain the state of an instance in lines for a person, the most important first.

    Raises:
        NotFound: the app or the instance is unknown.
    """
    for overview in read_overviews(context, app):
        if instance in overview.instances:
            command = context.get_or_none(Command, context.keys.command(overview.app, instance))
            return explain_in(overview, instance, command, context.now())
    gone = context.get(Gone, context.keys.gone(app_id_of(app), instance))
    if gone is not None:
        again = f"; it checked in {ago(gone.seen_again, context.now())} ago" if gone.seen_again is not None else ""
        return (f"{gone.words}{again}",)
    raise NotFound(
        f"app {app_id_of(app)} has no instance {instance!r}; `outrider status {app_id_of(app)}` lists its instances"
    )


def explain_in(overview: GroupOverview, instance: str, command: Command | None, now: datetime) -> tuple[str, ...]:
    """As ``explain``, from what was read."""
    presence, row = overview.alive.get(instance), overview.rows.get(instance)
    lines = [
        *_where(instance, overview, presence, row, now),
        *_turn(instance, overview, now),
        *_service(instance, overview, presence, row, now),
        *overview.tasks,
    ]
    if row is not None and row.status == "error":
        lines.append(f"last update failed: {_failure(instance, overview, row)}")
    lines += overview.unproved_as(instance, now)
    if command is not None:
        by = f" by {command.by}" if command.by else ""
        lines.append(
            f"{command.verb} requested{by} {ago(command.at, now)} ago; it takes effect when the sidekick connects"
        )
    return tuple(lines)


CANNOT_BEGIN = "machine cannot begin"
"""What a sidekick needs before its first step is away."""


def called(overview: GroupOverview, instance: str) -> str:
    """How the first line of an instance begins."""
    return f"{instance} of {overview.app}, group {overview.titled}"


def _where(
    instance: str, overview: GroupOverview, presence: Presence | None, row: Instance | None, now: datetime
) -> list[str]:
    name = called(overview, instance)
    crash = overview.crashes.get(instance)
    if crash is None:
        crashed = []
    elif crash.cannot_begin:
        crashed = [describe_crash(crash, now), f"{ENDS_WITH}{BEGIN_ENDS}"]
    else:
        crashed = [f"{describe_crash(crash, now)}; its log has the traceback"]
    if presence is not None:
        wanted = f", target {presence.wants}" if presence.wants and presence.wants != presence.runs else ""
        lines = [f"{name}: {presence.state} for {in_state(presence, now)}, running {presence.runs}{wanted}"]
        # A deferred instance's own reason is that of its last check-in; the present one comes further down.
        if presence.why and not current_reason(overview, instance):
            lines.append(f"reason: {presence.why}")
            ends = filled_in(state_ends(presence), overview.app, overview.name, instance)
            lines += [f"{ENDS_WITH}{ends}"] if ends else []
            lines += [when] if (when := again(presence, now)) else []
        lines += [f"notice: {presence.notice}"] if presence.notice else []
        return [*lines, *overview.strangers_of(instance), *crashed]
    if overview.strangers_of(instance):
        return [f"{name}: no sidekick is known as this instance", *overview.strangers_of(instance), *crashed]
    if row is None:
        begins = [] if crash is not None and crash.cannot_begin else [f"{ENDS_WITH}{OFFLINE_ENDS}"]
        return [f"{name}: sidekick offline; it has never checked in", *crashed, *begins]
    seen = f"last check-in {ago(row.last_seen, now)} ago: running {row.runs or 'no version'}, status {row.status}"
    return [f"{name}: sidekick offline; {seen}", *crashed]


def describe_crash(crash: Crash, now: datetime) -> str:
    """``sidekick ended unexpectedly 3 times, last 12s ago in idle.waiting: KeyError: 'x' (loop.py:71)``.

    Of one that can't begin: ``machine cannot begin: Docker does not answer (tried 3 times, last 12s ago)``.
    """
    if crash.cannot_begin:
        tried = "tried" if crash.count == 1 else f"tried {crash.count} times, last"
        return f"{CANNOT_BEGIN}: {crash.what} ({tried} {ago(crash.at, now)} ago)"
    times = "" if crash.count == 1 else f" {crash.count} times, last"
    return f"sidekick ended unexpectedly{times} {ago(crash.at, now)} ago in {crash.state}: {crash.what}"


def _failure(instance: str, overview: GroupOverview, row: Instance) -> str:
    """What the instance itself said of the release if it blocked it, else what its error code stands for."""
    block = overview.block
    if block is not None and block.instance == instance and row.error_code == FailureCode.ROLLED_BACK:
        return f"{block.why} (error code {row.error_code})"
    return failure_text(row.error_code or 0)


def _turn(instance: str, overview: GroupOverview, now: datetime) -> list[str]:
    return [each for scope in overview.scopes for each in _turn_in(instance, scope, overview, now)]


def _turn_in(instance: str, scope: ScopeOverview, overview: GroupOverview, now: datetime) -> list[str]:
    """Nothing where the instance neither holds a turn nor waits for one."""
    mine = next((turn for turn in scope.turns if turn.instance == instance), None)
    if mine is not None:
        return [with_remedy(scope, mine)]
    if instance not in scope.queue:
        return []
    ahead = scope.queue[: scope.queue.index(instance)]
    position = f"{len(ahead)} ahead of it: {', '.join(ahead)}" if ahead else "first in the queue"
    lines = [
        f"waiting for {'the turn' if scope.slots == 1 else f'one of {scope.slots} turns'}{scope.where}; {position}"
    ]
    if instance in scope.held:
        lines.append(f"held by {scope.held[instance]}")
        lines.append(f"{ENDS_WITH}{filled_in(BUDGET_ENDS, overview.app, overview.name)}")
    lines += [with_remedy(scope, turn) for turn in scope.turns if turn.state != "free"]
    if overview.snapshot is not None:
        policy, progress = overview.snapshot.policy, overview.snapshot.progress
        lines += filter(None, (begin_before(overview.snapshot, instance), closing(policy, now)))
        lines += filter(None, (about(progress, len(ahead), now),))
    return lines


def describe_turn(scope: ScopeOverview, turn: TurnState) -> str:
    """``turn 1 of 2: held by web-1``. Turns are counted from 1; the command that frees one takes the slot's number."""
    surplus = " (surplus)" if turn.surplus else ""
    name = f"turn {turn.number + 1} of {scope.slots}{scope.where}{surplus}"
    if turn.state == "held":
        return f"{name}: held by {turn.instance}"
    if stuck := scope.stuck.get(turn.instance or ""):
        return f"{name}: dirty, kept by {turn.instance}: {stuck}"
    return f"{name}: left behind by a crashed sidekick ({turn.instance})"


def with_remedy(scope: ScopeOverview, turn: TurnState) -> str:
    """``describe_turn``, with what its holder does; of a dirty turn with what ends it."""
    if turn.state == "held":
        busy = scope.doing.get(turn.instance or "")
        return f"{describe_turn(scope, turn)}{f' ({busy})' if busy else ''}"
    if turn.instance in scope.stuck:
        return (
            f"{describe_turn(scope, turn)}; `outrider instance retry` tries again, `outrider instance rollback --to`"
            f" takes an older version, and `{scope.release} {turn.number}` frees the turn for other instances"
        )
    return (
        f"{describe_turn(scope, turn)}; it stays taken until that sidekick connects again, or"
        f" `{scope.release} {turn.number}` frees it"
    )


def count(number: int, noun: str) -> str:
    """``1 turn``, ``2 turns``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _service(
    instance: str, overview: GroupOverview, presence: Presence | None, row: Instance | None, now: datetime
) -> list[str]:
    snapshot = overview.snapshot
    if overview.problem:
        return [overview.problem]
    verdict = verdict_of(overview, instance)
    if snapshot is None or verdict is None:
        return []
    if isinstance(verdict, str):
        return [verdict]
    ahead = [one.instance for one in snapshot.waiting]
    waiting = next((one for one in snapshot.waiting if one.instance == instance), None)
    if isinstance(verdict, Grant):
        opened = snapshot.progress.opened_for(instance)
        if verdict.standing and opened is not None:
            lines = [f"update to {verdict.version} granted {ago(opened.at, now)} ago"]
        else:
            lines = [f"update to {verdict.version} available at the next check-in"]
    elif waiting is None:
        lines = [verdict.reason]
    else:
        before = ahead.index(instance)
        position = f"{before} ahead of it" if before else "first in line"
        lines = [f"deferred for {ago(waiting.deferred.since, now)}: {verdict.reason}; {position}"]
        lines += filter(None, (about_interval(verdict, snapshot.policy, before, now),))
    if isinstance(verdict, Defer) and verdict.by != "current":
        is_tasks = verdict.by == "blocked" and overview.block is not None and bool(overview.block.task)
        ends = TASK_BLOCK_ENDS if is_tasks else ENDS[verdict.by]
        lines.append(f"{ENDS_WITH}{filled_in(ends, overview.app, overview.name, instance)}")
    if waiting is not None and waiting.deferred.woken_at is not None:
        lines.append(f"woken {ago(waiting.deferred.woken_at, now)} ago; no check-in since then")
    if not isinstance(verdict, Defer) or verdict.pending:
        lines.append(overview.rollout)
    return lines


def verdict_of(overview: GroupOverview, instance: str) -> Verdict | str | None:
    """What the policy says of an instance now.

    Returns:
        A text where it can't be judged: why, and what ends that. None where nobody judges it: the update service
        doesn't know the group, or not what the instance runs.
    """
    presence, row, snapshot = overview.alive.get(instance), overview.rows.get(instance), overview.snapshot
    running = presence.version if presence else row.version if row else None
    if snapshot is None or running is None:
        return None
    if presence is None and row is not None and not snapshot.group.counts(row):
        asks = f"group {overview.name} asks for proved check-ins, and none of this instance was proved"
        return f"{asks}; {ENDS_WITH}{IDENTITY_ENDS}"
    waiting = next((one for one in snapshot.waiting if one.instance == instance), None)
    known = waiting.checking if waiting is not None else CheckingInstance(instance=instance, running=running)
    runs = presence.release if presence else row.release if row else ""
    checking = replace(known, running=running, runs=runs, arch=known.arch or (row.arch if row else ""))
    try:
        return judge(snapshot, checking)
    except (Conflict, ConfigError) as error:
        return f"the update service cannot judge it: {error}"


def current_reason(overview: GroupOverview, instance: str) -> str:
    """Why a deferred instance waits now; its sidekick knows only the answer to its last check-in. Else empty."""
    snapshot, presence = overview.snapshot, overview.alive.get(instance)
    waiting = [] if snapshot is None else [one for one in snapshot.waiting if one.instance == instance]
    if snapshot is None or not waiting or presence is None or presence.state.partition(".")[0] != "idle":
        return ""
    verdict = judge(snapshot, replace(waiting[0].checking, running=presence.version, runs=presence.release))
    return verdict.reason if isinstance(verdict, Defer) else f"{verdict.version} may be granted now"


def ago(then: datetime, now: datetime) -> str:
    """An age for people: ``7s``, ``12m``, ``5h``, ``3d``."""
    return length(now - then)
