"""The end of a wave: everything that answers, time, processes and people can do to it, step by step.

The functions are those that the service runs (``core.rollout.wave_analysis``, ``waves``, ``rollout``); only the world
around them is modelled: two processes that ask and die, answers that come late or never, a clock, and a person who
halts and resumes. What is required is written down here apart from them, by what was truly asked and answered:

- the next wave begins only when each analysis passed in an answer that was asked for after the soak time; or a person
  has taken the wave as it is, after it was undecided; or all that didn't pass may stay undecided, and are overdue
- whatever failed as often in a row as it may has halted the rollout, and nothing else has, but an undecided one that
  is set so
- while the rollout stands still, no answer changes anything
- what is left alone is decided: no state waits forever
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from outrider.core.analysis.results import Finding, Result
from outrider.core.rollout import rollout, wave_analysis, waves
from outrider.core.rollout.analysis_settings import WaveAnalysis
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.rollout import Progress
from outrider.core.rollout.wave_analysis import Question
from outrider.core.rollout.wave_settings import Wave

START = datetime(2026, 1, 1, tzinfo=UTC)
STATE_LIMIT = 500_000
_MEMBERS = (waves.Member(labels={"first": "yes"}, is_there=True), waves.Member(labels={}, is_there=False))
_RESULTS: tuple[Result, ...] = ("pass", "fail", "no data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Functions:
    """The functions that are checked; a test puts a wrong one in place of one of them."""

    advanced: Callable[..., Progress] = waves.advanced
    answered: Callable[..., Progress] = wave_analysis.answered
    questions: Callable[[Progress, Policy], tuple[Question, ...]] = wave_analysis.questions
    told: Callable[..., Progress] = rollout.told


class Seen(NamedTuple):
    """What was truly answered to one analysis, as the requirement counts it.

    Attributes:
        passed: One passed that was asked for after the soak time, and nothing else was answered since.
        row: Failing answers in a row.
    """

    passed: bool = False
    row: int = 0


class State(NamedTuple):
    """The group's rollout, the time in seconds, what each process asks, and what was truly seen.

    Attributes:
        since: When the questions began, or began anew.
        let: A person has taken the wave as it is.
    """

    progress: Progress
    now: int
    asking: tuple[tuple[Question, int] | None, ...]
    seen: tuple[Seen, ...]
    words: int
    since: int = 0
    let: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What came out: how many states, and what doesn't hold, with the steps that lead there."""

    states: int
    broken: str = ""
    story: tuple[str, ...] = ()


def check_wave_end(
    analyses: tuple[WaveAnalysis, ...],
    *,
    soak_s: int = 2,
    horizon_s: int = 8,
    processes: int = 2,
    words: int = 2,
    functions: Functions = Functions(),
) -> Checked:
    """Take every possible step, until the time is up.

    Args:
        words: How often a person halts or resumes.
    """
    names = tuple(one.name for one in analyses)
    policy = Policy(waves=(Wave(selector="first", soak_s=soak_s, analyses=names), Wave()), analyses=analyses)
    progress = functions.advanced(Progress(version="2.0.0", started=START, since=START), policy, _MEMBERS, START)
    first = State(progress, 0, (None,) * processes, (Seen(),) * len(analyses), words)
    model = _Model(functions, policy, soak_s, horizon_s)
    came: dict[State, tuple[State | None, str]] = {first: (None, "the first wave is complete")}
    todo = deque([first])
    while todo:
        state = todo.popleft()
        broken = model.broken(state)
        if broken:
            return Checked(states=len(came), broken=broken, story=_story(came, state))
        for said, after in model.steps(state):
            if after not in came:
                came[after] = state, said
                todo.append(after)
        if len(came) > STATE_LIMIT:
            raise ValueError(f"more than {STATE_LIMIT} states; check fewer processes, or a shorter time")
    return Checked(states=len(came))


class _Model:
    def __init__(self, functions: Functions, policy: Policy, soak_s: int, horizon_s: int) -> None:
        self.functions, self.policy, self.soak_s, self.horizon_s = functions, policy, soak_s, horizon_s

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        if _wave(state) != 1:
            return
        if state.now < self.horizon_s:
            yield "a second passes", self._later(state._replace(now=state.now + 1))
        for process, asking in enumerate(state.asking):
            if asking is None:
                yield from self._asks(state, process)
                continue
            ended = state._replace(asking=_put(state.asking, process, None))
            yield f"process {process} dies", ended
            for result in _RESULTS:
                said = f"process {process} writes {result} to {asking[0].analysis.name}, asked for at {asking[1]} s"
                yield said, self._answers(ended, *asking, result)
        if state.words:
            yield from self._says(state._replace(words=state.words - 1))

    def broken(self, state: State) -> str:
        asked = self.policy.analyses
        stands, failed = state.progress.state, [one.name for one, seen in zip(asked, state.seen, strict=True)
                                                if seen.row >= one.failures]  # fmt: skip
        late = {one.name for one in asked if state.now >= max(self.soak_s, state.since) + one.deadline_s}
        if _wave(state) != 1 and not state.let:
            for one, seen in zip(asked, state.seen, strict=True):
                if not seen.passed and not (one.undecided == "pass" and one.name in late):
                    return f"the next wave begins, and {one.name} has not passed since the soak time"
        if failed and stands != "halted" and not state.let:
            return f"{failed[0]} has failed often enough, and the rollout is {stands}"
        by_policy = stands != "running" and not state.progress.by
        if by_policy and not failed and not any(one.undecided != "pass" and one.name in late for one in asked):
            return f"the rollout is {stands}, and nothing has failed or is overdue: {state.progress.why}"
        if _wave(state) == 1 and stands == "running" and any(one.name in late for one in asked):
            hard = [one.name for one in asked if one.undecided != "pass" and one.name in late]
            passed = {one.name for one, seen in zip(asked, state.seen, strict=True) if seen.passed}
            if set(hard) - passed or {one.name for one in asked} <= late | passed:
                return "it is overdue, and not decided"
        return ""

    def _later(self, state: State) -> State:
        now = START + timedelta(seconds=state.now)
        return state._replace(progress=self.functions.advanced(state.progress, self.policy, _MEMBERS, now))

    def _asks(self, state: State, process: int) -> Iterator[tuple[str, State]]:
        for question in self.functions.questions(state.progress, self.policy):
            if question.at <= START + timedelta(seconds=state.now):
                asking = _put(state.asking, process, (replace(question, at=START), state.now))
                yield f"process {process} asks {question.analysis.name}", state._replace(asking=asking)

    def _answers(self, state: State, question: Question, at: int, result: Result) -> State:
        """An answer counts when it is the first one to its question, and the rollout goes on."""
        finding = Finding(check=question.analysis.name, result=result, words=result)
        asked_at = START + timedelta(seconds=at)
        progress = self.functions.answered(state.progress, self.policy, question, finding, asked_at)
        place = next(number for number, one in enumerate(self.policy.analyses) if one.name == finding.check)
        is_due = any(replace(one, at=START) == question for one in wave_analysis.questions(state.progress, self.policy))
        seen = state.seen
        if is_due:
            row = state.seen[place].row + 1 if result == "fail" else 0
            seen = _put(seen, place, Seen(passed=result == "pass" and at >= self.soak_s, row=row))
        return self._later(state._replace(progress=progress, seen=seen))

    def _says(self, state: State) -> Iterator[tuple[str, State]]:
        now, progress = START + timedelta(seconds=state.now), state.progress
        if progress.state == "running":
            halted = self.functions.told(progress, "halted", "", "ann", now)
            yield "ann halts the rollout", state._replace(progress=halted)
            return
        is_undecided = progress.state == "paused" and not progress.by
        resumed = self.functions.told(progress, "running", "", "ann", now)
        yield (
            "ann resumes the rollout",
            self._later(
                state._replace(
                    progress=resumed, since=state.now, let=state.let or is_undecided, seen=(Seen(),) * len(state.seen)
                )
            ),
        )


def _wave(state: State) -> int:
    return 1 if state.progress.wave is None else state.progress.wave.number


def _put(values: tuple, place: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*values[:place], value, *values[place + 1 :])


def _story(came: dict[State, tuple[State | None, str]], state: State) -> tuple[str, ...]:
    lines: list[str] = []
    at: State | None = state
    while at is not None:
        before, said = came[at]
        lines.append(f"{at.now} s: {said}")
        at = before
    return tuple(reversed(lines))
