"""Answers and timers that come too late are not looked at; a stopped machine goes on where it was."""

from dataclasses import replace

import pytest

from outrider.core.chart.load import ChartError
from outrider.core.chart.machine import ArmedTimer, CancelTimer, Hierarchy, Machine, Outstanding, StartTimer
from tests.support.charts import load
from tests.support.machines import REST, Notes, begun, make_rules, names, news
from tests.support.oracle import Happening

# --- requests -------------------------------------------------------------------------------------------------------

ASKING = f"""
<state id="a" initial="a.b">
  <onentry><send type="effect" event="do.that"/></onentry>
  <transition event="tick" target="z"/>
  <state id="a.b" {REST}>
    <onentry><send type="effect" event="do.this"/><send type="effect" event="cross"/></onentry>
    <transition event="answer" target="a.c"/>
    <transition event="late" target="a.b"/>
    <transition event="progress"><send type="effect" event="do.this"/></transition>
  </state>
  <state id="a.c" {REST}/>
</state>
<state id="z" {REST}>
  <transition event="back" target="a"><send type="effect" event="do.this"/></transition>
</state>"""


def owners(machine: Machine[Notes]) -> dict[int, tuple[str, str]]:
    return {one.request: (one.effect_name, one.state) for one in machine.snapshot().outstanding}


def test_only_an_answered_effect_gets_a_request_and_it_belongs_to_the_state_that_asked() -> None:
    machine = Machine(load(ASKING), make_rules(), Notes())

    step = machine.start()

    assert ["do.that#1", "do.this#2", "cross"] == names(step.actions)
    assert {1: ("do.that", "a"), 2: ("do.this", "a.b")} == owners(machine)


def test_an_answer_uses_its_request_up_even_where_nobody_listens() -> None:
    machine = begun(ASKING)

    assert not machine.step(Happening(name="lock.lost", request=1)).dropped
    assert "request 1 is no longer outstanding" == machine.step(Happening(name="answer", request=1)).dropped


def test_an_answer_to_a_state_that_was_left_is_neither_remembered_nor_handled() -> None:
    machine = begun(ASKING)
    machine.step(Happening(name="answer", request=2))
    before = machine.memory, machine.snapshot()

    step = machine.step(Happening(name="tick", request=2))

    assert "request 2 is no longer outstanding" == step.dropped
    assert ("a.c", "a.c", (), False) == (step.source, step.target, step.actions, step.handled)
    assert before == (machine.memory, machine.snapshot())


def test_a_request_of_a_state_around_outlives_its_children() -> None:
    machine = begun(ASKING)

    machine.step(Happening(name="answer", request=2))

    assert {1: ("do.that", "a")} == owners(machine)


def test_entering_a_state_again_makes_its_old_request_void() -> None:
    machine = begun(ASKING)

    step = machine.step(news("late"))

    assert ["do.this#3", "cross"] == names(step.actions)
    assert machine.step(Happening(name="answer", request=2)).dropped
    assert "a.c" == machine.step(Happening(name="answer", request=3)).target


def test_news_of_progress_leaves_the_request_open() -> None:
    machine = begun(ASKING)

    for _ in range(2):
        assert machine.step(Happening(name="lock.lost", request=2, final=False)).dropped == ""

    assert "a.c" == machine.step(Happening(name="answer", request=2)).target


def test_an_effect_of_a_transition_belongs_to_where_it_leads_or_to_its_own_state_if_it_stays() -> None:
    machine = begun(ASKING)
    machine.step(news("progress"))
    assert ("do.this", "a.b") == owners(machine)[3]
    machine.step(news("tick"))
    assert {} == owners(machine)

    machine.step(news("back"))

    assert {4: ("do.this", "a"), 5: ("do.that", "a"), 6: ("do.this", "a.b")} == owners(machine)


# --- timers ---------------------------------------------------------------------------------------------------------

TIMED = f"""
<state id="a" o:why="x">
  <onentry><send event="late" id="wait" delay="30s"/></onentry>
  <onexit><cancel sendid="wait"/></onexit>
  <transition event="late" target="b"/>
  <transition event="go" target="b"/>
  <transition event="tick" target="a"/>
  <transition event="progress"><send event="late" id="wait" delay="1min"/></transition>
</state>
<state id="b" {REST}><transition event="late back" target="a"/></state>"""


def test_a_timer_is_started_on_entry_and_cancelled_on_exit() -> None:
    machine = Machine(load(TIMED), make_rules(), Notes())

    assert (StartTimer(id="wait", generation=1, event="late", delay_s=30.0),) == machine.start().actions
    assert (CancelTimer(id="wait", generation=1),) == machine.step(news("go")).actions
    assert () == machine.snapshot().timers


def test_a_timer_that_ran_out_is_not_cancelled_again() -> None:
    step = begun(TIMED).step(Happening(name="late", generation=1))

    assert ("b", (), "") == (step.target, step.actions, step.dropped)


def test_a_timer_of_a_state_that_was_left_is_dropped() -> None:
    machine = begun(TIMED)
    machine.step(news("go"))

    step = machine.step(Happening(name="late", generation=1))

    assert ("b", "timer wait generation 1 was cancelled") == (step.target, step.dropped)
    assert ("go",) == machine.memory.seen


def test_leaving_and_entering_a_state_makes_its_old_timer_void() -> None:
    machine = begun(TIMED)

    step = machine.step(news("tick"))

    assert ["-wait", "+wait"] == names(step.actions)
    assert machine.step(Happening(name="late", generation=1)).dropped
    assert "b" == machine.step(Happening(name="late", generation=2)).target


def test_starting_a_running_timer_again_replaces_it() -> None:
    machine = begun(TIMED)

    step = machine.step(news("progress"))

    assert (StartTimer(id="wait", generation=2, event="late", delay_s=60.0),) == step.actions
    assert (ArmedTimer(id="wait", generation=2, event="late", delay_s=60.0, state="a"),) == machine.snapshot().timers


def test_the_delay_is_the_one_that_the_rules_make_of_the_charts() -> None:
    machine = begun(
        TIMED, delays=lambda memory, timer, delay_s: delay_s * (2 + len(memory.seen)) if timer == "wait" else 0
    )

    assert [60.0] == [timer.delay_s for timer in machine.snapshot().timers]
    machine.step(news("tick"))
    assert [90.0] == [timer.delay_s for timer in machine.snapshot().timers]


# --- going on -------------------------------------------------------------------------------------------------------


def test_a_restored_machine_goes_on_as_the_one_that_was_stopped() -> None:
    machine = begun(ASKING)
    machine.step(news("progress"))
    snapshot = machine.snapshot()
    again = Machine.restore(machine.chart, make_rules(), machine.memory, snapshot)
    assert snapshot == again.snapshot()

    for event in (news("lock.lost"), Happening(name="answer", request=2), news("tick"), news("back"), news("late")):
        assert machine.step(event) == again.step(event)
    assert (machine.memory, machine.snapshot()) == (again.memory, again.snapshot())


def test_a_snapshot_of_another_chart_is_refused() -> None:
    machine = begun(ASKING)

    for wrong in (replace(machine.snapshot(), state="a"), replace(machine.snapshot(), history={"a": "gone"})):
        with pytest.raises(ChartError, match="the chart has no such leaf state"):
            Machine.restore(machine.chart, make_rules(), Notes(), wrong)


def test_machines_that_share_a_hierarchy_do_not_meet() -> None:
    chart = load(ASKING)
    hierarchy = Hierarchy(chart)
    one, other = (Machine(chart, make_rules(), Notes(), hierarchy=hierarchy) for _ in range(2))
    one.start()
    other.start()

    one.step(news("tick"))

    assert ("z", "a.b") == (one.state, other.state)
    assert (Outstanding(request=1, effect_name="do.that", state="a"),) == other.snapshot().outstanding[:1]
