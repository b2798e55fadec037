"""What is reported of a chart with several problems, and of one that asks and doesn't listen."""

from dataclasses import replace

import pytest

from outrider.core.chart.load import ChartError, load_chart
from outrider.core.sidekick.rules import VOCABULARY as SIDEKICK
from outrider.statechart import find_sidekick_chart
from tests.support.charts import VOCABULARY, load

TIMED = """
<state id="a" o:why="x">
<onentry><send type="effect" event="do.this"/><send event="late" id="t" delay="1s"/></onentry>
<onexit><cancel sendid="t"/></onexit>
<transition event="answer" cond="is_new" target="b"/>
<transition event="late" target="b"/>
</state>
<state id="b" o:why="x" o:resting="true"><transition event="back" target="a"/></state>"""
ASKING = replace(VOCABULARY, answers={"do.this": frozenset({"answer"})})


def refused(body: str) -> str:
    with pytest.raises(ChartError) as caught:
        load(body, vocabulary=ASKING)
    return str(caught.value)


@pytest.mark.parametrize(
    ("was", "becomes", "problem"),
    [
        ('event="late" target', 'event="lat" target', "5: unknown event 'lat'; did you mean 'late'?"),
        ('sendid="t"', 'sendid="tt"', "3: unknown timer 'tt'; did you mean 't'?"),
        ('cond="is_new"', 'cond="is_now"', "4: unknown guard 'is_now'; did you mean 'is_new'"),
        ('event="do.this"', 'event="do.thin"', "2: unknown effect 'do.thin'; did you mean 'do.this'"),
        ('event="answer"', 'event="anser"', "4: unknown event 'anser'; did you mean 'answer'?"),
        ('event="back" target="a"', 'event="bak" target="a"', "7: unknown event 'bak'; did you mean 'back'"),
    ],
)
def test_an_unknown_name_is_reported_before_what_looks_wrong_because_of_it(
    was: str, becomes: str, problem: str
) -> None:
    """Without the name, state 'a' has no deadline, no answer, or a timer that isn't cancelled: in earlier lines."""
    assert load(TIMED, vocabulary=ASKING)
    assert TIMED.count(was) == 1

    assert f"small.scxml:{problem}" in refused(TIMED.replace(was, becomes))


def test_a_state_that_does_not_listen_to_the_answer_it_asked_for_is_refused() -> None:
    deaf = TIMED.replace('event="answer" cond="is_new"', 'event="go"')

    assert "small.scxml:2: state 'a' has no answer to 'answer', which 'do.this' may bring" in refused(deaf)


def test_an_answer_may_be_heard_by_a_state_around() -> None:
    around = TIMED.replace('<state id="a" o:why="x">', '<state id="a" initial="a.c"><state id="a.c" o:why="x"/>')

    assert load(around, vocabulary=ASKING)


def test_a_state_that_rests_does_not_wait_for_an_answer_without_a_deadline() -> None:
    rests = TIMED.replace('o:why="x">', 'o:why="x" o:resting="true">', 1).replace(
        '<send event="late" id="t" delay="1s"/>', ""
    ).replace('<cancel sendid="t"/>', "")  # fmt: skip

    assert "small.scxml:2: state 'a' waits for 'do.this' without a deadline: start a timer" in refused(rests)


def test_nothing_that_is_answered_is_asked_for_on_leaving() -> None:
    leaving = TIMED.replace('<cancel sendid="t"/>', '<cancel sendid="t"/><send type="effect" event="do.this"/>')

    assert "small.scxml:3: 'do.this' is answered, and 'a' is left by then" in refused(leaving)


@pytest.mark.parametrize(
    ("event", "effect", "state"),
    [
        ("release.verified", "release.verify", "verifying"),
        ("workload.retired", "workload.retire", "idle.stopping"),
        ("report.queued", "report.result", "reporting"),
    ],
)
def test_the_shipped_chart_without_an_answer_is_refused(event: str, effect: str, state: str) -> None:
    text = find_sidekick_chart().read_text(encoding="utf-8")
    assert text.count(event)

    with pytest.raises(ChartError) as caught:
        load_chart(text.replace(event, "switch.due").encode(), "sidekick.scxml", SIDEKICK)

    assert f"state {state!r} has no answer to {event!r}, which {effect!r} may bring" in str(caught.value)
