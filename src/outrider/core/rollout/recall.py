"""Which grants no longer hold, although their updates have not begun.

An instance has its grant while it downloads, verifies and waits for a turn. What stops a new grant meanwhile (a pause,
a block, a new target, a window that closes, a stricter policy) also ends a grant whose update has not begun. Grants
are looked at in the order in which they were made, and each is judged as if it and the later ones did not exist.
So a limit that has become smaller leaves the oldest grants.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from outrider.core.rollout.calendar import next_stop
from outrider.core.rollout.policy import Grant, Verdict
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.rollout import Opened, Override, Progress, counted, next_time, with_counted, without


@dataclass(frozen=True, slots=True, kw_only=True)
class Unbegun:
    """An open grant whose update has not begun, with the instance that has it.

    Attributes:
        opened: The grant in the rollout.
        brake: Revision of the group's brake when it was made.
    """

    opened: Opened
    brake: int


Judge = Callable[[Unbegun, Progress], Verdict]
"""The verdict for one instance that has no grant, in a rollout in which only earlier grants are open."""


def recalled(
    progress: Progress, unbegun: Iterable[Unbegun], *, brake: int, policy: Policy, judge: Judge
) -> tuple[str, ...]:
    """Return the instances whose grants no longer hold, oldest grant first.

    Args:
        progress: The group's rollout.
        unbegun: All open grants whose updates have not begun.
        brake: Present revision of the group's brake: a grant from before it is void.
        policy: The group's policy.
        judge: Applies the rules to one of them.
    """
    candidates = sorted(unbegun, key=lambda one: (one.opened.at, one.opened.instance))
    ours = {one.opened.instance for one in candidates}
    lately = progress.lately
    for one in candidates:
        lately = without(lately, one.opened.at) if one.opened.in_interval else lately
    others = tuple(one for one in progress.opened if one.instance not in ours)
    state, found = counted(replace(progress, opened=others, lately=lately)), []
    for one in candidates:
        earlier = replace(state, lately=tuple(each for each in state.lately if each[0] <= one.opened.at))
        if one.brake == brake and _still_granted(one, judge(one, earlier), earlier, policy):
            state = with_counted(state, one.opened, policy)
        else:
            found.append(one.opened.instance)
    return tuple(found)


def begin_before(policy: Policy, now: datetime, *, emergency: Override | None = None) -> datetime:
    """Until when an update granted at ``now`` may begin.

    That is as long as an update may take, and no longer than updates may start: until the window closes or a freeze
    begins, or until the ``emergency`` is over that lets this policy have neither.
    """
    stops = (now + timedelta(seconds=policy.update_timeout_s), next_stop(policy.calendar, now))
    over = None if emergency is None or emergency.until <= now else emergency.until
    return min(at for at in (*stops, over) if at is not None)


def _still_granted(one: Unbegun, verdict: Verdict, earlier: Progress, policy: Policy) -> bool:
    # The limit per interval is about the time of the grant, not about now: ``judge`` is not asked for it.
    in_rate = next_time(earlier, policy, 0, one.opened.at) is None
    return in_rate and isinstance(verdict, Grant) and verdict.version == one.opened.version
