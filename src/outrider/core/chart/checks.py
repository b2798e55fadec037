"""What can be wrong with a chart whose names are all right: it gets stuck, or a part of it can never happen.

Each check yields ``(line, problem)``; the caller reports the first in document order.
"""

import difflib
from collections.abc import Collection, Iterator, Mapping
from itertools import product

from outrider.core.chart.model import CancelLater, Chart, History, SendEffect, SendLater, State, Transition
from outrider.core.chart.success import success_problems

Problem = tuple[int, str]


def find_problems(chart: Chart, answers: Mapping[str, Collection[str]]) -> Iterator[Problem]:
    """Everything that makes ``chart`` unfit to be run.

    Args:
        answers: Effect -> the events that answer it.
    """
    yield from _unreachable(chart)
    yield from _stuck(chart)
    yield from _without_deadline(chart)
    yield from _unanswered(chart, answers)
    yield from _timers(chart)
    yield from _never_taken(chart)
    yield from _final_content(chart)
    yield from success_problems(chart)


def _unreachable(chart: Chart) -> Iterator[Problem]:
    reached = {state.id for leaf in reachable_leaves(chart) for state in chart.chain(leaf)}
    for state in chart.states.values():
        if state.id not in reached and (not state.parent or state.parent in reached):
            yield state.line, f"state {state.id!r} can't be reached: no transition leads there"
    for history in chart.histories.values():
        if not any(transition.target == history.id for transition in chart.transitions):
            yield history.line, f"history {history.id!r} is never entered: no transition leads there"


def reachable_leaves(chart: Chart) -> frozenset[str]:
    """The leaves that some run could be in, if every guard may say either."""
    reached: set[str] = set()
    todo = [chart.entry_leaf(chart.initial)]
    while todo:
        leaf = todo.pop()
        if leaf in reached:
            continue
        reached.add(leaf)
        targets = {transition.target for state in chart.chain(leaf) for transition in state.transitions}
        for target in targets - {None}:
            assert target is not None
            todo += _entered(chart, target)
        # Being here means that a shallow history may lead to the entry of each state around us.
        for history in chart.histories.values():
            if not history.deep and chart.within(leaf, history.parent):
                todo.append(chart.entry_leaf(remembered_child(history, leaf)))
    return frozenset(reached)


def _entered(chart: Chart, target: str) -> list[str]:
    if target in chart.histories:
        return [chart.entry_leaf(chart.histories[target].default)]
    return [chart.entry_leaf(target)]


def remembered_child(history: History, leaf: str) -> str:
    """The state that ``history`` leads to when its parent was left from ``leaf``."""
    if history.deep:
        return leaf
    step = leaf.removeprefix(f"{history.parent}.").partition(".")[0]
    return f"{history.parent}.{step}"


def _stuck(chart: Chart) -> Iterator[Problem]:
    for leaf in chart.leaves:
        ways = (transition for state in chart.chain(leaf.id) for transition in state.transitions)
        if not leaf.final and not any(way.target not in (None, leaf.id) for way in ways):
            yield leaf.line, f"state {leaf.id!r} is never left: no transition leads out of it"


def _without_deadline(chart: Chart) -> Iterator[Problem]:
    for leaf in chart.leaves:
        if leaf.final or leaf.resting:
            continue
        ways = [way for state in chart.chain(leaf.id) for way in state.transitions]
        timers = [item for state in chart.chain(leaf.id) for item in state.onentry if isinstance(item, SendLater)]
        heard = [timer.event for timer in timers if any(timer.event in way.events for way in ways)]
        if not heard:
            unheard = f" (it doesn't listen to {timers[0].event!r})" if timers else ""
            yield leaf.line, f"state {leaf.id!r} waits without a deadline{unheard}: start a timer or say o:resting"
        elif not any(_always_taken(event, ways) for event in heard):
            yield leaf.line, f"state {leaf.id!r} may miss its deadline: guards can refuse every answer to {heard[0]!r}"


def _unanswered(chart: Chart, answers: Mapping[str, Collection[str]]) -> Iterator[Problem]:
    """Whoever asks for something listens to each answer, and doesn't wait for it forever."""
    for owner, item in chart.contents():
        if not isinstance(item, SendEffect) or not answers.get(item.effect):
            continue
        if item in chart.states[owner].onexit:
            yield item.line, f"{item.effect!r} is answered, and {owner!r} is left by then; start it on entering a state"
            continue
        for leaf in (leaf for leaf in chart.leaves if chart.within(leaf.id, owner)):
            ways = [way for state in chart.chain(leaf.id) for way in state.transitions]
            heard = {event for way in ways for event in way.events}
            deaf = sorted(set(answers[item.effect]) - heard)
            if deaf:
                yield item.line, f"state {leaf.id!r} has no answer to {deaf[0]!r}, which {item.effect!r} may bring"
            timers = [sent for state in chart.chain(leaf.id) for sent in state.onentry if isinstance(sent, SendLater)]
            if leaf.resting and not any(timer.event in heard for timer in timers):
                problem = f"state {leaf.id!r} waits for {item.effect!r} without a deadline: start a timer"
                yield item.line, problem


def _always_taken(event: str, ways: list[Transition]) -> bool:
    """Whether some way is open for ``event``, whatever the guards say."""
    conditions = [way.conditions for way in ways if event in way.events]
    guards = sorted({condition.guard for way in conditions for condition in way})
    for answers in product((False, True), repeat=len(guards)):
        said = dict(zip(guards, answers, strict=True))
        if not any(all(said[condition.guard] == condition.wanted for condition in way) for way in conditions):
            return False
    return True


def _timers(chart: Chart) -> Iterator[Problem]:
    sends = [(owner, item) for owner, item in chart.contents() if isinstance(item, SendLater)]
    events: dict[str, str] = {}
    for owner, send in sends:
        if events.setdefault(send.timer, send.event) != send.event:
            problem = f"timer {send.timer!r} sends {events[send.timer]!r} elsewhere; give this one an id of its own"
            yield send.line, problem
        home = chart.states[owner]
        # What a transition starts may live as long as a state around; what a state starts ends with the state.
        enders = [home] if send in home.onentry else list(chart.chain(owner))
        if send in home.onexit:
            yield send.line, f"timer {send.timer!r} is started on leaving {owner!r}; start it on entering a state"
        elif not any(_cancels(state, send.timer) for state in enders):
            yield send.line, f"timer {send.timer!r} is not cancelled when {owner!r} is left: add <cancel> to its onexit"
        near = [
            state for state in chart.states.values() if chart.within(state.id, owner) or chart.within(owner, state.id)
        ]
        if not any(send.event in way.events for state in near for way in state.transitions):
            yield send.line, f"nobody in {owner!r} listens to {send.event!r} of timer {send.timer!r}"


def unknown_timers(chart: Chart) -> Iterator[Problem]:
    """Timers that are cancelled and never started."""
    known = sorted({item.timer for _, item in chart.contents() if isinstance(item, SendLater)})
    for _, item in chart.contents():
        if isinstance(item, CancelLater) and item.timer not in known:
            near = difflib.get_close_matches(item.timer, known, n=3, cutoff=0.5)
            advice = f"; known: {', '.join(known)}" if 0 < len(known) <= 12 else ""
            advice = f"; did you mean {' or '.join(map(repr, near))}?" if near else advice
            yield item.line, f"unknown timer {item.timer!r}{advice}"


def _cancels(state: State, timer: str) -> bool:
    return any(isinstance(item, CancelLater) and item.timer == timer for item in state.onexit)


def _never_taken(chart: Chart) -> Iterator[Problem]:
    for state in chart.states.values():
        taken: dict[str, Transition] = {}
        for transition in state.transitions:
            first = [taken[event] for event in transition.events if event in taken]
            if transition.events and len(first) == len(transition.events):
                written = " ".join(transition.written)
                yield transition.line, f"{written!r} never gets here: line {first[0].line} takes it without a condition"
            if not transition.conditions:
                taken = dict.fromkeys(transition.events, transition) | taken


def _final_content(chart: Chart) -> Iterator[Problem]:
    for state in chart.tops:
        if state.final and state.onexit:
            yield state.onexit[0].line, f"{state.id!r} ends the chart and is never left: its onexit can't happen"
