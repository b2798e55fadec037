"""The end of a wave, explored: what is shipped holds, and each seeded fault is found."""

import itertools
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from outrider.core.analysis.results import Finding
from outrider.core.rollout import rollout, wave_analysis, waves
from outrider.core.rollout.analysis_settings import WaveAnalysis
from outrider.core.rollout.policy_settings import Policy
from outrider.core.rollout.rollout import Progress
from outrider.core.rollout.wave_analysis import Question
from outrider.verify.between_waves import Functions, check_wave_end
from tests.support.rings import mostly_long


def analysis(name: str = "errors", **changed: Any) -> WaveAnalysis:
    facts: dict[str, Any] = {"name": name, "kind": "http", "url": "http://a/", "interval_s": 1, "deadline_s": 2}
    return WaveAnalysis(**facts | {"timeout_s": 1} | changed)


SETTINGS = tuple(itertools.product(("pause", "pass", "fail"), (1, 2)))


@pytest.mark.parametrize("setting", mostly_long(SETTINGS, short=lambda one: one in (("pause", 2), ("fail", 1))))
def test_what_is_shipped_holds_with_two_processes(setting: tuple[str, int]) -> None:
    """Both processes ask once in a while; and one process, with a person who halts and resumes twice."""
    one = analysis(undecided=setting[0], failures=setting[1])

    both = check_wave_end((one,), soak_s=1, horizon_s=4, words=1)
    steered = check_wave_end((one,), soak_s=1, horizon_s=5, processes=1, words=2)

    assert ("", ()) == (both.broken, both.story)
    assert ("", ()) == (steered.broken, steered.story)
    assert both.states > 1000
    assert steered.states > 200


def test_what_is_shipped_holds_with_two_analyses_that_differ() -> None:
    lax = analysis("lax", undecided="pass", deadline_s=2)
    checked = check_wave_end((lax, analysis(deadline_s=3)), soak_s=1, horizon_s=5, processes=1, words=0)

    assert ("", ()) == (checked.broken, checked.story)
    assert checked.states > 200


def counts_early(progress: Progress, policy: Policy, question: Question, finding: Finding, at: datetime) -> Progress:
    """An answer counts as asked for when it comes, not when it was asked for."""
    ended = at.replace(minute=at.minute + 5)
    return wave_analysis.answered(progress, policy, question, finding, ended)


def counts_nothing_as_good(
    progress: Progress, policy: Policy, question: Question, finding: Finding, at: datetime
) -> Progress:
    passed = replace(finding, result="pass") if finding.result == "no data" else finding
    return wave_analysis.answered(progress, policy, question, passed, at)


def counts_twice(progress: Progress, policy: Policy, question: Question, finding: Finding, at: datetime) -> Progress:
    """Of two processes that asked the same question both answers count."""
    due = wave_analysis.questions(progress, policy)
    now = next((one for one in due if one.analysis.name == question.analysis.name), None)
    question = question if now is None else replace(question, number=now.number)
    return wave_analysis.answered(progress, policy, question, finding, at)


def lets_all_through(progress: Progress, state: Any, why: str, by: str, now: datetime) -> Progress:
    """Whoever resumes a rollout that failed takes the wave as it is."""
    told = rollout.told(progress, state, why, by, now)
    if told.wave is None or state != "running" or progress.wave is None or progress.wave.analysis is None:
        return told
    passed = replace(progress.wave.analysis, verdict="pass")
    return replace(told, wave=replace(told.wave, analysis=passed))


def goes_on_undecided(progress: Progress, policy: Policy, members: Any, now: datetime) -> Progress:
    """An undecided analysis is passed over, whatever its setting says."""
    lax = replace(policy, analyses=tuple(replace(one, undecided="pass") for one in policy.analyses))
    return waves.advanced(progress, lax, members, now)


def waits_forever(progress: Progress, policy: Policy, members: Any, now: datetime) -> Progress:
    patient = replace(policy, analyses=tuple(replace(one, deadline_s=1000) for one in policy.analyses))
    return waves.advanced(progress, patient, members, now)


def shrugs(progress: Progress, policy: Policy, members: Any, now: datetime) -> Progress:
    """What fails halts nothing."""
    lax = replace(policy, analyses=tuple(replace(one, failures=100) for one in policy.analyses))
    return waves.advanced(progress, lax, members, now)


def panics(progress: Progress, policy: Policy, members: Any, now: datetime) -> Progress:
    """A single failing answer halts, though two may."""
    strict = replace(policy, analyses=tuple(replace(one, failures=1) for one in policy.analyses))
    return waves.advanced(progress, strict, members, now)


@pytest.mark.parametrize(
    ("functions", "analyses", "broken"),
    [
        (Functions(answered=counts_early), (analysis(),), "errors has not passed since the soak time"),
        (Functions(answered=counts_nothing_as_good), (analysis(),), "errors has not passed since the soak time"),
        (Functions(answered=counts_twice), (analysis(failures=2),), "nothing has failed or is overdue"),
        (Functions(told=lets_all_through), (analysis(),), "errors has not passed since the soak time"),
        (Functions(advanced=goes_on_undecided), (analysis(),), "errors has not passed since the soak time"),
        (Functions(advanced=waits_forever), (analysis(),), "it is overdue, and not decided"),
        (Functions(advanced=shrugs), (analysis(),), "errors has failed often enough, and the rollout is running"),
        (Functions(advanced=panics), (analysis(failures=2),), "nothing has failed or is overdue"),
    ],
    ids=lambda one: "" if not isinstance(one, Functions) else "-",
)
def test_each_seeded_fault_is_found_with_its_steps(
    functions: Functions, analyses: tuple[WaveAnalysis, ...], broken: str
) -> None:
    checked = check_wave_end(analyses, functions=functions, soak_s=1, horizon_s=4, words=1)

    assert broken in checked.broken
    assert checked.story[0] == "0 s: the first wave is complete"
    assert len(checked.story) >= 2
