"""The auditor can fail: made-up histories, one for each way in which a promise breaks."""

from collections.abc import Callable, Mapping

import msgspec
import pytest

from outrider.etcd.seam import Entry, KeyChanged
from tests.chaos.auditor import Rules, audit

SCOPE = "/outrider/v1/turns/app/g"
Story = list[tuple[int, str, str | None]]
"""Revision, key, value or None for a removal."""


def slot(number: int) -> str:
    return f"{SCOPE}/slots/{number}/a"


def queue(instance: str) -> str:
    return f"{SCOPE}/queue/{instance}"


def entry(instance: str) -> str:
    return f"traefik/http/services/example/loadbalancer/servers/{instance}/url"


def held_by(instance: str) -> str:
    return msgspec.json.encode({"instance": instance}).decode()


BEFORE = {entry(name): f"http://{name}:1".encode() for name in ("a", "b")}
TAKE: Story = [(10, queue("a"), "{}"), (11, slot(0), held_by("a"))]
GIVE: Story = [(90, slot(0), None), (90, queue("a"), None)]


def judged(story: Story, before: Mapping[str, bytes] = BEFORE, **rules: object) -> list[str]:
    changes = [
        KeyChanged(
            key=key,
            entry=None
            if value is None
            else Entry(key=key, value=value.encode(), create_revision=revision, mod_revision=revision),
            revision=revision,
        )
        for revision, key, value in story
    ]
    given = {"slots": 1, "starts_first": True, "instances": ("a", "b"), **rules}
    return audit(before, changes, Rules(**given))  # type: ignore[arg-type]


def test_a_swap_as_it_should_be_has_no_breach() -> None:
    assert [] == judged([*TAKE, (20, entry("a"), "http://a:2"), *GIVE])


def test_a_stop_first_swap_may_be_out_under_its_turn() -> None:
    story: Story = [*TAKE, (20, entry("a"), None), (30, entry("a"), "http://a:2"), *GIVE]

    assert [] == judged(story, starts_first=False)


def agents_entry(instance: str) -> str:
    return f"/outrider/v1/servers/example/{instance}/entry"


def test_an_entry_for_balancer_agents_is_judged_as_one_of_traefik() -> None:
    before = {agents_entry(name): msgspec.json.encode({"url": f"http://{name}:1"}) for name in ("a", "b")}
    moved = msgspec.json.encode({"url": "http://a:2"}).decode()

    assert [] == judged([*TAKE, (20, agents_entry("a"), moved), *GIVE], before=before)
    found = judged([(20, agents_entry("a"), moved), (30, agents_entry("b"), None)], before=before)
    assert "revision 20: P2: traffic of a was moved from http://a:1 to http://a:2 without a valid turn" in found
    assert "revision 30: P2: b was taken out of the balancer without a valid turn" in found


BREACHES: dict[str, tuple[Story, str]] = {
    "two turns": ([*TAKE, (12, slot(1), held_by("b")), (80, slot(1), None), *GIVE], "revision 12: P1: 2 turns"),
    "moved without a turn": (
        [(20, entry("a"), "http://a:2")],
        "revision 20: P2: traffic of a was moved from http://a:1 to http://a:2 without a valid turn",
    ),
    "moved under another's turn": ([*TAKE, (20, entry("b"), "http://b:2"), *GIVE], "revision 20: P2: traffic of b"),
    "moved under a dirty turn": (
        [*TAKE, (15, queue("a"), None), (20, entry("a"), "http://a:2"), (90, slot(0), None)],
        "revision 20: P2: traffic of a",
    ),
    "removed without a turn": ([(20, entry("a"), None), (21, entry("a"), "x")], "revision 20: P2: a was taken out"),
    "start-first and out": (
        [*TAKE, (20, entry("a"), None), (21, entry("a"), "x"), *GIVE],
        "P3: a is out of the balancer",
    ),
    "block without the end of a turn": (
        [*TAKE, (20, "/outrider/v1/blocks/app/2.0.0", "{}"), *GIVE],
        "revision 20: P5: /outrider/v1/blocks/app/2.0.0 was written without the end of a turn",
    ),
    "a turn left": ([*TAKE], "in the end: left of turns"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_each_breach_is_found(name: str) -> None:
    story, words = BREACHES[name]

    found = judged(story)

    assert any(words in line for line in found), found


def test_a_turn_given_back_while_the_instance_is_out_is_found() -> None:
    story: Story = [*TAKE, (20, entry("a"), None), *GIVE, (95, entry("a"), "x")]

    found = judged(story, starts_first=False)

    assert any("revision 90: P3: a is out of the balancer without a turn" in line for line in found), found


@pytest.mark.parametrize(
    ("rule", "story"),
    [
        ("freed", [*TAKE, *GIVE, (95, "/outrider/v1/blocks/app/2.0.0", "{}")]),
        ("apps_die", [(20, entry("a"), "http://a:2")]),
    ],
)
def test_what_a_scenario_does_itself_is_excused_there_and_only_there(rule: str, story: Story) -> None:
    excused: Callable[..., list[str]] = judged

    assert [] == excused(story, **{rule: True})
    assert judged(story)


GONE = "/outrider/v1/gone/app/a"
LEAVES: Story = [*TAKE, (20, entry("a"), None), (30, GONE, "{}"), *GIVE, (100, GONE, None), (110, entry("a"), "x")]


def test_who_leaves_for_good_is_out_under_its_turn_and_then_until_it_is_back() -> None:
    assert [] == judged(LEAVES, leaves=frozenset({"a"}))
    assert any("revision 20: P3: a is out of the balancer" in line for line in judged(LEAVES))


@pytest.mark.parametrize(
    ("story", "words"),
    [
        ([(20, entry("a"), None), (30, GONE, "{}"), (110, entry("a"), "x")], "revision 20: P2: a was taken out"),
        (
            [*TAKE, (20, entry("a"), None), *GIVE, (100, GONE, "{}"), (110, entry("a"), "x")],
            "P3: a is out of the balancer",
        ),
        ([*LEAVES, (120, entry("a"), None), (130, entry("a"), "x")], "revision 120: P3: a is out of the balancer"),
    ],
    ids=["without a turn", "the turn is given back before it has gone", "out again after it is back"],
)
def test_nothing_else_is_excused_there(story: Story, words: str) -> None:
    found = judged(story, leaves=frozenset({"a"}))

    assert any(words in line for line in found), found


@pytest.mark.parametrize(("racks", "breaches"), [({"a": "1", "b": "1"}, 1), ({"a": "1", "b": "2"}, 0), ({}, 0)])
def test_two_turns_in_one_rack_break_its_budget(racks: dict[str, str], breaches: int) -> None:
    counted = f"{SCOPE}/budgets/rack=1/slots/0/b"
    second: Story = [
        (12, queue("b"), "{}"),
        (13, slot(1), held_by("b")),
        (13, counted, held_by("b")),
        (80, slot(1), None),
        (80, counted, None),
        (80, queue("b"), None),
    ]

    found = judged([*TAKE, *second, *GIVE], slots=2, racks=racks)

    assert breaches == len(found)
    assert all("budget: 2 turns in rack 1, and at most 1 may be out" in one for one in found)
