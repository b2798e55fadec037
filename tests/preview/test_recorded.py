"""A recorded rollout under another policy."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from outrider.core.errors import ConfigError
from outrider.core.rollout.wave_settings import Wave
from outrider.preview.recorded import read_recorded, replayed
from outrider.preview.run import Group
from tests.preview.groups import MEASURED, MONDAY, group

NAMES = tuple(f"web-{number}" for number in range(6))


def event(at_s: float, kind: str, instance: str = "", version: str = "2.3.1", **more: Any) -> dict[str, Any]:
    found = {"at": (MONDAY + timedelta(seconds=at_s)).isoformat(), "kind": kind, "group": "web", "instance": instance}
    return found | {"version": version, "text": kind, "by": "", "facts": {}} | more


def stopped_by_a_person() -> list[dict[str, Any]]:
    """Six instances are granted 2.3.1; four have it when ann halts the rollout after 90 s."""
    events = [event(0, "rollout-started"), *(event(0.1, "update-granted", name) for name in NAMES)]
    for number, name in enumerate(NAMES[:4]):
        text = f"{name} runs 2.3.1 instead of 2.3.0"
        events.append(event(24 + 20 * number, "instance-updated", name, text=text))
    return [*events, event(90, "rollout-halted", by="ann", text="the rollout was halted by ann")]


def test_what_is_on_record_of_a_rollout() -> None:
    found = read_recorded(list(reversed(stopped_by_a_person())), "web", None, NAMES)

    assert "2.3.1" == found.version
    assert "2.3.0" == found.before
    assert NAMES[:4] == found.reached
    assert {} == found.failed
    assert found.stopped_at_s == pytest.approx(89.9)
    assert "2.3.1 reached 4 machines" in found.words
    assert found.words.endswith("the rollout was halted by ann")


def test_with_a_canary_and_a_soak_time_it_would_have_reached_one() -> None:
    recorded = read_recorded(stopped_by_a_person(), "web", "2.3.1", NAMES)
    waves = (Wave(count=1, soak_s=90),)
    before = group(6, waves=waves)

    found = replayed(_to(before, "2.3.1"), MEASURED, recorded, runs=3)

    assert 1 == found.reached
    assert "halted" in found.middle.stopped


def test_under_the_same_policy_it_goes_as_it_went() -> None:
    recorded = read_recorded(stopped_by_a_person(), "web", "2.3.1", NAMES)

    found = replayed(_to(group(6), "2.3.1"), MEASURED, recorded, runs=3)

    assert 4 <= found.reached <= 5, "whoever had its turn as it was halted finished it"


def test_what_blocked_itself_fails_on_those_that_it_did_not_reach() -> None:
    events = [
        event(0, "rollout-started"),
        *(event(0.1, "update-granted", name) for name in NAMES),
        event(40, "instance-failed", "web-3", facts={"error_code": "44"}),
        event(40, "release-blocked", "web-3", group=""),
    ]

    recorded = read_recorded(events, "web", None, NAMES)
    found = replayed(_to(group(6, slots=3), "2.3.1"), MEASURED, recorded, runs=3)

    assert recorded.blocked
    assert ("web-3",) == recorded.reached
    assert 3 == found.reached, "with three turns three begin before one has proved it bad"
    assert 0 == found.updated


def test_a_machine_that_could_not_get_the_payload_was_not_reached() -> None:
    events = [event(0.1, "update-granted", "web-0"), event(9, "instance-failed", "web-0", facts={"error_code": "9"})]

    assert () == read_recorded(events, "web", None, NAMES).reached


def test_an_unknown_rollout_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"no recorded rollout of 9\.9\.9; on record: 2\.3\.1"):
        read_recorded(stopped_by_a_person(), "web", "9.9.9", NAMES)


def _to(one: Group, version: str) -> Group:
    return replace(one, version=version)
