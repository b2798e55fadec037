"""Ends grants whose updates have not begun and that no longer hold; ``core/rollout/recall.py`` says which."""

from dataclasses import replace
from datetime import datetime

from outrider.core.rollout.policy import LONG_AGO, Verdict
from outrider.core.rollout.recall import Unbegun, recalled
from outrider.core.rollout.rollout import Progress
from outrider.model.documents import OpenGrant
from outrider.service.store.judging import judge_in
from outrider.service.store.snapshot import CheckingInstance, GroupSnapshot

BATCH = 40
"""Grants that one transaction takes back: each costs one comparison and one write, and etcd takes 128."""


def recall(snapshot: GroupSnapshot, only: str | None = None) -> bool:
    """Take back the grants that no longer hold and whose updates have not begun, ``BATCH`` at most.

    Args:
        snapshot: The group.
        only: Of this instance alone.

    Returns:
        True: more of them are left.
    """
    if only is not None:
        mine = _open_grant(snapshot, only)
        if mine is None or not _is_unbegun(mine):
            return False
        snapshot.know_rest()
    unbegun = _unbegun(snapshot)
    every = [
        Unbegun(opened=one, brake=unbegun[one.instance].brake)
        for one in snapshot.progress.opened
        if one.instance in unbegun
    ]
    if not every:
        return False
    living, policy = frozenset(snapshot.living), replace(snapshot.policy, max_per_interval=None)
    verdicts: dict[OpenGrant, Verdict] = {}

    def judge(one: Unbegun, progress: Progress) -> Verdict:
        known = unbegun[one.opened.instance]
        alike = None if policy.counts or policy.percent < 100 else _words(known)
        if alike is not None and alike in verdicts:
            return verdicts[alike]
        checking = CheckingInstance(
            instance=one.opened.instance,
            running=known.running,
            runs=known.runs,
            arch=known.arch,
            prefix=known.prefix,
            rollback_allowed=known.rollback_allowed,
            rollback_forbidden=known.rollback_forbidden,
        )
        verdict = judge_in(
            snapshot, checking, progress=progress, policy=policy, standing=None, reserved=(), living=living
        )
        if alike is not None:
            verdicts[alike] = verdict
        return verdict

    over = recalled(snapshot.progress, every, brake=snapshot.brake, policy=snapshot.policy, judge=judge)
    over = over if only is None else tuple(one for one in over if one == only)
    for instance in over[:BATCH]:
        take_back(snapshot, instance)
    return len(over) > BATCH


def _words(grant: OpenGrant) -> OpenGrant:
    """What the rules that look at no other instance see of it."""
    return OpenGrant(
        version="",
        at=LONG_AGO,
        running=grant.running,
        runs=grant.runs,
        arch=grant.arch,
        prefix=grant.prefix,
        rollback_allowed=grant.rollback_allowed,
        rollback_forbidden=grant.rollback_forbidden,
    )


def end_void(snapshot: GroupSnapshot, instance: str) -> None:
    """End the grant of an instance that checks in, when no turn can be taken for it any more."""
    mine = _open_grant(snapshot, instance)
    if mine is None or not mine.takes_turns:
        return
    if mine.brake != snapshot.brake or (mine.begin_before is not None and snapshot.now >= mine.begin_before):
        take_back(snapshot, instance)


def take_back(snapshot: GroupSnapshot, instance: str) -> None:
    """End a grant, unless its update begins at this very moment: then this transaction fails."""
    snapshot.change.guard(OpenGrant, snapshot.grants[instance])
    snapshot.end(instance, "recalled")


def closes_at(snapshot: GroupSnapshot) -> datetime | None:
    """When the next of the grants ends whose updates have not begun: the update window closes then."""
    ends = (grant.begin_before for grant in _unbegun(snapshot).values())
    return min((end for end in ends if end is not None and end > snapshot.now), default=None)


def _unbegun(snapshot: GroupSnapshot) -> dict[str, OpenGrant]:
    found = ((instance, _open_grant(snapshot, instance)) for instance in snapshot.living)
    return {instance: grant for instance, grant in found if grant is not None and _is_unbegun(grant)}


def _is_unbegun(grant: OpenGrant) -> bool:
    return grant.takes_turns and grant.begun is None


def _open_grant(snapshot: GroupSnapshot, instance: str) -> OpenGrant | None:
    """The stored grant of an instance; None when it has none, or when it can't be read."""
    entry = snapshot.grants.get(instance) if instance in snapshot.living else None
    return None if entry is None else snapshot.context.document(OpenGrant, entry)
