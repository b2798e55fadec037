"""A journal is accepted step by step, or refused with the line of the first step that the chart doesn't have."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest

import outrider.journal.journal
from outrider.core.sidekick.events import SidekickRestarted
from outrider.core.sidekick.memory import Memory, Strategy
from outrider.core.sidekick.rules import make_rules
from outrider.journal.journal import Journal, Record, read
from outrider.story import Replay, lines_of, read_lines, replay, tell
from tests.sim.fleet import Badness
from tests.sim.journalled import JournalledFleet
from tests.support.journals import (
    CHART,
    RECORDED,
    changed,
    position,
    recorded,
    refusal,
    stepped,
    with_machine,
    with_memory,
)
from tests.support.rings import mostly_long

# --- accepted -------------------------------------------------------------------------------------------------------


def test_the_recorded_journals_are_those_that_the_chart_still_makes() -> None:
    assert {"bad_release", "good_update", "good_update_stop_first", "killed_in_soaking"} == set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_a_journal_of_a_real_sidekick_is_in_the_chart(name: str) -> None:
    records = recorded(name)

    restarts = sum(record.event["name"] == "sidekick.restarted" for record in records)
    assert Replay(steps=len(records), after=0, restarts=restarts) == replay(lines_of(records), CHART)


@pytest.mark.parametrize("badness", ["none", "refused", "unhealthy", "dies"])
@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
@pytest.mark.parametrize("crashes", mostly_long((4, 0), short=lambda crashes: crashes == 4))
def test_a_journal_of_any_simulated_life_is_in_the_chart(
    tmp_path: Path, strategy: Strategy, badness: Badness, crashes: int
) -> None:
    """Good and bad releases, restarts, lost leases and lost answers: what the machine does is what the chart has."""
    fleet = JournalledFleet(tmp_path, 11, instances=2, slots=1, strategy=strategy, bad={"2.0.0": badness})
    fleet.run(fleet.at_rest)
    fleet.lost_answers = 0.05 if crashes else 0.0
    for number in range(crashes):
        member = fleet.members[number % 2]
        fleet.at(0.3 + 2.1 * number, partial(fleet.crash, member, 1.5))
        fleet.at(1.1 + 3.7 * number, partial(fleet.lose_lease, member))
    fleet.promote("2.0.0")
    wanted = {"2.0.0"} if badness == "none" else {"1.0.0"}
    fleet.run(
        lambda: fleet.at_rest() and set(fleet.versions()) == wanted and (badness == "none") == (not fleet.blocked)
    )

    restarts = 0
    for member in fleet.members:
        lines = fleet.lines(member)
        found = replay(lines, CHART)
        assert len(lines) == found.steps
        restarts += found.restarts
        assert all(story.moments for story in tell(lines, CHART)), "every update can be told"
    assert bool(restarts) == bool(crashes)
    fleet.close()


def test_other_delays_in_the_settings_are_no_difference() -> None:
    """The recorded sidekicks soaked for one second and probed for five, the chart says ten and ninety."""
    rules = make_rules({"soak": 3600.0, "probe": 1.0, "poll": 7.0})

    assert replay(lines_of(recorded("good_update")), CHART, rules).steps


def test_settings_that_were_changed_between_two_updates_are_no_difference() -> None:
    records = recorded("good_update")
    settings = msgspec.convert(records[-1].memory | {"strategy": "stop-first", "allow_downgrade": True}, type=Memory)
    records.append(stepped(records, SidekickRestarted(at=records[-1].at + timedelta(hours=1)), settings))

    assert len(records) == replay(lines_of(records), CHART).steps


def test_a_strategy_that_changes_in_mid_update_is_refused() -> None:
    records = recorded("good_update")
    records = records[: position(records, "swapping.probing", "probe.passed")]
    settings = msgspec.convert(records[-1].memory | {"strategy": "stop-first"}, type=Memory)
    records.append(stepped(records, SidekickRestarted(at=records[-1].at), settings))

    assert "the strategy became stop-first in mid-update" in refusal(records)


def test_a_journal_that_begins_in_the_middle_is_replayed_from_there() -> None:
    records = recorded("good_update")

    assert Replay(steps=len(records) - 11, after=11, restarts=0) == replay(lines_of(records[10:]), CHART)


def test_a_rotated_journal_is_read_with_the_file_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = recorded("good_update")
    monkeypatch.setattr(outrider.journal.journal, "ROTATE_BYTES", 60_000)
    journal = Journal(tmp_path)
    for record in records:
        journal.append(record)
    journal.close()
    assert 1 < read(journal.path)[0].number, "the file was rotated"

    lines = read_lines(tmp_path)

    assert records == [line.record for line in lines]
    assert {"journal.1.jsonl:1", "journal.jsonl:1"} <= {line.location for line in lines}
    assert len(records) == replay(lines, CHART).steps


def test_an_older_file_of_another_journal_is_left_alone(tmp_path: Path) -> None:
    for name, records in (("journal", recorded("good_update")[10:]), ("journal.1", recorded("bad_release"))):
        (tmp_path / "x").mkdir(exist_ok=True)
        journal = Journal(tmp_path / "x")
        for record in records:
            journal.append(record)
        journal.close()
        journal.path.rename(tmp_path / f"{name}.jsonl")

    assert recorded("good_update")[10:] == [line.record for line in read_lines(tmp_path)]


# --- refused --------------------------------------------------------------------------------------------------------


def test_a_step_to_another_state_is_refused_with_its_line() -> None:
    records = recorded("good_update")
    at = position(records, "swapping.draining", "balancer.drained")
    records[at] = changed(records[at], target="swapping.retiring")

    assert (
        f"journal.jsonl:{at + 1}: swapping.draining --balancer.drained--> swapping.retiring:"
        " the chart goes to swapping.soaking" == refusal(records)
    )


def test_an_answer_that_nobody_waits_for_is_refused() -> None:
    records = recorded("good_update")
    at = position(records, "swapping.draining", "balancer.drained")
    records[at] = changed(records[at], event=records[at].event | {"request": 999})

    assert refusal(records).endswith("the chart drops it: request 999 is no longer outstanding")


def test_an_event_that_only_the_chart_raises_is_refused() -> None:
    records = recorded("good_update")
    at = position(records, "swapping.soaking", "soak.due")
    records[at] = changed(records[at], event={"name": "release.committed", "at": records[at].event["at"]})

    assert "no such event comes to the chart from outside" in refusal(records)


@pytest.mark.parametrize("renumbered", [False, True])
@pytest.mark.parametrize("name", RECORDED)
def test_a_missing_step_is_refused_wherever_it_is(name: str, renumbered: bool) -> None:
    records = recorded(name)
    for missing in range(1, len(records) - 1):
        if renumbered and records[missing].machine == records[missing - 1].machine:
            continue  # news that moved nothing; without it the journal is one of another life, and as good
        rest = records[:missing] + records[missing + 1 :]
        if renumbered:
            rest = [changed(record, number=number) for number, record in enumerate(rest, start=1)]

        said = refusal(rest)

        assert said.startswith(f"journal.jsonl:{missing + 1}: ")
        assert renumbered or f"it is step {missing + 2} after step {missing}: a step is missing" in said


@dataclass(frozen=True)
class Mutation:
    """A change to one record; None where it doesn't apply."""

    name: str
    make: Callable[[Record], Record | None]


def _without_first_effect(record: Record) -> Record | None:
    return changed(record, effects=record.effects[1:]) if record.effects else None


def _effects_turned_round(record: Record) -> Record | None:
    return changed(record, effects=record.effects[::-1]) if len(record.effects) > 1 else None


def _another_request(record: Record) -> Record | None:
    if not record.effects:
        return None
    return changed(record, effects=(*record.effects[:-1], record.effects[-1] | {"request": 4711}))


def _another_field(record: Record) -> Record | None:
    for number, effect in enumerate(record.effects):
        for key, value in effect.items():
            if key not in ("name", "request") and isinstance(value, str):
                effects = (*record.effects[:number], effect | {key: f"{value}x"}, *record.effects[number + 1 :])
                return changed(record, effects=effects)
    return None


def _another_installed(record: Record) -> Record | None:
    candidate = record.memory["candidate"]
    return with_memory(record, candidate=candidate | {"url": "http://elsewhere"}) if candidate else None


def _timer_forgotten(record: Record) -> Record | None:
    timers = record.machine["timers"]
    return with_machine(record, timers=timers[1:]) if timers else None


MUTATIONS = (
    Mutation("another-target", lambda record: changed(record, target="idle.degraded")),
    Mutation("another-source", lambda record: changed(record, source="idle.degraded")),
    Mutation("an-event-of-another-name", lambda record: changed(record, event=record.event | {"name": "poll.overdue"})),
    Mutation("one-effect-less", _without_first_effect),
    Mutation(
        "one-effect-more",
        lambda record: changed(record, effects=(*record.effects, {"name": "probe.stop", "request": None})),
    ),
    Mutation("effects-in-another-order", _effects_turned_round),
    Mutation("an-effect-for-another-request", _another_request),
    Mutation("an-effect-with-another-field", _another_field),
    Mutation(
        "a-failure-more-in-the-memory", lambda record: with_memory(record, failures=record.memory["failures"] + 1)
    ),
    Mutation("exposed-or-not", lambda record: with_memory(record, exposed=not record.memory["exposed"])),
    Mutation("another-candidate", _another_installed),
    Mutation("another-machine-state", lambda record: with_machine(record, state="idle.degraded")),
    Mutation("a-timer-forgotten", _timer_forgotten),
    Mutation("a-request-skipped", lambda record: with_machine(record, next_request=record.machine["next_request"] + 1)),
    Mutation("another-time", lambda record: changed(record, at=record.at + timedelta(seconds=1))),
    Mutation("no-memory", lambda record: changed(record, memory={})),
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_change_to_any_step_is_refused_at_its_line(mutation: Mutation) -> None:
    """Every record after the first of two journals is changed, one at a time."""
    tried = 0
    for name in ("bad_release", "killed_in_soaking"):
        records = recorded(name)
        for at in range(1, len(records)):
            mutant = mutation.make(records[at])
            if mutant is None or mutant == records[at]:
                continue
            tried += 1

            said = refusal([*records[:at], mutant, *records[at + 1 :]], begin=at - 1)

            assert said.startswith(f"journal.jsonl:{at + 1}: "), said
            assert "\n" not in said
    assert tried >= 5


def test_a_difference_is_named_down_to_its_field() -> None:
    records = recorded("good_update")
    at = position(records, "swapping.probing", "probe.passed")
    effects = tuple(
        effect | {"url": "http://127.0.0.1:1"} if effect["name"] == "balancer.switch" else effect
        for effect in records[at].effects
    )
    records[at] = changed(records[at], effects=effects)

    assert refusal(records).endswith(
        'balancer.switch.url is "http://127.0.0.1:1"; the chart makes it "http://127.0.0.1:9003"'
    )
