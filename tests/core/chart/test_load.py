"""A chart is refused with the line of its first problem, or means what the file says."""

import pytest

from outrider.core.chart.flat import flattened
from outrider.core.chart.load import ChartError, Condition, SendLater, load_chart
from outrider.statechart import load_sidekick_chart
from tests.support.charts import HEAD, VOCABULARY, document, load

REST = 'o:why="rest" o:resting="true"'


def refused(body: str, initial: str = "a") -> str:
    with pytest.raises(ChartError) as caught:
        load(body, initial)
    return str(caught.value)


def two(inside: str) -> str:
    """Two states, a with ``inside`` from line 3 on, and a way back and forth."""
    return f"""
<state id="a" {REST}>
{inside}
<transition event="go" target="b"/>
</state>
<state id="b" {REST}><transition event="back" target="a"/></state>"""


# --- what is accepted -----------------------------------------------------------------------------------------------


def test_a_chart_keeps_what_the_file_says_with_its_lines() -> None:
    chart = load("""
<state id="a" o:why="a  turn" o:safe="true">
  <o:doc>Waits
     for it.</o:doc>
  <onentry><send event="late" id="wait" delay="1.5min"/></onentry>
  <onexit><cancel sendid="wait"/></onexit>
  <transition event="late go" cond="is_new and !may_go" target="b"/>
  <transition event="late" target="b"/>
</state>
<state id="b" initial="b.two">
  <transition event="error.*" target="a"/>
  <state id="b.one" o:why="x" o:resting="true"/>
  <state id="b.two" o:why="x" o:resting="true"><transition event="go" target="b.one"/></state>
</state>""")

    a, b = chart.states["a"], chart.states["b"]
    assert ("a turn", "Waits for it.", True, False, 1) == (a.why, a.doc, a.safe, a.resting, a.line)
    assert (SendLater(event="late", timer="wait", delay_s=90.0, delay="1.5min", line=4),) == a.onentry
    assert ("late", "go") == a.transitions[0].events
    conditions = (Condition(guard="is_new", wanted=True), Condition(guard="may_go", wanted=False))
    assert conditions == a.transitions[0].conditions
    assert ("!may_go", 6) == (a.transitions[0].conditions[1].text, a.transitions[0].line)
    assert (("error.*",), ("error.disk", "error.net")) == (b.transitions[0].written, b.transitions[0].events)
    assert (("b.one", "b.two"), "b.two") == (b.children, chart.entry_leaf("b"))
    assert ["a", "b", "b.one", "b.two"] == list(chart.states)
    assert ["b.two", "b"] == [state.id for state in chart.chain("b.two")]


@pytest.mark.parametrize(("delay", "delay_s"), [("500ms", 0.5), ("30s", 30.0), ("5min", 300.0), ("1h", 3600.0)])
def test_a_delay_is_read_in_its_unit(delay: str, delay_s: float) -> None:
    chart = load(
        two(f'<onentry><send event="go" id="t" delay="{delay}"/></onentry><onexit><cancel sendid="t"/></onexit>')
    )

    (timer,) = chart.states["a"].onentry
    assert isinstance(timer, SendLater)
    assert delay_s == timer.delay_s


def test_a_name_matches_the_names_below_it_as_in_scxml() -> None:
    chart = load("""
<state id="a" initial="a.b">
  <transition event="done.state.a" target="z"/>
  <state id="a.b" initial="a.b.c">
    <state id="a.b.c" o:why="x" o:resting="true"><transition event="go" target="a.b.end"/></state>
    <final id="a.b.end"/>
  </state>
  <final id="a.end"/>
</state>
<state id="z" o:why="x" o:resting="true"><transition event="*" target="a.end"/></state>""")

    assert ("done.state.a", "done.state.a.b") == chart.states["a"].transitions[0].events
    assert chart.events == set(chart.states["z"].transitions[0].events)


def test_the_chart_that_ships_is_sound_and_has_the_seven_top_states() -> None:
    chart = load_sidekick_chart()

    tops = ["idle", "checking", "downloading", "verifying", "swapping", "rollback", "reporting"]
    assert tops == [top.id for top in flattened(chart).tops]
    assert {"preparing"} == {top.id for top in chart.tops} - set(tops)


def test_a_start_tag_over_several_lines_is_reported_where_it_begins() -> None:
    assert "small.scxml:2: unknown guard 'newer'" in refused(
        two('<transition\n event="go"\n cond="newer"\n target="b"/>')
    )


# --- what is not XML, or not of the profile -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (b"", "small.scxml:1: not XML: no element found"),
        (b"<scxml>\n<state>\n</scxml>", "small.scxml:3: not XML: mismatched tag"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE scxml [<!ENTITY a "b">]>\n<scxml/>', "small.scxml:2: a DTD is not allowed"),
        (b"<svg/>", "small.scxml:1: <svg> is not a statechart"),
        (b"\xff\xfe\x00", "small.scxml:1: not XML"),
        (b"<a>&nbsp;</a>", "small.scxml:1: not XML: undefined entity"),
        (HEAD.format(initial="a").encode().replace(b'"1.0"', b'"2.0"') + b"</scxml>", "1: version='2.0' of <scxml>"),
        (document("", "a").replace(b' name="small"', b""), "small.scxml:1: <scxml> needs name="),
    ],
)
def test_what_is_no_statechart_is_refused(source: bytes, problem: str) -> None:
    with pytest.raises(ChartError) as caught:
        load_chart(source, "small.scxml", VOCABULARY)

    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("inside", "problem"),
    [
        ("<parallel/>", "2: <parallel> is not allowed in <state>; run two machines instead"),
        ("<invoke/>", "2: <invoke> is not allowed in <state>; send an effect instead"),
        ("<datamodel/>", "2: <datamodel> is not allowed in <state>; facts live in the memory, behind named guards"),
        ("<initial/>", "2: <initial> is not allowed in <state>; use the initial attribute instead"),
        ("<onentry><script/></onentry>", "2: <script> is not allowed in <onentry>"),
        ("<onentry>\n<if/></onentry>", "3: <if> is not allowed in <onentry>"),
        ('<x xmlns="urn:x"/>', "2: <{urn:x}x> is not allowed in <state>"),
        ('<transition target="b"/>', "2: <transition> needs event= (a transition without an event is outside"),
        ('<transition event="go" target="b c"/>', "2: target='b c' of <transition>"),
        ('<transition event="go" type="inner" target="b"/>', "2: type='inner' of <transition>: write internal or"),
        ('<transition event="go" colour="red"/>', "2: colour= is not allowed in <transition> in <state>; known: co"),
        ('<onentry><send event="late"/></onentry>', "2: <send> needs id=: an effect is <send type=\"effect\""),
        ('<onentry><send event="late" id="t" delay="30"/></onentry>', "2: delay='30' of <send>: write a number and"),
        ('<onentry><send event="late" id="t" delayexpr="x"/></onentry>', "2: delayexpr= is not allowed in <send>"),
        ('<onentry><send type="http" event="late"/></onentry>', "2: type='http' of <send>: write effect"),
        ('<onentry><raise event="Go"/></onentry>', "2: event='Go' of <raise>: write lower-case words"),
        ("<onentry>hello</onentry>", "2: text is not allowed in <onentry>; write <o:doc> for remarks"),
        ('<history id="a.h"/>', '2: <history> needs one <transition target="..."/>'),
    ],
)  # fmt: skip
def test_what_the_profile_leaves_out_is_refused_with_its_line(inside: str, problem: str) -> None:
    assert f"small.scxml:{problem}" in refused(two(inside))


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "problem"),
    [
        ('<transition event="gone" target="b"/>', "2: unknown event 'gone'; did you mean 'go'?"),
        ('<transition event="lock" target="b"/>', "2: unknown event 'lock'"),
        ('<transition event="warning.*" target="b"/>', "2: unknown event 'warning.*'"),
        ('<transition event="done.state.a" target="b"/>', "2: unknown event 'done.state.a'"),
        ('<onentry><raise event="gone"/></onentry>', "2: unknown event 'gone'"),
        ('<onentry><send event="gone" id="t" delay="1s"/></onentry>', "2: unknown event 'gone'"),
        (
            '<onentry><send type="effect" event="do.those"/></onentry>',
            "2: unknown effect 'do.those'; did you mean 'do.th",
        ),
        ('<transition event="go" cond="newer" target="b"/>', "2: unknown guard 'newer'"),
        ('<transition event="go" cond="is_new and newer" target="b"/>', "2: unknown guard 'newer'"),
        (
            '<transition event="go" cond="is_new or may_go" target="b"/>',
            "2: cond='is_new or may_go' of <transition>: write",
        ),
        (
            '<transition event="go" cond="x.y()" target="b"/>',
            "2: cond='x.y()' of <transition>: write 'guard', '!guard'",
        ),
        ('<transition event="go" target="c"/>', "2: unknown target 'c'; known: a, b"),
        ('<onexit><cancel sendid="t"/></onexit>', "2: unknown timer 't'"),
    ],
)
def test_an_unknown_name_is_refused_with_its_line(inside: str, problem: str) -> None:
    assert f"small.scxml:{problem}" in refused(two(inside))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (two(f'<state id="b" {REST}/>').replace(f'"a" {REST}', '"a"'),
         "2: the id 'b' doesn't say where it stands: it lies in the state 'a': call it 'a.b'"),
        (two("") + f'\n<state id="a" {REST}/>', "6: the id 'a' is taken already"),
        (two("") + f'\n<state id="c.d" {REST}/>', "6: the id 'c.d' doesn't say where it stands: it lies in no state"),
        (two("") + '\n<history id="h"><transition target="a"/></history>', "6: <history> is not allowed in <scxml>"),
        (f'\n<state id="a" initial="a.c.d"><state id="a.c" initial="a.c.d"><state id="a.c.d" {REST}/></state></state>',
         "1: initial 'a.c.d' must be a direct child of 'a'; children: a.c"),
    ],
)  # fmt: skip
def test_an_id_that_does_not_say_where_it_stands_is_refused(body: str, problem: str) -> None:
    assert f"small.scxml:{problem}" in refused(body)


def test_the_chart_must_begin_in_a_top_state() -> None:
    assert "small.scxml:1: initial 'c' must be one of the top states" in refused(two(""), initial="c")


# --- targets for which transitions and SCXML disagree ---------------------------------------------------------------

NESTED = f"""
<state id="a" initial="a.b">
{{}}
  <transition event="go" target="z"/>
  <state id="a.b" initial="a.b.c">
{{}}
    <state id="a.b.c" {REST}/>
  </state>
  <history id="a.last"><transition target="a.b"/></history>
</state>
<state id="z" {REST}><transition event="back" target="a.last"/></state>"""


@pytest.mark.parametrize(
    ("outer", "inner", "problem"),
    [
        ('<transition event="tick" target="a.b"/>', "", "2: a target inside of 'a' must be a direct child, with"),
        ('<transition event="tick" target="a.b.c"/>', "", "2: a target inside of 'a' must be a direct child"),
        ('<transition event="tick" type="internal" target="a.b.c"/>', "", "2: type=\"internal\" leads to a direct"),
        ('<transition event="tick" type="internal" target="z"/>', "", "2: type=\"internal\" leads to a direct"),
        ('<transition event="tick" type="internal"/>', "", "2: type=\"internal\" needs a target"),
        ('<transition event="tick" target="a.last"/>', "", "2: history 'a.last' can only be entered from outside of"),
        ("", '<transition event="tick" target="a.last"/>', "5: history 'a.last' can only be entered from outside of"),
    ],
)  # fmt: skip
def test_a_target_that_means_two_things_is_refused(outer: str, inner: str, problem: str) -> None:
    assert load(NESTED.format("", "")).histories["a.last"].default == "a.b"

    assert f"small.scxml:{problem}" in refused(NESTED.format(outer, inner))


@pytest.mark.parametrize(
    ("kind", "default", "problem"),
    [
        ("shallow", "a.b.c", "8: target 'a.b.c' must be a direct child"),
        ("deep", "z", "8: target 'z' must be a state in 'a'"),
        ("deep", "a.last", "8: unknown target 'a.last'"),
    ],
)
def test_a_history_that_leads_elsewhere_at_first_is_refused(kind: str, default: str, problem: str) -> None:
    wrong = f'<history id="a.last" type="{kind}"><transition target="{default}"/></history>'
    body = NESTED.format("", "").replace('<history id="a.last"><transition target="a.b"/></history>', wrong)

    assert f"small.scxml:{problem}" in refused(body)


# --- charts that get stuck ------------------------------------------------------------------------------------------


def test_a_state_that_nothing_leads_to_is_refused() -> None:
    body = (
        two("")
        + f'\n<state id="c" {REST}><transition event="go" target="c.d"/>\n<transition event="go" target="a"/></state>'
    )

    assert "small.scxml:6: state 'c' can't be reached" in refused(body.replace(' target="c.d"', ""))


def test_a_state_that_only_a_history_leads_to_is_reached() -> None:
    chart = load(f"""
<state id="a" {REST}><transition event="go" target="b.c.e"/><transition event="back" target="b.last"/></state>
<state id="b" initial="b.c">
  <transition event="back" target="a"/>
  <state id="b.c" initial="b.c.d"><state id="b.c.d" {REST}/><state id="b.c.e" {REST}/></state>
  <state id="b.f" {REST}><transition event="go" target="b.c.e"/></state>
  <history id="b.last"><transition target="b.f"/></history>
</state>""")

    assert "b.c.d" in chart.states


def test_a_history_that_nobody_enters_is_refused() -> None:
    body = NESTED.format("", "").replace('target="a.last"', 'target="a"')

    assert "small.scxml:8: history 'a.last' is never entered" in refused(body)


def test_a_state_that_nothing_leads_out_of_is_refused() -> None:
    body = two("").replace('<transition event="back" target="a"/>', '<transition event="back"/>')

    assert "small.scxml:5: state 'b' is never left" in refused(body)


def test_a_leaf_must_say_what_it_waits_for() -> None:
    body = two("").replace('<state id="b" o:why="rest"', '<state id="b"')

    assert "small.scxml:5: state 'b' must say what it waits for: add o:why" in refused(body)


def test_what_is_said_of_leaves_is_refused_elsewhere() -> None:
    body = NESTED.format("", "").replace('<state id="a.b" initial', '<state id="a.b" o:safe="true" initial')

    assert "small.scxml:4: o:safe belongs on a leaf, and 'a.b' has children" in refused(body)


TIMED = """
<state id="a" o:why="x">
<onentry><send event="late" id="t" delay="1s"/></onentry>
<onexit><cancel sendid="t"/></onexit>
<transition event="late" target="b"/>
</state>
<state id="b" o:why="x" o:resting="true"><transition event="back" target="a"/></state>"""


@pytest.mark.parametrize(
    ("was", "becomes", "problem"),
    [
        ('<onentry><send event="late" id="t" delay="1s"/></onentry>\n<onexit><cancel sendid="t"/></onexit>', "\n",
         "1: state 'a' waits without a deadline: start a timer or say o:resting"),
        ('event="late" target', 'event="go" target', "1: state 'a' waits without a deadline (it doesn't listen to"),
        ('event="late" target', 'event="late" cond="is_new" target', "1: state 'a' may miss its deadline: guards can"),
        ('<cancel sendid="t"/>', "", "2: timer 't' is not cancelled when 'a' is left: add <cancel> to its onexit"),
        ('delay="1s"', 'delay="0s"', "2: delay='0s' of <send> must be longer than nothing"),
        ('<cancel sendid="t"/>', '<cancel sendid="t"/><send event="late" id="u" delay="1s"/>',
         "3: timer 'u' is started on leaving 'a'"),
        ('delay="1s"/>', 'delay="1s"/><send event="go" id="u" delay="1s"/>', "2: timer 'u' is not cancelled"),
        ('delay="1s"/>', 'delay="1s"/><send event="go" id="t" delay="1s"/>', "2: timer 't' sends 'late' elsewhere"),
        ('<cancel sendid="t"/>', '<cancel sendid="u"/><cancel sendid="t"/>', "3: unknown timer 'u'; known: t"),
    ],
)  # fmt: skip
def test_a_wait_that_may_never_end_is_refused(was: str, becomes: str, problem: str) -> None:
    assert load(TIMED).states["a"].why == "x"
    assert was in TIMED

    assert f"small.scxml:{problem}" in refused(TIMED.replace(was, becomes))


def test_a_timer_that_nobody_listens_to_is_refused() -> None:
    extra = '<onentry><send event="tick" id="u" delay="1s"/></onentry><onexit><cancel sendid="u"/></onexit>'

    assert "small.scxml:2: nobody in 'a' listens to 'tick' of timer 'u'" in refused(two(extra))


def test_a_deadline_is_kept_by_guards_that_cover_every_case_and_by_the_states_around() -> None:
    both = '<transition event="late" cond="is_new" target="b"/><transition event="late" cond="!is_new" target="b"/>'
    around = """
<state id="a" initial="a.c">
<onentry><send event="late" id="t" delay="1s"/></onentry>
<onexit><cancel sendid="t"/></onexit>
<transition event="late" target="b"/>
<state id="a.c" o:why="x"/>
</state>
<state id="b" o:why="x" o:resting="true"><transition event="back" target="a"/></state>"""

    assert load(TIMED.replace('<transition event="late" target="b"/>', both))
    assert load(around)


def test_a_timer_of_a_transition_may_be_cancelled_by_the_state_it_leads_into() -> None:
    started = '<transition event="go" target="b"><send event="tick" id="u" delay="1s"/></transition>'
    body = two(started).replace(
        '<transition event="back" target="a"/>',
        '<onexit><cancel sendid="u"/></onexit><transition event="tick back" target="a"/>',
    ).replace('\n<transition event="go" target="b"/>', "")  # fmt: skip

    assert load(body)
    assert "small.scxml:2: timer 'u' is not cancelled when 'b' is left" in refused(
        body.replace('<cancel sendid="u"/>', "")
    )


def test_a_transition_that_never_gets_its_turn_is_refused() -> None:
    body = two('<transition event="go" target="b"/>')

    assert "small.scxml:3: 'go' never gets here: line 2 takes it without a condition" in refused(body)


def test_the_end_of_the_chart_has_no_exit() -> None:
    body = two('<transition event="tick" target="end"/>') + (
        '\n<final id="end"><onexit><send type="effect" event="do.this"/></onexit></final>'
    )

    assert "small.scxml:6: 'end' ends the chart and is never left" in refused(body)


def test_the_first_of_several_problems_in_document_order_is_the_one_reported() -> None:
    body = two('<transition event="tick" cond="newer" target="b"/>').replace('event="back"', 'event="gone"')

    assert "small.scxml:2: unknown guard" in refused(body)
    assert "small.scxml:5: unknown event" in refused(body.replace("newer", "is_new"))
