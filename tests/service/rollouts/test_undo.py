"""`rollout undo`: a group goes back, from any state of a rollout. Over an etcd in memory."""

from typing import Any

import pytest

from outrider.core.errors import ConfigError, Conflict
from outrider.core.release import ReleaseId
from outrider.core.rollout.windows import Window
from outrider.model.documents import Served
from outrider.service.rollouts.explain import current_reason, read_overviews
from outrider.service.rollouts.wakeups import look
from outrider.service.store import finishing
from outrider.service.store.effects import effects
from outrider.service.store.environments import EnvironmentEdit
from outrider.service.store.group_lock import GroupLock
from outrider.service.store.served import before
from outrider.service.store.store import Store
from tests.support.service import NOON
from tests.support.service_examples import APP, be_alive, block, payload_of, target_of
from tests.support.service_fleets import Fleet


def looks(fleet: Fleet) -> tuple[str, ...]:
    return look(fleet.store.context, GroupLock(), APP, "beta").called


def promote(fleet: Fleet, version: str) -> None:
    fleet.store.packages.create(APP, version, payload=payload_of(version))
    fleet.store.channels.save(APP, "beta", version=version)


def roll(fleet: Fleet, version: str, *instances: str, running: str) -> None:
    """The instances come to the target, and the rollout finishes if they are all."""
    for instance in instances:
        assert version == fleet.granted(instance, running, takes_turns=True)
        fleet.succeeds(instance, version)
    looks(fleet)


def served(fleet: Fleet, *versions: str) -> None:
    """The group has served these, one after the other."""
    running = "1.0.0"
    for version in versions:
        if version != "2.0.0":
            promote(fleet, version)
        roll(fleet, version, "web-1", "web-2", running=running)
        running = version


def change_target(fleet: Fleet, verb: str) -> None:
    """Give the group another target in one of the ways there are."""
    match verb:
        case "restart":
            fleet.store.rollouts.restart(APP, "beta")
        case "env":
            fleet.store.environments.change(APP, "beta", EnvironmentEdit(variables={"COLOUR": "red"}))
        case "group":
            fleet.store.groups.update(APP, "beta", channel="other")
        case _:
            promote(fleet, "4.0.0")


def pin(fleet: Fleet) -> str | None:
    undo = fleet.store.groups.get(APP, "beta").undo
    return None if undo is None else undo.version


@pytest.fixture
def half_rolled(fleet: Fleet) -> Fleet:
    """It served 2.0.0, and web-1 of two runs 3.0.0."""
    served(fleet, "2.0.0")
    promote(fleet, "3.0.0")
    roll(fleet, "3.0.0", "web-1", running="2.0.0")
    return fleet


def test_a_half_updated_group_converges(half_rolled: Fleet) -> None:
    """
    1. the target goes back, with permission to go back in it; the channel stays
    2. web-1 is sent back whatever the policy says of downgrades, web-2 has it already
    3. the abandoned version is blocked here, and the pin is there until the group follows
    """
    half_rolled.store.rollouts.undo(APP, "beta", by="ann", why="checkout fails")

    assert ("2.0.0", True) == (target_of(half_rolled.store).version, target_of(half_rolled.store).go_back)
    assert "3.0.0" == half_rolled.store.channels.get(APP, "beta").version
    assert "2.0.0" == half_rolled.granted("web-1", "3.0.0", takes_turns=True)
    assert "up to date" == half_rolled.why_deferred("web-2", "2.0.0")
    (own,) = half_rolled.store.groups.get(APP, "beta").blocked
    assert ("3.0.0", "undone in this group by ann: checkout fails") == (own.version, own.reason)


@pytest.mark.parametrize("state", ["paused", "halted", "running", "blocked", "finished"])
def test_it_goes_back_from_every_state_of_a_rollout(half_rolled: Fleet, state: str) -> None:
    rollouts = half_rolled.store.rollouts
    if state == "paused":
        rollouts.pause(APP, "beta")
    elif state == "halted":
        rollouts.halt(APP, "beta")
    elif state == "blocked":
        block(half_rolled.store, "3.0.0", "it crashed", NOON)
    elif state == "finished":
        roll(half_rolled, "3.0.0", "web-2", running="2.0.0")

    rollouts.undo(APP, "beta")

    assert "2.0.0" == half_rolled.granted("web-1", "3.0.0", takes_turns=True)
    assert "running" == rollouts.get(APP, "beta").state


def test_a_pause_of_the_group_stays(half_rolled: Fleet) -> None:
    half_rolled.store.groups.update(APP, "beta", paused=True)

    half_rolled.store.rollouts.undo(APP, "beta")

    assert "group is paused" == half_rolled.why_deferred("web-1", "3.0.0")


@pytest.mark.parametrize(("now", "answer"), [(False, None), (True, "2.0.0")])
def test_windows_hold_it_back_unless_it_is_urgent(half_rolled: Fleet, now: bool, answer: str | None) -> None:
    half_rolled.set(windows=(Window(opens="20:00", closes="21:00"),))

    half_rolled.store.rollouts.undo(APP, "beta", at_once=now)

    assert answer == half_rolled.granted("web-1", "3.0.0", takes_turns=True)


def test_a_percentage_does_not_leave_a_part_of_the_group_behind(half_rolled: Fleet) -> None:
    half_rolled.set(percent=0)

    half_rolled.store.rollouts.undo(APP, "beta")

    assert "2.0.0" == half_rolled.granted("web-1", "3.0.0", takes_turns=True)


def test_the_other_limits_hold(half_rolled: Fleet) -> None:
    half_rolled.granted("web-2", "2.0.0", takes_turns=True)
    half_rolled.succeeds("web-2", "3.0.0")
    half_rolled.set(max_in_progress=1)

    half_rolled.store.rollouts.undo(APP, "beta")
    half_rolled.granted("web-1", "3.0.0", takes_turns=True)

    assert "1 of 1 in progress: web-1" == half_rolled.why_deferred("web-2", "3.0.0", takes_turns=True)


def test_one_undo_after_another_leads_further_back_and_never_forward(fleet: Fleet) -> None:
    served(fleet, "2.0.0", "3.0.0", "4.0.0")
    ways = []
    for _ in range(2):
        fleet.store.rollouts.undo(APP, "beta")
        ways.append(pin(fleet))

    assert ["3.0.0", "2.0.0"] == ways
    with pytest.raises(Conflict, match=r"no version is known that group 'beta' served before 2.0.0; name it with --to"):
        fleet.store.rollouts.undo(APP, "beta")


def test_a_way_back_that_has_finished_is_what_the_group_serves(fleet: Fleet) -> None:
    served(fleet, "2.0.0", "3.0.0", "4.0.0")
    fleet.store.rollouts.undo(APP, "beta")
    roll(fleet, "3.0.0", "web-1", "web-2", running="4.0.0")

    fleet.store.rollouts.undo(APP, "beta")

    assert "2.0.0" == pin(fleet)


@pytest.mark.parametrize(
    ("known", "target", "expected"),
    [
        (("1.0.0", "2.0.0"), "2.0.0", "1.0.0"),
        (("1.0.0", "2.0.0"), "3.0.0", "2.0.0"),
        (("1.0.0", "2.0.0"), "1.0.0", None),
        (("1.0.0", "2.0.0"), "1.5.0", "1.0.0"),
        (("2.0.0", "1.0.0"), "1.0.0", None),
        ((), "1.0.0", None),
    ],
)
def test_the_version_before(known: tuple[str, ...], target: str, expected: str | None) -> None:
    found = before(tuple(ReleaseId(version=one) for one in known), ReleaseId(version=target))

    assert expected == (None if found is None else found.version)


@pytest.mark.parametrize(
    ("to", "error", "words"),
    [
        ("4.0.0", Conflict, "4.0.0 is newer than the target 3.0.0, and undo only goes back"),
        ("0.9.0", Conflict, "0.9.0 has no package any more"),
        ("latest", ConfigError, "not semver"),
    ],
)
def test_a_version_that_it_cannot_go_back_to(half_rolled: Fleet, to: str, error: type[Exception], words: str) -> None:
    half_rolled.store.packages.create(APP, "4.0.0", payload=payload_of("4.0.0"))

    with pytest.raises(error, match=words):
        half_rolled.store.rollouts.undo(APP, "beta", to=to)


def test_a_blocked_an_excluded_and_a_pinned_away_version_are_refused(half_rolled: Fleet) -> None:
    undo = half_rolled.store.rollouts.undo
    half_rolled.store.floors.exclude(APP, "beta", "2.0.0")
    with pytest.raises(Conflict, match=r"channel 'beta' excludes 2.0.0"):
        undo(APP, "beta")
    half_rolled.store.floors.include(APP, "beta", "2.0.0")
    half_rolled.set(pin="3")
    with pytest.raises(Conflict, match=r"pins group 'beta' to 3"):
        undo(APP, "beta")
    half_rolled.set(pin="")
    block(half_rolled.store, "2.0.0", "it leaks", NOON)
    with pytest.raises(Conflict, match=r"2.0.0 is blocked \(it leaks\)"):
        undo(APP, "beta")


def test_without_a_target_there_is_nothing_to_undo(fleet: Fleet) -> None:
    fleet.store.groups.create(APP, "empty", channel="nothing")

    with pytest.raises(Conflict, match=r"has no target"):
        fleet.store.rollouts.undo(APP, "empty")


def test_keep_blocks_nothing(half_rolled: Fleet) -> None:
    half_rolled.store.rollouts.undo(APP, "beta", keep=True)

    assert () == half_rolled.store.groups.get(APP, "beta").blocked


def test_only_this_group_goes_back_and_only_here_the_version_is_blocked(half_rolled: Fleet) -> None:
    half_rolled.store.groups.create(APP, "other", channel="beta")

    half_rolled.store.rollouts.undo(APP, "beta")

    assert "3.0.0" == target_of(half_rolled.store, "other").version
    assert "3.0.0" == half_rolled.granted("box-1", "2.0.0", track="other")


END: dict[str, Any] = {
    "follow": lambda store: store.rollouts.follow(APP, "beta"),
    "channel update": lambda store: store.channels.save(APP, "beta", version="3.0.0"),
    "another channel": lambda store: store.groups.update(APP, "beta", channel="other"),
}


@pytest.mark.parametrize("end", END)
def test_what_ends_the_pin(half_rolled: Fleet, end: str) -> None:
    half_rolled.store.channels.save(APP, "other", version="3.0.0")
    half_rolled.store.rollouts.undo(APP, "beta")

    END[end](half_rolled.store)

    assert None is pin(half_rolled)
    assert ("3.0.0", False) == (target_of(half_rolled.store).version, target_of(half_rolled.store).go_back)


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.channels.save(APP, "beta", publish=True),
        lambda store: store.groups.update(APP, "beta", slots=3),
        lambda store: store.packages.create(APP, "5.0.0", payload=payload_of("5.0.0")),
        lambda store: store.groups.update(APP, "beta", paused=True),
    ],
)
def test_what_does_not_end_it(half_rolled: Fleet, change: Any) -> None:
    half_rolled.store.rollouts.undo(APP, "beta")

    change(half_rolled.store)

    assert ("2.0.0", "2.0.0") == (pin(half_rolled), target_of(half_rolled.store).version)


def test_the_abandoned_version_stays_blocked_here_until_it_is_unblocked(half_rolled: Fleet) -> None:
    half_rolled.store.rollouts.undo(APP, "beta", by="ann")
    half_rolled.store.rollouts.follow(APP, "beta")
    refused = half_rolled.why_deferred("web-2", "2.0.0")
    listed = [(one.version, one.instance) for one in half_rolled.store.fleet.blocks(APP)]

    half_rolled.store.fleet.unblock(APP, "3.0.0")

    assert "3.0.0 is blocked: undone in this group by ann" == refused
    assert [("3.0.0", "group beta")] == listed
    assert "3.0.0" == half_rolled.granted("web-2", "2.0.0")


def test_a_machine_can_forbid_it_and_no_grant_is_spent(half_rolled: Fleet) -> None:
    half_rolled.store.rollouts.undo(APP, "beta")

    reason = half_rolled.why_deferred("web-1", "3.0.0", takes_turns=True, rollback_forbidden=True)

    assert reason.endswith("this machine forbids going back (instance.allow_downgrade = false)")
    assert [] == half_rolled.under_way


@pytest.mark.parametrize(("downgrade", "goes"), [("always", True), ("asked", True), ("never", False)])
def test_a_policy_that_allows_going_back_wakes_who_was_held(
    half_rolled: Fleet, store: Store, downgrade: str, goes: bool
) -> None:
    """The channel goes back while the release is half rolled out, without an undo."""
    half_rolled.store.channels.save(APP, "beta", version="2.0.0")
    be_alive(store, "web-1", NOON, version="3.0.0")
    held = half_rolled.why_deferred("web-1", "3.0.0", takes_turns=True, rollback_allowed=True)

    half_rolled.set(downgrade=downgrade)

    assert "running 3.0.0 is newer than the channel's 2.0.0" == held
    assert (("web-1",) if goes else ()) == looks(half_rolled)


@pytest.mark.parametrize(
    ("downgrade", "words"),
    [
        ("never", "keep it (policy: downgrade never); `outrider rollout undo --app-id="),
        ("always", "go back to it (policy: downgrade always)"),
        ("asked", "those that allow it go back (policy: downgrade asked)"),
    ],
)
def test_moving_a_channel_back_says_what_will_happen(half_rolled: Fleet, downgrade: str, words: str) -> None:
    half_rolled.set(downgrade=downgrade)

    notes = half_rolled.store.channels.save(APP, "beta", version="2.0.0").notes

    (note,) = [one for one in notes if "run a newer version than 2.0.0" in one]
    assert note.startswith("1 of 2 instances of group beta")
    assert words in note


def test_a_channel_that_was_moved_back_can_be_undone_to_its_own_version(half_rolled: Fleet) -> None:
    half_rolled.store.channels.save(APP, "beta", version="2.0.0")

    half_rolled.store.rollouts.undo(APP, "beta", to="2.0.0")

    assert "2.0.0" == half_rolled.granted("web-1", "3.0.0", takes_turns=True)
    assert () == half_rolled.store.groups.get(APP, "beta").blocked
    with pytest.raises(Conflict, match=r"already"):
        half_rolled.store.rollouts.undo(APP, "beta", to="2.0.0")


def previous(store: Store, instance: str, version: str, **facts: Any) -> None:
    be_alive(store, instance, NOON, version="3.0.0", previous=version, **facts)


def test_a_rollback_of_one_instance_leads_where_undo_leads(half_rolled: Fleet, store: Store) -> None:
    previous(store, "web-1", "2.0.0", state="idle.waiting")

    assert "2.0.0" == store.fleet.command(APP, "web-1", "rollback", "ann").version


def test_one_that_would_lead_elsewhere_is_refused_unless_it_is_named(half_rolled: Fleet, store: Store) -> None:
    previous(store, "web-1", "1.0.0", state="idle.waiting")

    with pytest.raises(Conflict, match=r"would go back to 1.0.0, and its group served 2.0.0 before"):
        store.fleet.command(APP, "web-1", "rollback", "ann")
    with pytest.raises(Conflict, match=r"can go back only to that"):
        store.fleet.command(APP, "web-1", "rollback", "ann", version="2.0.0")
    assert "1.0.0" == store.fleet.command(APP, "web-1", "rollback", "ann", version="1.0.0").version


def test_during_an_update_a_rollback_calls_it_off(half_rolled: Fleet, store: Store) -> None:
    previous(store, "web-1", "1.0.0", state="swapping.queueing")

    assert "" == store.fleet.command(APP, "web-1", "rollback", "ann").version


def test_the_reason_that_is_shown_is_the_present_one(fleet: Fleet, store: Store) -> None:
    fleet.set(max_in_progress=1)
    fleet.granted("web-1", takes_turns=True)
    be_alive(store, "web-2", NOON, state="idle.deferred", why="1 of 1 in progress: web-1")
    fleet.why_deferred("web-2", takes_turns=True)
    shown = [current_reason(read_overviews(store.context, APP)[0], "web-2")]

    store.rollouts.pause(APP, "beta", by="ann")
    shown.append(current_reason(read_overviews(store.context, APP)[0], "web-2"))

    assert ["1 of 1 in progress: web-1", "rollout of 2.0.0 is paused by ann"] == shown


def test_the_effect_of_a_move_back_does_not_promise_an_update(half_rolled: Fleet, store: Store) -> None:
    store.channels.save(APP, "beta", version="2.0.0")
    group = store.groups.get(APP, "beta")
    (held,) = effects(store.context, APP, [group])

    store.rollouts.undo(APP, "beta", to="2.0.0")
    (going,) = effects(store.context, APP, [store.groups.get(APP, "beta")])

    assert "group beta: target 2.0.0; 1 of 2 instances on a newer version, which they keep" == held
    assert "updated from now on" in going


@pytest.mark.parametrize(("code", "counts"), [("3:1", (1, 0)), ("3:0:44", (0, 1))])
def test_a_result_of_the_way_back_counts_in_its_rollout(half_rolled: Fleet, code: str, counts: tuple[int, int]) -> None:
    half_rolled.store.rollouts.undo(APP, "beta")
    half_rolled.granted("web-1", "3.0.0", takes_turns=True)

    half_rolled.sends("web-1", "2.0.0", code, next_version="2.0.0")

    assert counts == (half_rolled.progress.succeeded, len(half_rolled.progress.failures))


@pytest.mark.parametrize("verb", ["restart", "env", "channel"])
def test_what_was_complete_in_the_moment_of_the_next_change_is_where_undo_goes(fleet: Fleet, verb: str) -> None:
    """
    1. both instances have come to 2.0.0, and nobody has looked at the group since
    2. the next release is made in that moment; no instance has begun with it
    3. undo goes to 2.0.0, not to what was before it
    """
    served(fleet, "2.0.0")
    promote(fleet, "3.0.0")
    for instance in ("web-1", "web-2"):
        assert "3.0.0" == fleet.granted(instance, "2.0.0", takes_turns=True)
        fleet.succeeds(instance, "3.0.0")
    assert fleet.progress.finished is None
    change_target(fleet, verb)

    fleet.store.rollouts.undo(APP, "beta")

    assert ("3.0.0", 0, 0) == (
        target_of(fleet.store).version,
        target_of(fleet.store).environment,
        target_of(fleet.store).generation,
    )


@pytest.mark.parametrize("verb", ["restart", "env", "channel", "group"])
def test_the_last_report_may_come_while_the_target_changes(
    fleet: Fleet, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    1. the next release is made while web-2 is on its way to 3.0.0; the rollout is not complete when that is looked at
    2. web-2 reports before the change is committed
    3. undo goes to 3.0.0 all the same
    """
    served(fleet, "2.0.0")
    fleet.store.channels.save(APP, "other", version="2.0.0")
    promote(fleet, "3.0.0")
    for instance in ("web-1", "web-2"):
        assert "3.0.0" == fleet.granted(instance, "2.0.0", takes_turns=True)
    fleet.succeeds("web-1", "3.0.0")
    look_first, reports = finishing._finish_what_is_complete, ["web-2"]

    def looked(*arguments: Any) -> Any:
        found = look_first(*arguments)
        if reports:
            fleet.succeeds(reports.pop(), "3.0.0")
        return found

    monkeypatch.setattr(finishing, "_finish_what_is_complete", looked)

    change_target(fleet, verb)

    known = fleet.store.context.get(Served, fleet.store.context.keys.served(APP, "beta"))
    assert known is not None
    assert ["2.0.0", "3.0.0"] == list(known.versions)
