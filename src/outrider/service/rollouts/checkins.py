"""A check-in of an instance: the service updates its row, records its events and answers its update check.

Events are facts, not requests: the service always acknowledges them, a repeat changes nothing, and no event is dropped
because the row was written a moment ago.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from loguru import logger

from outrider.core.architectures import architecture_of
from outrider.core.errors import ConfigError, Unknown
from outrider.core.omaha import (
    AppAnswer,
    AppRequest,
    FailureCode,
    NoUpdate,
    Offer,
    OmahaEvent,
    OmahaRequest,
    OmahaResponse,
    UpdateCheck,
    answer_app,
    failure_text,
    is_local_refusal,
)
from outrider.core.release import ReleaseId
from outrider.core.rollout import rollout
from outrider.core.rollout.policy import Defer, Grant, Verdict
from outrider.model.documents import App, Gone, Group, Happening, Instance, Presence, Product, unreadable_gone
from outrider.model.identity import UnprovedCheckin
from outrider.model.keys import check_part
from outrider.service.rollouts.batches import WAITS_S, Batch, Batches, Outcome
from outrider.service.rollouts.identity import NO_CLAIM, Claim, Standing, note_unproved, standing_of
from outrider.service.rollouts.misaddressed import OnMisaddressed
from outrider.service.rollouts.offers import codebase_of, offered
from outrider.service.rollouts.room import GroupRoom
from outrider.service.rollouts.rows import (
    MAX_HISTORY,
    MAX_WORD,
    REBOOTS,
    RUNNING,
    STATUS,
    described,
    never_ran,
    with_event,
    with_verdict,
    word,
)
from outrider.service.rollouts.syncers import answer_syncer
from outrider.service.store.changes import Change, Unaudited
from outrider.service.store.context import StoreContext, absent_app
from outrider.service.store.group_lock import GroupLock, Leases, NeedsGroupLock
from outrider.service.store.judging import judge
from outrider.service.store.recalls import end_void, recall
from outrider.service.store.snapshot import CheckingInstance, GroupSnapshot, keys_of_check, read_snapshot

CHECK_IN = Unaudited("check-in: the instance row has its own history")
UNPROVED = "error-unproved"
"""The status of a sidekick's report that did not count, because the check-in was not proved."""
PROVES_SOON_S = 15
"""When a sidekick asks again whose secret isn't, or is not yet, that of the presence."""
QUIET = timedelta(seconds=30)
"""The least time between two writes of a row in which only ``last_seen`` changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The client of a request, and the address by which it reached us.

    Attributes:
        address: The client's IP address; empty when unknown.
        base_url: The address of this service for the client, without a slash at the end; stored payloads are there.
        claim: What it brings as proof of who it is.
    """

    address: str
    base_url: str
    claim: Claim = NO_CLAIM


@dataclass(frozen=True, slots=True, kw_only=True)
class _Booked:
    """``verdict`` and the answer that follows from it; None without an update check.

    Attributes:
        is_refused: Nothing of it counts, because it was not proved.
        touched: The row, when nothing but the time at which it was seen is new, and no transaction was to write it.
    """

    verdict: Verdict | None
    check: UpdateCheck | None
    is_refused: bool = False
    touched: Instance | None = None


_Outcome = _Booked | Literal["no app", "no group"]
_Gives = Outcome[_Outcome]  # once: an annotation of a function in a function is made anew at each check-in

Told = Callable[[Callable[[], AppAnswer | None]], None]
"""Is told what gives the answer to a check-in, or raises why there is none; None: ``answer`` has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkins:
    """Answers Omaha requests; each app of a request gets its own answer.

    Attributes:
        on_verdict: Called with app, group and verdict of each update check, after the transaction.
        room: How many instances a group may have; None: any number.
        history: Events that are kept of an instance, and of one that never had a sidekick.
        on_misaddressed: Called for each check-in for an app or a group that does not exist.
    """

    context: StoreContext
    on_verdict: Callable[[str, str, Verdict], None] = lambda app, group, verdict: None
    group_lock: GroupLock = field(default_factory=GroupLock)
    batches: Batches[_Outcome] = field(default_factory=Batches)
    room: GroupRoom | None = None
    history: tuple[int, int] = (MAX_HISTORY, MAX_HISTORY)
    on_misaddressed: OnMisaddressed = lambda app, group, machine, address: None

    def answer(
        self, request: OmahaRequest, caller: Caller, is_wanted: Callable[[], bool] = lambda: True
    ) -> OmahaResponse:
        """Answer one request.

        Args:
            is_wanted: Whether the client still waits; asked before each app.

        Raises:
            Unknown: etcd gives no answer; the client may repeat the whole request.
            Throttled: the group has no room for another instance.
        """
        answers = []
        for app in request.apps:
            if not is_wanted():
                raise Unknown("the client has gone")
            answers.append(self._answer_app(request, app, caller))
        return OmahaResponse(apps=tuple(answers))

    def _answer_app(self, request: OmahaRequest, app: AppRequest, caller: Caller) -> AppAnswer:
        named = key_part("app", app.app_key)
        answer = None if named is None else self._answer_as(named, request, app, caller)
        if answer is None and named is not None:
            product = self.context.get_or_none(Product, self.context.keys.product(named))
            answer = None if product is None else self._answer_as(product.app, request, app, caller)
        if answer is not None:
            return answer
        logger.bind(app=app.app_id[:MAX_WORD], address=caller.address).warning("check-in for an unknown app")
        self.on_misaddressed(app.app_key, None, app.machine_id, caller.address)
        reason = absent_app(app.app_id[:MAX_WORD])
        return answer_app(app, NoUpdate(reason=reason), status="error-unknownApplication")

    def submit(self, request: OmahaRequest, caller: Caller, told: Told, is_wanted: Callable[[], bool]) -> bool:
        """Answer a request with a single app, as ``answer`` does, without waiting.

        Args:
            told: Called once, from another thread.
            is_wanted: Whether the client still waits; asked before anything is decided.

        Returns:
            False: this request takes the long way; nothing is told.
        """
        if request.copies or len(request.apps) != 1:
            return False
        (app,) = request.apps
        app_id, group_id = key_part("app", app.app_key), key_part("group", app.track)
        instance_id = key_part("instance", app.machine_id.strip().removeprefix("{").removesuffix("}"))
        if app_id is None or group_id is None or instance_id is None:
            return False
        checkin = self._checkin(request, app, caller, app_id, group_id, instance_id)

        def tell(outcome: _Gives) -> None:
            def answer() -> AppAnswer | None:
                booked = outcome()
                return None if isinstance(booked, str) else self._told(app_id, group_id, app, booked)

            told(answer)

        name = f"{app_id}/{group_id}"
        self.batches.submit(self.context.cluster, self.group_lock, name, checkin, CHECK_IN, tell, is_wanted, WAITS_S)
        return True

    def _checkin(
        self, request: OmahaRequest, app: AppRequest, caller: Caller, app_id: str, group_id: str, instance_id: str
    ) -> "Checkin":
        return Checkin(
            context=self.context,
            request=request,
            app=app,
            app_id=app_id,
            group_id=group_id,
            instance_id=instance_id,
            caller=caller,
            room=self.room,
            history=self.history,
        )

    def _told(self, app_id: str, group_id: str, app: AppRequest, booked: _Booked) -> AppAnswer:
        if booked.verdict is not None:
            self.on_verdict(app_id, group_id, booked.verdict)
        # A sidekick keeps a report that did not count, until its check-ins are proved (P9).
        keeps = booked.is_refused and app.release is not None and not app.update_check
        return answer_app(app, booked.check, status=UNPROVED if keeps else "ok")

    def _answer_as(self, app_id: str, request: OmahaRequest, app: AppRequest, caller: Caller) -> AppAnswer | None:
        """The answer for the app with this id; None when there is no such app."""
        group_id = key_part("group", app.track)
        instance_id = key_part("instance", app.machine_id.strip().removeprefix("{").removesuffix("}"))
        if group_id is None or instance_id is None:
            if self.context.cluster.get(self.context.keys.app(app_id)) is None:
                return None
            if group_id is None or self.context.cluster.get(self.context.keys.group(app_id, group_id)) is None:
                return self._without_group(app_id, app, caller)
            return answer_app(
                app, NoUpdate(reason=f"machineid {app.machine_id[:MAX_WORD]!r} is not a valid instance name")
            )
        if request.copies:
            copied = answer_syncer(self.context, app_id, group_id, request, app, caller.base_url)
            if copied is not None:
                return answer_app(app, copied if app.update_check else None)
        checkin = self._checkin(request, app, caller, app_id, group_id, instance_id)
        outcome = self.batches.book(self.context.cluster, self.group_lock, f"{app_id}/{group_id}", checkin, CHECK_IN)
        match outcome:
            case "no app":
                return None
            case "no group":
                return self._without_group(app_id, app, caller)
            case _:
                return self._told(app_id, group_id, app, outcome)

    def _without_group(self, app_id: str, app: AppRequest, caller: Caller) -> AppAnswer:
        logger.bind(app=app_id, group=app.track[:MAX_WORD], address=caller.address).warning(
            "check-in for an unknown group"
        )
        self.on_misaddressed(app_id, app.track, app.machine_id, caller.address)
        return answer_app(app, NoUpdate(reason=f"app {app_id} has no group {app.track[:MAX_WORD]!r}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkin:
    """One app of a request, by one instance of one group.

    Attributes:
        alone: No other instance is looked at (``quick.py``); then not every verdict counts.
    """

    context: StoreContext
    request: OmahaRequest
    app: AppRequest
    app_id: str
    group_id: str
    instance_id: str
    caller: Caller
    room: GroupRoom | None
    history: tuple[int, int]
    alone: bool = False

    @property
    def keys(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The keys that most check-ins need, and those of which only the existence counts."""
        keys = self.context.keys
        shared = keys_of_check(self.context, self.app_id, self.group_id, self.instance_id)
        presence = keys.presence(self.app_id, self.group_id, self.instance_id)
        own = keys.instance(self.app_id, self.instance_id), keys.gone(self.app_id, self.instance_id)
        return (*own, *shared), (keys.app(self.app_id), presence)

    @property
    def seen(self) -> tuple[int, str]:
        """What the client has seen of etcd."""
        return self.request.seen_revision, self.request.seen_epoch

    @property
    def own_keys(self) -> tuple[str, ...]:
        """The keys of this instance alone."""
        keys, app, group, instance = self.context.keys, self.app_id, self.group_id, self.instance_id
        return (
            keys.instance(app, instance),
            keys.gone(app, instance),
            keys.presence(app, group, instance),
            keys.grant(app, group, instance),
            keys.deferral(app, group, instance),
        )

    def book(self, change: Change, leases: Leases) -> _Outcome:
        """Decide alone in a change; see ``book_in``.

        Raises:
            NeedsGroupLock: the rollout changes, and this thread doesn't hold the group lock.
        """
        batch = Batch(change)
        outcome = self.book_in(batch)
        if any(one.has_changed for one in batch.snapshots.values()) and not leases.has_group_lock:
            raise NeedsGroupLock
        batch.write()
        return outcome

    def book_in(self, batch: Batch) -> _Outcome:
        """Update the row, record the events and judge the update check; the batch writes the rollout."""
        change, context = batch.change, batch.context(self.context)
        keys, now, app = self.context.keys, self.context.now(), self.app
        key, app_key = keys.instance(self.app_id, self.instance_id), keys.app(self.app_id)
        presence_key = keys.presence(self.app_id, self.group_id, self.instance_id)
        first, only_existing = self.keys
        change.fetch(*first, only_existing=only_existing)
        if change.read(App, app_key) is None:
            return "no app"
        group = change.read(Group, keys.group(self.app_id, self.group_id))
        if group is None:
            return "no group"
        gone_key = keys.gone(self.app_id, self.instance_id)
        gone = change.read_or_none(Gone, gone_key)
        if gone is None and change.exists(gone_key):  # a marker that can't be read still keeps it out (P12)
            gone = unreadable_gone(self.app_id, self.group_id, self.instance_id, now)
        if gone is not None:
            return self._refused(change, gone, now)
        old = change.read_or_none(Instance, key)  # a row that can't be read is written anew
        standing = standing_of(context, change, self.caller.claim, group, self.instance_id, old)
        if standing.refusal:
            return self._unproved(change, group, standing, now)
        row = old or Instance(
            app=self.app_id, id=self.instance_id, group=self.group_id, version="", first_seen=now, last_seen=now
        )
        has_sidekick = row.had_sidekick or change.entry(presence_key) is not None
        if (has_sidekick and not row.had_sidekick) or (standing.proved and not row.proved):
            row = msgspec.structs.replace(row, had_sidekick=has_sidekick, proved=row.proved or standing.proved)
        if self.room is not None and (old is None or old.group != self.group_id):
            self.room.take(self.app_id, self.group_id, is_stranger=row.is_stranger)
        ran_before = row.release or row.version
        if row.group != self.group_id:
            self._leave(batch, row.group)
        row = described(row, app, arch=self._arch, group=self.group_id, address=self.caller.address)
        presence = change.read_or_none(Presence, presence_key)
        if presence is not None and presence.labels != row.labels:
            row = msgspec.structs.replace(row, labels=presence.labels)
        row, results = self._with_events(row, ran_before, now)
        verdict: Verdict | None = None
        check: UpdateCheck | None = None
        if app.update_check or results:
            snapshot = self._snapshot(batch, self.group_id)
            assert snapshot is not None, "the group was read in this change"
            snapshot.settle()
            for result in results:
                result.apply(snapshot, self.instance_id)
            if app.update_check:
                row, verdict = self._judged(snapshot, row, proved=standing.proved)
                check = _answered(verdict, snapshot, self.caller, speaks_of_releases=self.app.release is not None)
        touched: Instance | None = None
        if old is None or row != old or now - old.last_seen >= QUIET:
            seen = msgspec.structs.replace(row, last_seen=now)
            if self.alone and old is not None and row == old:
                touched = seen
            else:
                change.put(key, seen)
        return _Booked(verdict=verdict, check=check, touched=touched)

    def _unproved(self, change: Change, group: Group, standing: Standing, now: datetime) -> _Booked:
        one = UnprovedCheckin(instance=self.instance_id, address=self.caller.address, last=now)
        note_unproved(self.context, change, group, one, known=standing.is_protected)
        # a sidekick that has just lost its lease writes its presence again: nobody wakes it for that
        again_s = PROVES_SOON_S if self.caller.claim.secret else None
        check = NoUpdate(reason=standing.refusal, poll_interval_s=again_s) if self.app.update_check else None
        return _Booked(verdict=None, check=check, is_refused=True)

    def _snapshot(self, batch: Batch, group: str) -> GroupSnapshot | None:
        snapshot = batch.snapshots.get(group)
        if snapshot is not None:
            snapshot.look_at(self.instance_id)
            return snapshot
        checking = self.instance_id
        context = batch.context(self.context)
        snapshot = read_snapshot(context, batch.change, self.app_id, group, checking=checking, alone=self.alone)
        if snapshot is not None:
            batch.snapshots[group] = snapshot
        return snapshot

    def _refused(self, change: Change, gone: Gone, now: datetime) -> _Booked:
        """Who was removed for good gets nothing, and has no row; that it called is noted for ``outrider why``."""
        if gone.seen_again is None or now - gone.seen_again >= QUIET:
            change.put(
                self.context.keys.gone(self.app_id, self.instance_id), msgspec.structs.replace(gone, seen_again=now)
            )
        return _Booked(verdict=None, check=NoUpdate(reason=gone.words) if self.app.update_check else None)

    @property
    def _arch(self) -> str:
        return architecture_of(self.app.board, self.request.arch, self.request.service_pack)

    def _with_events(self, row: Instance, ran_before: str, now: datetime) -> tuple[Instance, list["_Result"]]:
        results, status_of = [], REBOOTS if self.request.reboots else STATUS
        for event in self.app.events:
            line = Happening(
                at=now,
                version=word(self.app.version),
                event=event.code,
                error_code=event.error_code,
                request_id=word(self.request.request_id),
                release="" if self.app.release is None or self.app.release.is_plain else self.app.release.label,
            )
            status = row.status
            row = with_event(row, event, line, ran_before, self.history[1 if row.is_stranger else 0], status_of)
            if row.status in ("complete", "error") and (
                row.status != status or row.status == status_of.get(event.code)
            ):
                runs = row.release or line.version
                results.append(_Result(event=event, runs=runs, failed=row.status == "error"))
        return row, results

    def _judged(self, snapshot: GroupSnapshot, row: Instance, *, proved: bool) -> tuple[Instance, Verdict]:
        checking = CheckingInstance(
            instance=self.instance_id,
            running=self.app.version,
            runs="" if self.app.release is None else _as_known(self.app.release, snapshot),
            arch=row.arch,
            prefix=word(self.app.target_version_prefix),
            rollback_allowed=self.app.rollback_allowed,
            rollback_forbidden=self.app.rollback_forbidden,
            takes_turns=self.app.takes_turns,
            proved=proved,
            is_new=never_ran(row, self.app.version),
        )
        opened = snapshot.progress.opened_for(checking.instance)
        if opened is not None and opened.version == (checking.runs or checking.running):
            # A client that never reports finishes here: it checks in with the granted version.
            snapshot.end(checking.instance, "succeeded")
        end_void(snapshot, checking.instance)
        recall(snapshot, checking.instance)
        verdict = judge(snapshot, checking)
        match verdict:
            case Grant(standing=False):
                snapshot.grant(checking, verdict)
            case Defer(pending=pending, by=by):
                if by == "approval":
                    snapshot.progress = rollout.asked(snapshot.progress, snapshot.now)
                # It checks in, so it does not update now: its place is free for others.
                snapshot.end(checking.instance, "withdrawn")
                if pending:
                    snapshot.defer(checking)
                else:
                    snapshot.end_deferral(checking.instance)
        if isinstance(verdict, Grant) and checking.takes_turns:
            snapshot.record(verdict)
        return with_verdict(row, verdict, snapshot.now), verdict

    def _leave(self, batch: Batch, group_id: str) -> None:
        """The instance has changed its group: end its grant and its deferral in the old one."""
        snapshot = self._snapshot(batch, group_id)
        if snapshot is not None:
            snapshot.end(self.instance_id, "withdrawn")
            snapshot.end_deferral(self.instance_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """An event that ends an update. ``runs``: what the instance reports that it runs."""

    event: OmahaEvent
    runs: str
    failed: bool

    def apply(self, snapshot: GroupSnapshot, instance: str) -> None:
        """Record the result in the rollout, unless the event belongs to another update than the granted one."""
        opened, meant = snapshot.progress.opened_for(instance), self.event.next_release
        if opened is not None and meant and meant != opened.version:
            return
        if is_local_refusal(self.event):
            snapshot.end(instance, "refused")
        elif self.failed and self.event.error_code == FailureCode.UNDECIDED:
            snapshot.end(instance, "withdrawn")  # it was tried, and nothing was found out about the release
        elif self.failed:
            snapshot.end(instance, "failed", error=failure_text(self.event.error_code))
        elif opened is not None and self.event.code == RUNNING and self.runs != opened.version:
            snapshot.end(instance, "withdrawn")
        else:
            snapshot.end(instance, "succeeded")


def _as_known(release: ReleaseId, snapshot: GroupSnapshot) -> str:
    """The label of what an instance runs, told apart from the group's when their environments share only a number.

    That is so after the group was made anew, or etcd was restored.
    """
    target = None if snapshot.target is None else snapshot.target.release
    is_another = (
        target is not None
        and release.environment == target.environment
        and release.environment_digest != target.environment_digest
    )
    return f"{release.label} of another group" if is_another else release.label


def _answered(verdict: Verdict, snapshot: GroupSnapshot, caller: Caller, *, speaks_of_releases: bool) -> UpdateCheck:
    if isinstance(verdict, Defer):
        return NoUpdate(reason=verdict.reason)
    package = snapshot.package(verdict.package_version)
    assert package is not None, "a grant comes with its package"
    release = snapshot.granted_release(verdict) if speaks_of_releases else None
    return Offer(
        version=package.version,
        release=release,
        codebases=(codebase_of(package, package.app, caller.base_url),),
        packages=offered(package),
    )


def key_part(what: str, text: str) -> str | None:
    try:
        return check_part(what, text)
    except ConfigError:
        return None
