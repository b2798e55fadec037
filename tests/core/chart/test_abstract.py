"""An abstract state holds what its children answer alike: it is a state, but no part of their ids."""

import random

import pytest

from outrider.core.chart.draw import to_table, whole
from outrider.core.chart.flat import flattened
from outrider.core.chart.load import ChartError, load_chart
from outrider.core.chart.machine import Machine
from outrider.statechart import load_sidekick_chart
from tests.support.charts import load
from tests.support.oracle import ChartMaker, Happening, random_event, trace_rules

ALIKE = """
<state id="a" initial="a.like">
  <state id="a.like" o:abstract="true">
    <transition event="go" cond="may_go" target="b"/>
    <transition event="back" target="a.two" type="internal"/>
    <state id="a.one" o:why="x" o:resting="true">
      <onexit><send type="effect" event="leave.a"/></onexit>
      <transition event="go" cond="is_new" target="a.two"/>
    </state>
    <state id="a.two" o:why="x" o:resting="true"/>
  </state>
</state>
<state id="b" o:why="x" o:resting="true"><transition event="back" target="a"/></state>"""


def refused(body: str) -> str:
    with pytest.raises(ChartError) as caught:
        load(body)
    return str(caught.value)


def test_a_child_is_asked_before_the_abstract_state_around_it() -> None:
    chart = load(ALIKE)
    guards = frozenset({"may_go", "is_new"})
    machine = Machine(chart, trace_rules(chart, guards, frozenset({"leave.a"})), frozenset[str]())
    machine.start()

    no = machine.step(Happening(name="go"))
    inside = machine.step(Happening(name="go", true=guards))
    beyond = machine.step(Happening(name="go", true=guards))

    assert ("a.one", ("is_new", "may_go")) == (no.target, no.refused)
    assert ["a.two", "b"] == [inside.target, beyond.target]
    assert ["leave.a"] == [action.effect.name for action in inside.actions]  # type: ignore[union-attr]


def test_an_internal_transition_of_it_leads_to_any_of_its_children() -> None:
    chart = load(ALIKE)
    machine = Machine(chart, trace_rules(chart, frozenset({"may_go", "is_new"}), frozenset({"leave.a"})), frozenset())
    machine.start()

    assert ["a.two", "a.two"] == [machine.step(Happening(name="back")).target for _ in range(2)]


def test_without_abstract_states_each_child_has_the_transitions_itself() -> None:
    flat = flattened(load(ALIKE))

    assert ["a", "a.one", "a.two", "b"] == list(flat.states)
    assert ("a.one", ("a.one", "a.two"), "a") == (
        flat.states["a"].initial,
        flat.states["a"].children,
        flat.states["a.two"].parent,
    )
    assert [("go", "a.two"), ("go", "b"), ("back", "a.two")] == [
        (way.written[0], way.target) for way in flat.states["a.one"].transitions
    ]
    assert not flattened(load_sidekick_chart()).states.keys() & {"preparing", "swapping.exposed"}


def test_pictures_show_only_states_that_one_can_be_in_and_the_table_all() -> None:
    chart = load(ALIKE)

    arrows = {(arrow.source, arrow.target) for arrow in whole(chart).arrows}
    table = to_table(chart)

    assert {("a.one", "a.two"), ("a.one", "b"), ("a.two", "b"), ("a.two", "a.two"), ("b", "a")} == arrows
    assert "### a.like\n\nIt holds what `a.one`, `a.two` answer alike.\n" in table
    assert "What it does not answer itself, `a.like` answers." in table


@pytest.mark.parametrize(
    ("was", "becomes", "problem"),
    [
        ('<state id="a.two" o:why="x" o:resting="true"/>', "",
         "2: abstract state 'a.like' needs two children or more that answer alike"),
        ('<transition event="go" cond="may_go"', '<onentry/><transition event="go" cond="may_go"',
         "3: <onentry> is not allowed in abstract state 'a.like': only states and transitions"),
        ('<state id="a" initial="a.like">',
         '<state id="a" initial="a.like"><history id="a.last"><transition target="a.like"/></history>',
         "2: abstract state 'a.like' can't lie in a state that has a <history>"),
        ('<state id="a.one"', '<state id="a.like.one"',
         "5: the id 'a.like.one' doesn't say where it stands: it lies in the state 'a': call it 'a.one'"),
        ('target="a.two" type="internal"', 'target="a.two"',
         "4: a target inside of 'a.like' must be a direct child, with type=\"internal\""),
        ('<state id="a" initial="a.like">',
         '<state id="a" initial="a.like"><transition event="tick" target="a.two" type="internal"/>',
         "1: type=\"internal\" leads to a direct child of 'a' only, not to 'a.two'"),
    ],
)  # fmt: skip
def test_an_abstract_state_that_does_more_is_refused(was: str, becomes: str, problem: str) -> None:
    assert ALIKE.count(was) == 1

    assert f"small.scxml:{problem}" in refused(ALIKE.replace(was, becomes))


@pytest.mark.parametrize("seed", range(8))
def test_a_random_chart_does_the_same_without_its_abstract_states(seed: int) -> None:
    made, chance = ChartMaker(seed), random.Random(seed)
    chart = load_chart(made.source, "random.scxml", made.vocabulary)
    guards, effects = made.vocabulary.guards, made.vocabulary.effects
    one, other = (Machine(each, trace_rules(each, guards, effects), frozenset()) for each in (chart, flattened(chart)))

    assert one.start() == other.start()
    for _ in range(100):
        event = random_event(chance, made.news, guards, one)
        try:
            step = one.step(event)
        except ChartError:
            break  # it raises events forever
        assert step == other.step(event)
        assert one.snapshot() == other.snapshot()
