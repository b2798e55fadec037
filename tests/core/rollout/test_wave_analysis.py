"""What the analyses at the end of a wave come to: answers and time in, the next wave or a standstill out."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outrider.core.analysis.results import Finding, Result
from outrider.core.errors import ConfigError
from outrider.core.rollout import rollout, wave_analysis, waves
from outrider.core.rollout.analysis_settings import WaveAnalysis
from outrider.core.rollout.policy_settings import Policy, check_policy
from outrider.core.rollout.rollout import Progress
from outrider.core.rollout.wave_settings import Wave
from outrider.core.rollout.waves import Member

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
SOAK_S = 100
MEMBERS = (Member(labels={"site": "a"}, is_there=True), Member(labels={"site": "b"}, is_there=False))


def errors(**changed: Any) -> WaveAnalysis:
    facts: dict[str, Any] = {"name": "errors", "url": "http://prom:9090", "query": "x", "condition": "< 1"}
    return WaveAnalysis(**facts | {"deadline_s": 60} | changed)


def policy_with(*analyses: WaveAnalysis, approval: bool = False) -> Policy:
    names = tuple(one.name for one in analyses)
    first = Wave(selector="site=a", soak_s=SOAK_S, analyses=names, approval=approval)
    return Policy(waves=(first, Wave(selector="site=b")), analyses=analyses)


class Rolling:
    """A rollout whose first wave is complete at noon."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.now = check_policy(policy), NOON
        self.progress = Progress(version="2.0.0", started=NOON, since=NOON)
        self.later(0)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.progress = waves.advanced(self.progress, self.policy, MEMBERS, self.now)

    def answer(self, result: Result, name: str = "errors", *, at: datetime | None = None) -> None:
        question = next(one for one in wave_analysis.questions(self.progress, self.policy) if one.analysis.name == name)
        finding = Finding(check=name, result=result, words=f"it says {result}")
        asked_at = at or self.now
        self.progress = wave_analysis.answered(self.progress, self.policy, question, finding, asked_at)
        self.later(0)

    def resume(self) -> None:
        self.progress = rollout.told(self.progress, "running", "", "ann", self.now)
        self.later(0)

    @property
    def wave(self) -> int:
        assert self.progress.wave is not None
        return self.progress.wave.number

    @property
    def state(self) -> str:
        return self.progress.state

    @property
    def said(self) -> tuple[str, str]:
        return self.progress.state, self.progress.why

    @property
    def due_in_s(self) -> list[float]:
        return [(one.at - self.now).total_seconds() for one in wave_analysis.questions(self.progress, self.policy)]


def test_it_passes_with_an_answer_that_was_asked_for_after_the_soak_time() -> None:
    """
    1. it passes at once, and in the soak time: the wave waits
    2. the soak time is over: it is asked once more, and nothing begins before
    3. it passes: the next wave begins
    """
    rolling = Rolling(policy_with(errors()))
    assert [0.0] == rolling.due_in_s
    rolling.answer("pass")
    assert [15.0] == rolling.due_in_s
    rolling.later(95)
    rolling.answer("pass")
    assert [5.0] == rolling.due_in_s, "not after a whole interval, but when the soak time is over"

    rolling.later(6)
    assert 1 == rolling.wave
    rolling.answer("pass")

    assert (2, ("running", "")) == (rolling.wave, rolling.said)


def test_one_that_fails_often_enough_halts_in_the_middle_of_the_soak_time() -> None:
    rolling = Rolling(policy_with(errors(failures=2)))
    rolling.answer("fail")
    assert "running" == rolling.state
    rolling.answer("pass")
    rolling.answer("fail")
    assert "running" == rolling.state, "two in a row, and not two in all"
    rolling.answer("fail")

    assert ("halted", "the analysis after wave 1 of 2 (site=a) failed: errors: it says fail") == rolling.said
    assert () == wave_analysis.questions(rolling.progress, rolling.policy), "nothing is asked while it stands still"


@pytest.mark.parametrize("answers", [[], ["no data"], ["pass", "no data"]])
def test_without_data_it_is_undecided_at_its_deadline_and_the_rollout_is_paused(answers: list[Result]) -> None:
    rolling = Rolling(policy_with(errors()))
    for one in answers:
        rolling.answer(one)
    rolling.later(SOAK_S + 59)
    assert (1, "running") == (rolling.wave, rolling.state)
    rolling.later(1)

    told = f"it says {answers[-1]}" if answers else "no answer yet"
    why = f"the analysis after wave 1 of 2 (site=a) is undecided: errors: {told}; `outrider rollout resume` takes it as"
    assert (1, "paused", f"{why} it is") == (rolling.wave, *rolling.said)


def test_whoever_resumes_an_undecided_rollout_takes_the_wave_as_it_is() -> None:
    rolling = Rolling(policy_with(errors()))
    rolling.later(SOAK_S + 60)
    rolling.resume()

    assert (2, ("running", "")) == (rolling.wave, rolling.said)


def test_whoever_resumes_a_halted_rollout_has_it_asked_anew() -> None:
    """
    1. it fails after the soak time, and halts
    2. a person resumes: it is asked again, at once, and its deadline begins anew
    3. it fails again: halted again; resumed, and now it passes
    """
    rolling = Rolling(policy_with(errors()))
    rolling.later(SOAK_S + 30)
    rolling.answer("fail")
    rolling.later(100)
    rolling.resume()
    assert (1, "running", [0.0]) == (rolling.wave, rolling.state, rolling.due_in_s)
    rolling.later(59)
    rolling.answer("fail")
    assert "halted" == rolling.state
    rolling.resume()
    rolling.answer("pass")

    assert (2, "running") == (rolling.wave, rolling.state)


def test_a_pause_by_a_person_is_no_time_in_which_it_could_pass() -> None:
    rolling = Rolling(policy_with(errors()))
    rolling.progress = rollout.told(rolling.progress, "paused", "lunch", "ann", rolling.now)
    rolling.later(10_000)
    rolling.resume()

    assert (1, "running", [0.0]) == (rolling.wave, rolling.state, rolling.due_in_s)
    rolling.later(59)
    assert "running" == rolling.state
    rolling.later(1)
    assert "paused" == rolling.state


def test_what_follows_undecided_is_its_own_setting() -> None:
    halting, passing = Rolling(policy_with(errors(undecided="fail"))), Rolling(policy_with(errors(undecided="pass")))
    halting.later(SOAK_S + 60)
    passing.later(SOAK_S + 59)
    assert 1 == passing.wave
    passing.later(1)

    assert ("halted", "the analysis after wave 1 of 2 (site=a) is undecided: errors: no answer yet") == halting.said
    assert (2, "running") == (passing.wave, passing.progress.state)


def test_of_several_every_one_must_pass_and_the_strictest_undecided_one_counts() -> None:
    """
    1. one that may stay undecided is late: the other one still has to pass
    2. it does
    """
    lax, strict = errors(name="lax", undecided="pass", deadline_s=10), errors()
    rolling = Rolling(policy_with(lax, strict))
    rolling.later(SOAK_S + 20)
    assert 1 == rolling.wave
    assert (NOON + timedelta(seconds=SOAK_S + 60)) == waves.due(rolling.progress, rolling.policy), (
        "no time that is over"
    )
    rolling.answer("pass")

    assert 2 == rolling.wave

    other = Rolling(policy_with(lax, strict))
    other.later(SOAK_S + 60)
    assert "paused" == other.progress.state


def test_an_answer_to_another_question_counts_for_nothing() -> None:
    """
    1. it passes after the soak time, but the query is changed before that is written: it is dropped
    2. answers to the old query are forgotten
    3. a second answer to the same question is dropped, too
    """
    rolling = Rolling(policy_with(errors(), errors(name="other")))
    rolling.later(SOAK_S)
    old = {one.analysis.name: one for one in wave_analysis.questions(rolling.progress, rolling.policy)}
    rolling.answer("pass", "other")
    rolling.policy = policy_with(errors(query="y"), errors(name="other", query="z"))
    passed = Finding(check="errors", result="pass", words="0")

    late = wave_analysis.answered(rolling.progress, rolling.policy, old["errors"], passed, rolling.now)

    assert late is rolling.progress
    rolling.later(0)
    assert 1 == rolling.wave
    (first, _) = wave_analysis.questions(rolling.progress, rolling.policy)
    rolling.answer("fail", "other") if first.analysis.name == "other" else rolling.answer("no data")
    again = wave_analysis.answered(rolling.progress, rolling.policy, first, passed, rolling.now)
    assert again is rolling.progress


def test_an_answer_from_before_the_end_of_the_soak_time_never_lets_the_wave_pass() -> None:
    """It was asked in the soak time, and came back after it."""
    rolling = Rolling(policy_with(errors()))
    rolling.later(SOAK_S + 1)
    rolling.answer("pass", at=NOON + timedelta(seconds=SOAK_S - 1))
    assert 1 == rolling.wave
    rolling.answer("pass")
    assert 2 == rolling.wave


def test_an_approval_is_asked_for_besides_and_neither_replaces_the_other() -> None:
    rolling = Rolling(policy_with(errors(), approval=True))
    rolling.progress = rollout.judged(rolling.progress, "approved", by="ann", why="", now=rolling.now)
    rolling.later(SOAK_S)
    assert 1 == rolling.wave
    rolling.answer("pass")
    assert 2 == rolling.wave

    other = Rolling(policy_with(errors(), approval=True))
    other.later(SOAK_S)
    other.answer("pass")
    assert 1 == other.wave


def test_words_say_what_is_waited_for() -> None:
    rolling = Rolling(policy_with(errors(failures=3)))
    rolling.answer("fail")

    assert (
        "wave 1 of 2 (site=a) succeeded; wave 2 may begin at 2026-11-30 12:01:40 UTC if its analysis passes"
        " (errors: it says fail, 1 of 3 in a row); undecided at 2026-11-30 12:02:40 UTC"
    ) == waves.describe(rolling.progress, rolling.policy, rolling.progress.wave)


def test_a_wave_whose_analysis_was_taken_away_waits_for_none() -> None:
    rolling = Rolling(policy_with(errors()))
    rolling.answer("no data")
    rolling.policy = replace(policy_with(), waves=(Wave(selector="site=a", soak_s=SOAK_S), Wave(selector="site=b")))
    rolling.later(SOAK_S)

    assert (2, "running") == (rolling.wave, rolling.state)


def test_what_is_kept_of_an_answer_is_bounded() -> None:
    rolling = Rolling(policy_with(errors()))
    (question,) = wave_analysis.questions(rolling.progress, rolling.policy)
    finding = Finding(check="errors", result="no data", words="x" * 5000)

    progress = wave_analysis.answered(rolling.progress, rolling.policy, question, finding, rolling.now)

    assert progress.wave is not None
    assert progress.wave.analysis is not None
    assert [200] == [len(one.words) for one in progress.wave.analysis.answers]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"kind": "command", "query": "", "condition": ""},
            "errors: kind command: the update service runs no programs",
        ),
        ({"name": "a b"}, "name 'a b': use 1 to 63 letters"),
        ({"url": "ftp://prom"}, "no http address"),
        ({"url": "http://ann:secret@prom"}, "contains a user"),
        ({"url": "http://{group}.internal:9090"}, "contains|placeholder in its host"),
        ({"query": ""}, "query: missing, for its kind is prometheus"),
        ({"field": "rate"}, "field: has no effect, for its kind is prometheus"),
        ({"condition": "small"}, "condition: 'small': wanted: one of"),
        ({"query": 'x{instance="{host}"}'}, r"\{host\} is one instance's"),
        ({"kind": "http", "query": "", "condition": "", "field": "rate"}, "field: needs a condition"),
        ({"timeout_s": 60}, "timeout_s is not below deadline_s"),
        ({"timeout_s": 61}, "timeout_s 61: must be 1 to 60"),
        ({"failures": 0}, "failures 0: must be 1 to 100"),
        ({"interval_s": 0}, "interval_s 0: must be 1 to 86400"),
        ({"query": "x" * 4097}, "query: 4097 characters; write at most 4096"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_reason(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        check_policy(policy_with(errors(**changed)))


def test_a_wave_names_an_analysis_that_there_is_and_once() -> None:
    with pytest.raises(ConfigError, match="waves: wave 1: no analysis is called 'latency'; there are errors"):
        check_policy(Policy(waves=(Wave(analyses=("latency",)),), analyses=(errors(),)))
    with pytest.raises(ConfigError, match="waves: wave 1: no analysis is called 'x'; the policy has no analyses"):
        check_policy(Policy(waves=(Wave(analyses=("x",)),)))
    with pytest.raises(ConfigError, match="waves: wave 1: names the analysis errors twice"):
        check_policy(Policy(waves=(Wave(analyses=("errors", "errors")),), analyses=(errors(),)))
    with pytest.raises(ConfigError, match="an analysis of that name is there already"):
        check_policy(Policy(analyses=(errors(), errors())))
    with pytest.raises(ConfigError, match="analyses 11: must be 0 to 10"):
        check_policy(Policy(analyses=tuple(errors(name=f"a{number}") for number in range(11))))
