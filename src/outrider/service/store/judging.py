"""Whether an instance may update now, by a snapshot of its group."""

from dataclasses import replace

from outrider.core.architectures import ANY
from outrider.core.rollout import waves
from outrider.core.rollout.policy import Defer, Grant, Situation, Verdict, decide, destination
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.rollout import Progress
from outrider.core.versions import NOTHING
from outrider.model.documents import Package
from outrider.service.store.checking import CheckingInstance
from outrider.service.store.group_snapshot import GroupSnapshot, keys_of_release
from outrider.service.store.task_states import standstill_in

STANDSTILLS = frozenset({"blocked", "paused", "rollout", "approval", "waves"})
"""Rules that may keep a group where it is for a long time: a new machine gets what the group serves meanwhile."""


def judge(snapshot: GroupSnapshot, checking: CheckingInstance, *, reserved: tuple[str, ...] | None = None) -> Verdict:
    """Decide whether it may update now. ``reserved``: replaces the snapshot's own list of reservations."""
    return judge_in(
        snapshot,
        checking,
        progress=snapshot.progress,
        policy=snapshot.policy,
        standing=_standing(snapshot, checking.instance),
        reserved=snapshot.reserved(checking) if reserved is None else reserved,
        living=frozenset(snapshot.living),
    )


def judge_in(
    snapshot: GroupSnapshot,
    checking: CheckingInstance,
    *,
    progress: Progress,
    policy: Policy,
    standing: str | None,
    reserved: tuple[str, ...],
    living: frozenset[str],
) -> Verdict:
    """As ``judge``, with another rollout, policy and other grants than those that are stored."""
    floors = tuple(floor.version for floor in snapshot.channel.floors) if snapshot.channel is not None else ()
    wanted = snapshot.wanted_version
    situation = Situation(
        instance=checking.instance,
        running=checking.running,
        runs=checking.runs,
        wanted=wanted,
        labels=_labels(snapshot, wanted, floors) if checking.runs else {},
        channel=snapshot.group.channel,
        floors=floors,
        prefix=checking.prefix,
        rollback_allowed=checking.rollback_allowed,
        rollback_forbidden=checking.rollback_forbidden,
        go_back=snapshot.target is not None and snapshot.target.go_back,
        arch=checking.arch,
        paused=snapshot.paused,
        policy=policy,
        progress=progress,
        standing=standing,
        living=living,
        reserved=reserved,
        serving=_serving_besides(snapshot, checking.instance, progress) if policy.min_healthy else 0,
        is_new=checking.is_new,
        own_labels=snapshot.own_labels(checking) if policy.uses_labels else {},
        wave=waves.current(progress, policy, snapshot.members.values(), snapshot.now),
        frames=snapshot.frames,
        now=snapshot.now,
    )
    goal = destination(situation)
    version = goal if isinstance(goal, str) else situation.wanted
    if version is None:
        return decide(situation)
    snapshot.change.fetch(*keys_of_release(snapshot.context, snapshot.group, snapshot.release_of(version)))
    package = snapshot.package(version)
    verdict = _decided(snapshot, situation, version, package)
    if isinstance(verdict, Grant) and checking.takes_turns and package is not None and package.is_unresolved:
        # a foreign client reads the tag; a sidekick runs what is known by its digest alone
        return Defer(
            reason=f"{version}: nobody knows yet which image {package.image} is; `outrider package resolve`",
            by="unresolved",
            pending=True,
        )
    if isinstance(verdict, Grant) and package is not None and package.tasks:
        # of whoever asks: a deferred instance, and a grant that may be taken back, are judged by the same rule
        release = snapshot.release_of(version)
        why = standstill_in(
            snapshot.change, snapshot.context.keys, snapshot.group.app, snapshot.group.id, release, package
        )
        if why:
            return Defer(reason=why, by="task", pending=True)
    if isinstance(verdict, Defer) and verdict.by in STANDSTILLS and checking.running == NOTHING:
        return _for_a_new_machine(snapshot, situation) or verdict
    return verdict


def _serving_besides(snapshot: GroupSnapshot, instance: str, progress: Progress) -> int:
    busy = {instance, *(one.instance for one in progress.opened)}
    return len(snapshot.serving) - sum(name in snapshot.serving for name in busy)


def _decided(snapshot: GroupSnapshot, situation: Situation, version: str, package: Package | None) -> Verdict:
    verdict = decide(
        replace(
            situation,
            blocked=snapshot.block_reason(snapshot.release_of(version)),
            package_arch=ANY if package is None else package.arch,
        )
    )
    if isinstance(verdict, Grant) and package is None:
        return Defer(reason=f"{version} has no package", by="no-package", pending=True)
    return verdict


def _for_a_new_machine(snapshot: GroupSnapshot, situation: Situation) -> Grant | None:
    """What the group serves with, for an instance that has nothing to serve while its target stands still."""
    release = snapshot.served_release
    if release is None:
        return None
    snapshot.change.fetch(*keys_of_release(snapshot.context, snapshot.group, release))
    package = snapshot.package(release.version)
    if package is None or package.is_unresolved or snapshot.block_reason(release) is not None:
        return None
    if ANY not in (package.arch, situation.arch) and situation.arch not in ("", package.arch):
        return None
    label = release.label if situation.runs else release.version
    return Grant(
        version=label,
        package="" if label == release.version else release.version,
        standing=situation.standing == label,
        for_new_machine=True,
    )


def _labels(snapshot: GroupSnapshot, wanted: str | None, floors: tuple[str, ...]) -> dict[str, str]:
    """What the releases that it may get are called, where that is not their version."""
    known = (snapshot.release_of(version) for version in (wanted, *floors) if version is not None)
    return {release.version: release.label for release in known if not release.is_plain}


def _standing(snapshot: GroupSnapshot, instance: str) -> str | None:
    mine = snapshot.progress.opened_for(instance)
    return mine.version if mine is not None and snapshot.living.get(instance) == mine.version else None
