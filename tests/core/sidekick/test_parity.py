"""Anything written twice is compared: chart and code, settings and words."""

import re
import string
from dataclasses import replace
from pathlib import Path

import pytest

import outrider
from outrider.config.load import load_settings
from outrider.config.sections import Settings
from outrider.core.chart.model import RaiseEvent, SendEffect, SendLater, State
from outrider.core.sidekick.effects import ANSWERED, EFFECT_TYPES, NOUNS
from outrider.core.sidekick.events import TIMERS
from outrider.core.sidekick.remember import _TIMER_TROUBLE, EVENT_TYPES
from outrider.core.sidekick.rules import EFFECTS, GUARDS, INTERNAL
from outrider.core.sidekick.words import FACTS
from outrider.sidekick.assemble import delays
from outrider.statechart import load_sidekick_chart

CHART = load_sidekick_chart()
ONLY_REMEMBERED = {
    "release.progressed",
    "analysis.sampled",
    "lock.queued",
    "task.progressed",
    "lock.failed",
    "update.ended",
    "update.exposed",
    "update.failed",
}
"""Events that tell a fact and move nothing."""


def contents() -> list[object]:
    return [item for _, item in CHART.contents()]


def test_every_guard_in_the_table_is_asked_by_the_chart() -> None:
    asked = {condition.guard for transition in CHART.transitions for condition in transition.conditions}

    assert set(GUARDS) == asked


def test_every_effect_class_has_a_builder_and_is_sent_by_the_chart() -> None:
    sent = {item.effect for item in contents() if isinstance(item, SendEffect)}

    assert set(EFFECT_TYPES) == set(EFFECTS) == sent
    assert sent >= ANSWERED


def test_every_effect_is_of_the_one_noun_that_its_name_begins_with() -> None:
    assert {name: {kind.name.partition(".")[0] for kind in kinds} for name, kinds in NOUNS.items()} == {
        name: {name} for name in NOUNS
    }
    assert sorted(EFFECT_TYPES) == sorted(kind.name for kinds in NOUNS.values() for kind in kinds)


def test_every_effect_says_itself_what_answers_it() -> None:
    """``answered_by`` is written at each class, also where it is empty: forgotten, it would mean 'never waited for'."""
    for kind in EFFECT_TYPES.values():
        assert "answered_by" in vars(kind), f"{kind.__name__} doesn't say what answers it"
        assert {event.name for event in kind.answered_by} <= set(EVENT_TYPES)
        assert all(event.final for event in kind.answered_by)


def test_effects_are_called_by_their_class_turned_round() -> None:
    """``AcquireLock`` is ``lock.acquire``; reports are all of one noun: ``ReportResult`` is ``report.result``."""
    for name, kind in EFFECT_TYPES.items():
        words = [word.lower() for word in re.findall("[A-Z][a-z]+", kind.__name__)]
        assert name in (f"{words[-1]}.{words[0]}", f"report.{words[-1]}", "sidekick.alarm"), kind.__name__


def test_every_event_class_is_listened_to_or_only_remembered() -> None:
    heard = {event for transition in CHART.transitions for event in transition.events}

    assert set(EVENT_TYPES) - heard == ONLY_REMEMBERED


def test_timers_of_chart_and_code_are_the_same() -> None:
    started = {item.event for item in contents() if isinstance(item, SendLater)}

    assert started == TIMERS
    assert set(_TIMER_TROUBLE) <= TIMERS


@pytest.fixture
def left_out(tmp_path: Path) -> Settings:
    """Settings of which only those without a default are made."""
    config = tmp_path / "a.toml"
    config.write_text(
        f'[instance]\nid = "a"\napp = "x"\ngroup = "g"\nstate_dir = "{tmp_path}"\nbalancer = "none"\n'
        '[process]\ncommand = ["./run"]\n'
    )
    return load_settings((config,), {}).settings


def test_every_timer_is_set_by_a_setting_or_says_why_not(left_out: Settings) -> None:
    timers = {item.timer: item for item in contents() if isinstance(item, SendLater)}
    fixed = {name for name, item in timers.items() if item.fixed}

    assert set(timers) == set(delays(left_out)) | fixed | {"retry"}
    assert not fixed & {*delays(left_out), "retry"}


def test_the_delays_of_the_chart_are_those_of_settings_that_are_left_out(left_out: Settings) -> None:
    written = {item.timer: item.delay_s for item in contents() if isinstance(item, SendLater)}

    assert {name: written[name] for name in delays(left_out)} == delays(left_out)
    assert written["retry"] == left_out.service.retry_min_s


def test_what_etcd_takes_long_for_is_waited_for(left_out: Settings) -> None:
    """Asked again earlier than a call may take, no answer would ever come in time."""
    slow = replace(left_out, etcd=replace(left_out.etcd, timeout_s=20.0))

    waits = delays(slow)

    for timer in ("withdraw", "release", "giveback", "block", "restore", "quit", "return", "comeback", "switch"):
        assert waits[timer] > 20.0, timer
    for timer in ("reclaim", "relock"):
        assert waits[timer] > 2 * 20.0, timer


def test_events_that_the_chart_raises_can_be_built() -> None:
    raised = {item.event for item in contents() if isinstance(item, RaiseEvent)}

    assert raised == set(INTERNAL)


def test_reasons_use_only_facts_that_exist() -> None:
    used = {name for leaf in CHART.leaves for _, name, _, _ in string.Formatter().parse(leaf.why) if name}

    assert used == FACTS


def test_every_leaf_says_what_a_restart_means() -> None:
    for leaf in CHART.leaves:
        chain = CHART.chain(leaf.id)
        handled = {event for state in chain for transition in state.transitions for event in transition.events}
        assert "sidekick.restarted" in handled, leaf.id


def test_what_all_children_answer_alike_stands_in_the_state_around_them() -> None:
    """The last thing that a child does about an event could as well stand in its parent, and then does (rule 13)."""
    for state in CHART.states.values():
        alike = [set(last_answers(CHART.states[child])) for child in state.children]
        if len(alike) > 1:
            assert not set.intersection(*alike), f"all in {state.id!r} answer this alike"


def last_answers(state: State) -> dict[tuple[str, str, str, str], None]:
    """Event, conditions, target and content of the last transition for each event, without what numbers its lines."""
    last = {event: way for way in state.transitions for event in way.events}
    return {
        (
            event,
            repr([one.text for one in way.conditions]),
            repr(way.target),
            re.sub(r"line=\d+", "", repr(way.content)),
        ): None
        for event, way in last.items()
    }


def test_no_state_is_spelled_in_the_source() -> None:
    """States are the chart's business; code that asked for one would be a second place where transitions live."""
    names = [re.escape(state.id) for state in CHART.states.values() if "." in state.id]
    pattern = re.compile(rf"""["']({"|".join(names)})["']""")
    root = Path(outrider.__file__).parent

    found = [f"{path.name}: {m.group(0)}" for path in root.rglob("*.py") for m in pattern.finditer(path.read_text())]

    assert found == []


WITHOUT_TROUBLE = {
    "block.expired": "the verdict stands; the block is written again",
    "drain.expired": "a deadline that was set is the end of the wait, not a fault",
    "giveback.expired": "the turn is given back again",
    "quit.expired": "the turn is asked for again, then the entry is taken out again",
    "reclaim.expired": "the turn is asked for again",
    "release.expired": "the turn is given back again",
    "relock.expired": "the turn is asked for again",
    "report.expired": "reporting never changes a verdict",
    "restore.expired": "the turn is asked for again, then the entry is turned back again",
    "undrain.expired": "a deadline that was set is the end of the wait, not a fault",
    "withdraw.expired": "the queue entry is withdrawn again",
}
"""Deadlines that are no trouble of the update -> why."""


def test_every_deadline_has_a_cause_of_its_own_or_says_why_not() -> None:
    """Without one an operator would read of a failed update that "a deadline passed"."""
    deadlines = {name for name in TIMERS if name.endswith(".expired")}

    assert deadlines == set(_TIMER_TROUBLE) | set(WITHOUT_TROUBLE)
    assert not set(_TIMER_TROUBLE) & set(WITHOUT_TROUBLE)
