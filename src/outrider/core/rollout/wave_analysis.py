"""What a wave's analyses have come to, and what is to be asked next. Pure.

The service asks while the soak time of a complete wave passes, and once more after it. An answer that fails as many
times in a row as the analysis allows halts the rollout at once. It passes when every analysis passed in an answer that
was asked for after the soak time: an earlier one says nothing of the time since, and no data never passes. Whoever has
not passed a while after that is undecided, and each analysis says itself what follows.

The answers stand in the rollout (``AnalysisState``), and each is written in a transaction that compares it. So any
process goes on where another one ended, and of two that ask at once one counts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from outrider.core.analysis.results import Finding
from outrider.core.rollout.analysis_settings import WaveAnalysis
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.rollout import AnalysisAnswer, AnalysisState, Progress, WaveState
from outrider.core.rollout.wave_settings import Wave

MAX_WORDS = 200
"""Characters of an answer that are kept: it is stored in the group's rollout, and shown in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be asked.

    Attributes:
        release: Label of the release that is rolled out.
        version: Its version.
        wave: Number of the wave that has ended.
        number: How many answers there were before.
        at: When it is due.
    """

    release: str
    version: str
    wave: int
    analysis: WaveAnalysis
    number: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standstill:
    """What an analysis makes of the rollout, and why: ``failed: errors: 0.2, and must be < 0.01``."""

    state: Literal["paused", "halted"]
    why: str


def over(state: WaveState, wave: Wave) -> datetime:
    """When the soak time of a complete wave is over."""
    assert state.proved is not None, "the wave is complete"
    return state.proved + timedelta(seconds=wave.soak_s)


def questions(progress: Progress, policy: Policy) -> tuple[Question, ...]:
    """What is to be asked, and when; nothing while the rollout stands still, or where all is decided."""
    state = progress.wave
    if state is None or progress.version is None or progress.state != "running" or not is_open(state, policy):
        return ()
    wave, known = policy.waves[state.number - 1], _known(state, policy)
    soaked = over(state, wave)
    found: list[Question] = []
    for one in policy.analyses_after(wave):
        last = known.get(one.name)
        at = state.analysis.began if state.analysis is not None else soaked
        if last is not None:
            at = last.at + timedelta(seconds=one.interval_s)
            at = min(at, soaked) if last.at < soaked else at
        number = 0 if last is None else last.number
        found.append(
            Question(
                release=progress.version,
                version=progress.package or progress.version,
                wave=state.number,
                analysis=one,
                number=number,
                at=at,
            )
        )
    return tuple(found)


def answered(progress: Progress, policy: Policy, question: Question, finding: Finding, at: datetime) -> Progress:
    """The rollout with one more answer; unchanged when it comes too late, or when another one came before it.

    Args:
        progress: As it is now.
        policy: As it is now.
        question: What was asked.
        finding: What came back.
        at: When it was asked.
    """
    due = next((one for one in questions(progress, policy) if one.analysis.name == question.analysis.name), None)
    state = progress.wave
    if due is None or state is None or state.analysis is None or replace(due, at=question.at) != question:
        return progress
    last = _known(state, policy).get(finding.check)
    failed = 0 if finding.result != "fail" else 1 + (last.failed if last is not None else 0)
    answer = AnalysisAnswer(
        name=finding.check,
        question=question.analysis.question,
        at=at,
        number=question.number + 1,
        result=finding.result,
        failed=failed,
        words=finding.words[:MAX_WORDS],
    )
    others = tuple(one for one in state.analysis.answers if one.name != answer.name)
    return replace(progress, wave=replace(state, analysis=replace(state.analysis, answers=(*others, answer))))


def decided(state: WaveState, policy: Policy, now: datetime) -> tuple[WaveState, Standstill | None]:
    """A complete wave after what its answers and the time have come to, and whether the rollout stands still by that.

    A verdict stays: whoever resumes a rollout that an undecided analysis paused takes the wave as it is.
    """
    wave = policy.waves[state.number - 1]
    asked = policy.analyses_after(wave)
    if not asked:
        return (state if state.analysis is None else replace(state, analysis=None)), None
    run = state.analysis or AnalysisState(began=now)
    if run.verdict == "fail":
        return state, Standstill(state="halted", why=run.words)
    if run.verdict is not None:
        return state, None
    state = replace(state, analysis=run)
    known = _known(state, policy)
    failed = [one for one in asked if one.name in known and known[one.name].failed >= one.failures]
    if failed:
        return _halted(state, run, f"failed: {_told(failed, known)}", now)
    left = [one for one in asked if not _has_passed(known.get(one.name), over(state, wave))]
    if now >= over(state, wave) and not left:
        return replace(state, analysis=replace(run, verdict="pass", words=_told(asked, known), at=now)), None
    late = [one for one in left if now >= _late(state, wave, one)]
    words = f"is undecided: {_told(late, known)}"
    if any(one.undecided == "fail" for one in late):
        return _halted(state, run, words, now)
    is_undecided = replace(state, analysis=replace(run, verdict="undecided", words=words, at=now))
    if any(one.undecided == "pause" for one in late):
        return is_undecided, Standstill(state="paused", why=f"{words}; `outrider rollout resume` takes it as it is")
    return (is_undecided if late and len(late) == len(left) else state), None


def is_open(state: WaveState, policy: Policy) -> bool:
    """The wave is complete, and its analyses aren't decided."""
    if state.proved is None or state.number > len(policy.waves):
        return False
    asked = policy.analyses_after(policy.waves[state.number - 1])
    return bool(asked) and (state.analysis is None or state.analysis.verdict is None)


def late_at(state: WaveState, policy: Policy) -> datetime | None:
    """When it is undecided if nothing else passes until then; None where nothing is open."""
    if not is_open(state, policy):
        return None
    wave, known = policy.waves[state.number - 1], _known(state, policy)
    left = [one for one in policy.analyses_after(wave) if not _has_passed(known.get(one.name), over(state, wave))]
    # one that is let through undecided decides nothing while another one may still pass
    hard = [_late(state, wave, one) for one in left if one.undecided != "pass"]
    return min(hard) if hard else max((_late(state, wave, one) for one in left), default=over(state, wave))


def due(progress: Progress, policy: Policy) -> datetime | None:
    """When time decides something, of a rollout that goes on; None: only an answer does."""
    state = progress.wave
    return late_at(state, policy) if state is not None and progress.state == "running" else None


def words(state: WaveState, policy: Policy) -> str:
    """How far the analyses are, in one line; empty where there are none, or before the wave is complete."""
    if state.proved is None or state.number > len(policy.waves):
        return ""
    asked = policy.analyses_after(policy.waves[state.number - 1])
    return _told(asked, _known(state, policy)) if asked else ""


def _known(state: WaveState, policy: Policy) -> Mapping[str, AnalysisAnswer]:
    """The answers to what is asked now, by name."""
    asked = {one.name: one.question for one in policy.analyses}
    answers = state.analysis.answers if state.analysis is not None else ()
    return {one.name: one for one in answers if asked.get(one.name) == one.question}


def _has_passed(answer: AnalysisAnswer | None, soaked: datetime) -> bool:
    return answer is not None and answer.result == "pass" and answer.at >= soaked


def _late(state: WaveState, wave: Wave, one: WaveAnalysis) -> datetime:
    began = over(state, wave) if state.analysis is None else max(over(state, wave), state.analysis.began)
    return began + timedelta(seconds=one.deadline_s)


def _halted(state: WaveState, run: AnalysisState, why: str, now: datetime) -> tuple[WaveState, Standstill]:
    ended = replace(state, analysis=replace(run, verdict="fail", words=why, at=now))
    return ended, Standstill(state="halted", why=why)


def _told(asked: Iterable[WaveAnalysis], known: Mapping[str, AnalysisAnswer]) -> str:
    return "; ".join(_one_told(one, known.get(one.name)) for one in asked)


def _one_told(one: WaveAnalysis, answer: AnalysisAnswer | None) -> str:
    if answer is None:
        return f"{one.name}: no answer yet"
    times = f", {answer.failed} of {one.failures} in a row" if 0 < answer.failed < one.failures else ""
    return f"{one.name}: {answer.words}{times}"
