"""One event in, one step out: which way it goes, and in which order things are to be done."""

import pytest

from outrider.core.chart.load import Chart, ChartError, Vocabulary
from outrider.core.chart.machine import Machine, Perform
from tests.support.charts import load
from tests.support.machines import REST, Notes, Ticket, begun, make_rules, names, news

# --- order ----------------------------------------------------------------------------------------------------------

NESTED = f"""
<state id="a" initial="a.b">
  <onentry><send type="effect" event="enter.a"/></onentry>
  <onexit><send type="effect" event="leave.a"/></onexit>
  <transition event="tick" target="z"><send type="effect" event="cross"/></transition>
  <state id="a.b" {REST}>
    <onentry><send type="effect" event="enter.b"/></onentry>
    <onexit><send type="effect" event="leave.b"/></onexit>
    <transition event="back" target="a"/>
    <transition event="late" target="a.b"/>
    <transition event="progress"><send type="effect" event="cross"/></transition>
  </state>
</state>
<state id="z" {REST}><transition event="go" target="a"/></state>"""


def test_starting_enters_the_initial_states_from_the_outside_in() -> None:
    step = Machine(load(NESTED), make_rules(), Notes()).start()

    assert ("start", "", "a.b", True) == (step.event_name, step.source, step.target, step.handled)
    assert ["enter.a", "enter.b"] == names(step.actions)


def test_actions_come_in_the_order_exit_transition_entry() -> None:
    machine = begun(NESTED)

    assert ["leave.b", "leave.a", "cross"] == names(machine.step(news("tick")).actions)
    assert ["enter.a", "enter.b"] == names(machine.step(news("go")).actions)


def test_a_transition_to_a_state_around_leaves_and_enters_that_too() -> None:
    assert ["leave.b", "leave.a", "enter.a", "enter.b"] == names(begun(NESTED).step(news("back")).actions)


def test_a_transition_to_itself_leaves_and_enters_only_itself() -> None:
    assert ["leave.b", "enter.b"] == names(begun(NESTED).step(news("late")).actions)


def test_a_transition_without_a_target_leaves_nothing() -> None:
    step = begun(NESTED).step(news("progress"))

    assert (["cross"], "a.b", "a.b", True) == (names(step.actions), step.source, step.target, step.handled)


def test_a_child_is_asked_before_its_parent_and_the_earlier_before_the_later() -> None:
    machine = begun(f"""
<state id="a" initial="a.b">
  <transition event="go" target="x"/>
  <state id="a.b" {REST}>
    <transition event="go" cond="is_new" target="y"/>
    <transition event="go" cond="is_old and may_go" target="z"/>
  </state>
</state>
<state id="x" {REST}><transition event="back" target="a"/></state>
<state id="y" {REST}><transition event="back" target="a"/></state>
<state id="z" {REST}><transition event="back" target="a"/></state>""")

    assert ("x", ("is_new", "is_old")) == ((step := machine.step(news("go"))).target, step.refused)
    machine.step(news("back"))
    assert ("z", ("is_new",)) == ((step := machine.step(news("go", "is_old", "may_go"))).target, step.refused)
    machine.step(news("back"))
    assert ("y", ()) == ((step := machine.step(news("go", "is_new"))).target, step.refused)


def test_refused_guards_are_named_as_written_when_nothing_happens() -> None:
    machine = begun(f"""
<state id="a" {REST}><transition event="go" cond="!is_new and may_go" target="b"/></state>
<state id="b" {REST}><transition event="go" target="a"/></state>""")

    assert ("may_go",) == machine.step(news("go")).refused
    step = machine.step(news("go", "is_new"))

    assert (("!is_new",), False, "a") == (step.refused, step.handled, step.target)


def test_facts_are_remembered_before_guards_are_asked_and_effects_are_built() -> None:
    chart = load(f"""
<state id="a" {REST}><transition event="go" cond="is_new" target="b"/></state>
<state id="b" {REST}><onentry><send type="effect" event="do.this"/></onentry>
  <transition event="go" target="a"/></state>""")
    machine = Machine(chart, make_rules(), Notes())
    machine.start()

    step = machine.step(news("go", "is_new"))

    assert (Perform(request=1, effect=Ticket(name="do.this", after=1)),) == step.actions


def test_an_event_that_nobody_listens_to_is_remembered() -> None:
    machine = begun(NESTED)

    step = machine.step(news("lock.lost"))

    assert (False, "", ()) == (step.handled, step.dropped, step.actions)
    assert ("lock.lost",) == machine.memory.seen


# --- raised events --------------------------------------------------------------------------------------------------


def test_a_raised_event_comes_before_the_step_is_over_and_is_remembered() -> None:
    machine = begun(f"""
<state id="a" {REST}><transition event="go" target="b"><raise event="tick"/></transition></state>
<state id="b" {REST}><onentry><raise event="tock"/></onentry>
  <transition event="tick" target="c"/><transition event="back" target="a"/></state>
<state id="c" {REST}><transition event="tock" target="a"/></state>""")

    step = machine.step(news("go"))

    assert ("a", "a", True) == (step.source, step.target, step.handled)
    assert ("go", "tick", "tock") == machine.memory.seen


def test_entering_a_final_raises_the_done_event_of_its_parent_only() -> None:
    machine = begun(f"""
<state id="a" initial="a.b">
  <transition event="done.state.a.b" target="y"/>
  <state id="a.b" initial="a.b.c">
    <state id="a.b.c" {REST}><transition event="go" target="a.b.end"/></state>
    <final id="a.b.end"><onentry><raise event="tick"/></onentry></final>
  </state>
  <final id="a.end"/>
</state>
<state id="y" {REST}><transition event="back" target="a"/><transition event="go" target="a.end"/></state>""")

    assert "y" == machine.step(news("go")).target
    assert ("go", "tick", "done.state.a.b") == machine.memory.seen
    assert "a.end" == machine.step(news("go")).target
    assert ("go", "done.state.a") == machine.memory.seen[-2:]


def test_a_chart_that_raises_events_for_ever_is_an_error_with_its_line() -> None:
    machine = begun(f"""
<state id="a" {REST}><transition event="tick" target="b"/></state>
<state id="b" {REST}>
<onentry><raise event="tock"/></onentry>
<transition event="tock" target="b"/>
<transition event="back" target="a"/></state>""")

    with pytest.raises(ChartError, match=r"small\.scxml:3: 'tick' raises more than 100 events; the last: tock, tock"):
        machine.step(news("tick"))


# --- history --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "restored"),
    [("shallow", ["enter.a", "enter.b", "do.this#1"]), ("deep", ["enter.a", "enter.b", "do.that#1"])],
)
def test_a_history_leads_back_to_the_child_or_to_the_very_leaf(kind: str, restored: list[str]) -> None:
    machine = begun(
        f"""
<state id="a" initial="a.x">
  <onentry><send type="effect" event="enter.a"/></onentry>
  <transition event="tick" target="z"/>
  <state id="a.x" {REST}><transition event="go" target="a.b.two"/></state>
  <state id="a.b" initial="a.b.one">
    <onentry><send type="effect" event="enter.b"/></onentry>
    <state id="a.b.one" {REST}><onentry><send type="effect" event="do.this"/></onentry></state>
    <state id="a.b.two" {REST}><onentry><send type="effect" event="do.that"/></onentry></state>
  </state>
  <history id="a.last" type="{kind}"><transition target="a.x"/></history>
</state>
<state id="z" {REST}>
  <transition event="back" cond="is_new" target="a.last"><send type="effect" event="cross"/></transition>
  <transition event="go" target="a.b"/>
</state>""",
        initial="z",
    )

    assert ("is_new",) == machine.step(news("back")).refused, "one guard, however many states may be remembered"
    assert ["cross", "enter.a"] == names(machine.step(news("back", "is_new")).actions), "the default at first"
    machine.step(news("go"))
    machine.step(news("tick"))
    before = Machine.restore(machine.chart, make_rules(), machine.memory, machine.snapshot())

    step = machine.step(news("back"))

    first, *rest = names(step.actions)
    assert ("cross", [name.split("#")[0] for name in restored]) == (first, [name.split("#")[0] for name in rest])
    assert step == before.step(news("back")), "the memory of histories outlives a restart"


# --- misuse ---------------------------------------------------------------------------------------------------------


def test_misuse_is_told_at_once() -> None:
    chart = load(NESTED)
    machine = Machine(chart, make_rules(), Notes())

    with pytest.raises(ValueError, match="must be started first"):
        machine.step(news("go"))
    machine.start()
    with pytest.raises(ValueError, match=r"is in 'a\.b' already"):
        machine.start()
    with pytest.raises(ValueError, match=r"small\.scxml knows no event 'gone'"):
        machine.step(news("gone"))
    with pytest.raises(ValueError, match=r"lack effects: cross, enter\.a, enter\.b, leave\.a, leave\.b"):
        Machine(chart, make_rules(effects={}), Notes())


def test_names_that_python_or_transitions_use_themselves_are_only_names() -> None:
    words = ("state", "trigger", "to", "add", "initial", "name", "on_enter", "is_a", "leaf", "model", "class")
    chart: Chart = load(
        f'\n<state id="add" initial="add.to_x"><transition event="{" ".join(words)}" target="on_exit"/>'
        f'<state id="add.to_x" initial="add.to_x.add"><state id="add.to_x.add" {REST}/></state></state>'
        f'<state id="on_exit" {REST}><transition event="*" target="add"/></state>',
        initial="add",
        vocabulary=Vocabulary(events=frozenset(words), effects=frozenset(), guards=frozenset()),
    )
    for word in words:
        machine = Machine(chart, make_rules(), Notes())
        machine.start()
        assert ["on_exit", "add.to_x.add"] == [machine.step(news(word)).target for _ in range(2)], word
