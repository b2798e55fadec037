"""An analysis as a whole: what makes it pass, fail, or stay undecided at its deadline."""

import queue
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from outrider.analysis import checks as kinds
from outrider.analysis.analyst import Analysis, Verdict
from outrider.config.analysis import AnalysisCheck, AnalysisSettings
from outrider.core.analysis.results import Finding
from tests.support.rest_stub import RestStub, Say
from tests.support.rings import mostly_long
from tests.support.waiting import eventually

FACTS = {"version": "2.0.0"}


def settings(*checks: AnalysisCheck, duration_s: float = 0.2, deadline_s: float = 1.0) -> AnalysisSettings:
    return AnalysisSettings(checks=checks, duration_s=duration_s, interval_s=0.05, deadline_s=deadline_s)


class Run:
    """One analysis, with what it has told."""

    def __init__(self, chosen: AnalysisSettings) -> None:
        self.verdicts: queue.SimpleQueue[Verdict] = queue.SimpleQueue()
        self.samples: list[str] = []
        self.analysis = Analysis(chosen, FACTS, None, deliver=self.verdicts.put, tell=self.samples.append)

    def verdict(self) -> Verdict:
        return self.verdicts.get(timeout=20)


def answers(*says: Say) -> RestStub:
    """One after the other, the last one forever."""
    left = list(says)
    return RestStub(lambda _: left.pop(0) if len(left) > 1 else left[0])


def http(endpoint: RestStub, name: str = "shop", failures: int = 1) -> AnalysisCheck:
    return AnalysisCheck(name=name, kind="http", url=endpoint.url, failures=failures, timeout_s=0.5)


def test_checks_that_pass_all_the_while_pass() -> None:
    with answers(Say(body=b"pass")) as one, answers(Say(body=b"no data"), Say(body=b"pass: fine")) as other:
        run = Run(settings(http(one), http(other, "other"), deadline_s=15.0))

        verdict = run.verdict()

    assert Verdict(decision="pass", words="shop: it says pass; other: fine") == verdict
    assert len(one.asked) > 1
    assert run.samples


def test_as_many_failures_in_a_row_as_the_check_says_fail_and_fewer_do_not() -> None:
    bad, good = Say(body=b"fail: lost"), Say(body=b"pass")
    with answers(bad, good, bad, bad) as endpoint:
        verdict = Run(settings(http(endpoint, failures=2), duration_s=10.0, deadline_s=15.0)).verdict()

    assert Verdict(decision="fail", words="shop: lost") == verdict
    assert len(endpoint.asked) >= 4


@pytest.mark.parametrize("say", [Say(body=b"no data: too few"), Say(status=503)])
def test_no_data_until_the_deadline_is_undecided_and_never_a_pass(say: Say) -> None:
    with answers(Say(body=b"pass")) as one, answers(say) as other:
        verdict = Run(settings(http(one), http(other, "other"))).verdict()

    assert "undecided" == verdict.decision
    assert verdict.words.startswith("other: no data: ")


def test_data_that_ends_before_the_analysis_does_is_undecided() -> None:
    with answers(Say(body=b"pass"), Say(body=b"pass"), Say(status=503)) as endpoint:
        verdict = Run(settings(http(endpoint), duration_s=0.8)).verdict()

    assert "undecided" == verdict.decision


def test_a_check_that_hangs_holds_up_neither_the_others_nor_the_deadline() -> None:
    hangs = AnalysisCheck(
        name="hangs", kind="command", command=(sys.executable, "-c", "import time; time.sleep(9)"), timeout_s=9.0
    )
    with answers(Say(body=b"pass")) as endpoint:
        started = time.monotonic()
        verdict = Run(settings(http(endpoint), hangs, deadline_s=0.5)).verdict()

        assert ("undecided", "hangs: no data: no answer yet") == (verdict.decision, verdict.words)
        assert time.monotonic() - started < 6
        assert len(endpoint.asked) > 2


def test_a_check_that_passed_and_then_hangs_does_not_pass(tmp_path: Path) -> None:
    """Prometheus answered once, and is too slow from then on: its answer to the last question is missing."""
    script = f"import pathlib, time; seen = pathlib.Path({str(tmp_path / 'seen')!r})\n"
    script += "if seen.exists(): time.sleep(30)\nseen.touch()"
    slow = AnalysisCheck(name="slow", kind="command", command=(sys.executable, "-c", script), timeout_s=30.0)
    with answers(Say(body=b"pass")) as endpoint:
        run = Run(settings(http(endpoint), slow, duration_s=2.0, deadline_s=4.0))
        verdict = run.verdict()

    assert ("undecided", "slow: no data: no answer since it passed") == (verdict.decision, verdict.words)


@pytest.mark.parametrize("seed", mostly_long(range(40), short=lambda seed: seed < 4))
def test_whatever_the_checks_answer_no_data_never_passes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three checks answer at random, and so slowly; a pass is what the last answer of each of them says."""
    chosen = random.Random(seed)
    ends = [chosen.choice(["pass", "pass", "no data"]) for _ in range(3)]
    scripts = {
        f"check {number}": [chosen.choice(["pass", "no data"]) for _ in range(chosen.randint(0, 4))] + [end]
        for number, end in enumerate(ends)
    }
    slow = {name: chosen.choice([0.0, 0.0, 0.07]) for name in scripts}
    given: dict[str, list[str]] = {name: [] for name in scripts}

    def ask(check: AnalysisCheck, facts: Mapping[str, str]) -> Finding:
        time.sleep(slow[check.name])
        script = scripts[check.name]
        said = script.pop(0) if len(script) > 1 else script[0]
        given[check.name].append(said)
        return Finding(check=check.name, result=said, words=said)  # type: ignore[arg-type]

    monkeypatch.setattr(kinds, "ask", ask)
    checks = [AnalysisCheck(name=name, kind="http", url="http://127.0.0.1:9") for name in scripts]
    all_pass = set(ends) == {"pass"}

    run = Run(settings(*checks, duration_s=0.3, deadline_s=15.0 if all_pass else 1.5))

    decision, last = run.verdict().decision, {answers[-1] for answers in given.values()}
    assert decision == "pass" if all_pass else decision in ("undecided", "pass")
    assert decision == "undecided" or last == {"pass"}, given


def test_nothing_is_delivered_after_it_was_stopped() -> None:
    with answers(Say(body=b"pass")) as endpoint:
        run = Run(settings(http(endpoint), duration_s=0.3, deadline_s=1.0))
        eventually(lambda: bool(endpoint.asked))
        run.analysis.stop()

        count = len(run.samples)
        with pytest.raises(queue.Empty):
            run.verdicts.get(timeout=0.6)
    assert count == len(run.samples)
