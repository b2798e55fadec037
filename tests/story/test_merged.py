"""Steps of several machines stand in the order in which they can have caused each other; clocks decide nothing."""

from itertools import permutations

import msgspec

from outrider.model.history import Kind, Step
from outrider.story.merged import StoryLine, merge

SECOND = 1000
HOUR = 3600 * SECOND
BEGAN = 1_795_000_000 * SECOND


def state(revision: int, instance: str, name: str, machine: int = 0, at: int = BEGAN) -> Step:
    return Step(revision=revision, instance=instance, state=name, machine=machine, at=at)


def local(seen: int, instance: str, name: str, number: int, machine: int = 0, took_ms: int = 0, text: str = "") -> Step:
    return Step(
        revision=seen, kind="local", instance=instance, state=name, number=number, machine=machine, took_ms=took_ms,
        text=text,
    )  # fmt: skip


def shown(lines: tuple[StoryLine, ...]) -> list[tuple[str, str, str]]:
    return [(line.place, line.instance, line.state or line.kind) for line in lines]


def test_a_local_step_stands_between_what_its_sidekick_had_seen_and_its_next_write() -> None:
    steps = [
        state(10, "web-a", "downloading", machine=BEGAN),
        state(14, "web-b", "idle.waiting", machine=BEGAN - HOUR),
        state(20, "web-a", "swapping.queueing", machine=BEGAN + 9 * SECOND),
        local(10, "web-a", "downloading", 1, machine=BEGAN),
        local(15, "web-a", "verifying", 2, machine=BEGAN + 5 * SECOND),
        local(15, "web-a", "swapping.queueing", 3, machine=BEGAN + 9 * SECOND),
    ]

    assert [
        ("10", "web-a", "downloading"),
        ("14", "web-b", "idle.waiting"),
        ("15..20", "web-a", "verifying"),
        ("20", "web-a", "swapping.queueing"),
    ] == shown(merge(steps))


def test_the_order_does_not_depend_on_the_order_of_the_steps_nor_on_steps_that_come_twice() -> None:
    steps = [state(3, "a", "one", BEGAN), state(5, "a", "two", BEGAN + HOUR), local(4, "a", "between", 7)]
    expected = merge(steps)

    assert 3 == len(expected)
    assert all(expected == merge([*some, *some]) for some in permutations(steps))


def test_clocks_an_hour_apart_change_nothing() -> None:
    a, b = BEGAN + HOUR, BEGAN - HOUR
    steps = [
        state(10, "web-a", "swapping.starting", machine=a),
        state(11, "web-b", "swapping.starting", machine=b),
        local(11, "web-a", "swapping.probing", 4, machine=a + 3 * SECOND),
        local(12, "web-b", "swapping.probing", 9, machine=b + 2 * SECOND),
        state(13, "web-b", "swapping.switching", machine=b + 4 * SECOND),
        state(15, "web-a", "swapping.switching", machine=a + 6 * SECOND),
    ]

    lines = merge(steps)

    assert ["10", "11", "11..15", "12..13", "13", "15"] == [line.place for line in lines]
    assert ["web-a", "web-b", "web-a", "web-b", "web-b", "web-a"] == [line.instance for line in lines]


def test_a_state_that_both_tell_of_is_one_line_with_the_machines_duration() -> None:
    steps = [
        state(10, "web-a", "swapping.starting", machine=BEGAN, at=BEGAN),
        local(9, "web-a", "swapping.starting", 3, machine=BEGAN - 4, took_ms=200, text="2.0.0 runs"),
        state(11, "web-a", "swapping.probing", machine=BEGAN + 200, at=BEGAN + 900),
    ]

    first, second = merge(steps)

    assert (10, 0.2, "2.0.0 runs") == (first.revision, first.took_s, first.text)
    assert (11, None) == (second.revision, second.took_s)


def test_without_the_sidekicks_word_a_state_lasts_until_the_next_one_by_the_services_clock() -> None:
    lines = merge([state(1, "a", "one", at=BEGAN), state(4, "a", "two", at=BEGAN + 2500)])

    assert [2.5, None] == [line.took_s for line in lines]


def test_the_same_state_twice_is_matched_in_order() -> None:
    steps = [
        state(10, "a", "checking", machine=BEGAN),
        state(16, "a", "checking", machine=BEGAN + SECOND),
        local(9, "a", "checking", 1, machine=BEGAN + 1, took_ms=10),
        local(12, "a", "idle.waiting", 2, machine=BEGAN + 500, took_ms=20),
        local(15, "a", "checking", 3, machine=BEGAN + SECOND, took_ms=30),
    ]

    assert [("10", 0.01), ("12..16", 0.02), ("16", 0.03)] == [(line.place, line.took_s) for line in merge(steps)]


def test_a_local_step_that_claims_to_have_seen_less_than_its_predecessor_stays_behind_it() -> None:
    """A sidekick that was restarted has seen nothing at first."""
    steps = [state(10, "a", "one", machine=BEGAN), local(10, "a", "one", 1, machine=BEGAN), local(0, "a", "two", 2)]

    assert [("10", "a", "one"), ("10..", "a", "two")] == shown(merge(steps))


def test_what_happens_within_a_state_is_not_put_before_the_write_of_that_state() -> None:
    """It is told with the state that it was in, whose own line names the write at its beginning."""
    within = msgspec.structs.replace(local(50, "web-a", "swapping.queueing", 4), stays=True)
    steps = [
        state(48, "web-a", "swapping.queueing", machine=BEGAN),
        within,
        local(47, "web-a", "swapping.queueing", 5, machine=BEGAN),
        local(55, "web-a", "swapping.starting", 6, machine=BEGAN + 9 * SECOND),
        state(56, "web-a", "swapping.starting", machine=BEGAN + 9 * SECOND),
    ]

    places = [line.place for line in merge(steps)]

    assert ["48", "50..56", "56"] == places
    assert ["50.."] == [line.place for line in merge([steps[0], within, steps[2]]) if line.revision is None]


def test_at_one_revision_the_cause_stands_before_what_it_caused() -> None:
    kinds: tuple[Kind, ...] = ("state", "turn", "event", "target", "gap")

    lines = merge(
        Step(revision=5, kind=kind, at=BEGAN, instance="" if kind in ("gap", "target") else "a") for kind in kinds
    )

    assert ["gap", "target", "event", "turn", "state"] == [line.kind for line in lines]


def test_each_kind_of_line_says_what_it_is() -> None:
    lines = merge(
        [
            Step(revision=5, kind="gap", at=BEGAN, number=2, text="etcd was away"),
            Step(revision=6, kind="target", at=BEGAN, version="2.0.0"),
            Step(revision=7, kind="target", at=BEGAN),
            Step(revision=8, kind="turn", instance="a", at=BEGAN, number=1),
            Step(revision=9, kind="left", instance="a", at=BEGAN),
            Step(revision=10, kind="state", instance="a", at=BEGAN, state="rollback.blocking", omits=True),
            Step(revision=11, kind="told", instance="a", at=BEGAN, version="2.0.0", wanted="1.0.0", event="rolled back",
                 text="health check", number=3),
        ]
    )  # fmt: skip

    assert [
        "nothing is recorded between the revisions 2 and 5: etcd was away",
        "target: 2.0.0",
        "the group has no target",
        "turn taken, slot 1",
        "its presence ended: the sidekick stopped, died, or was cut off from etcd",
        "further steps are left out: the update took all the room that it has in the history",
        "update 1.0.0 -> 2.0.0: rolled back: health check (3 local steps had no room)",
    ] == [line.text for line in lines]
