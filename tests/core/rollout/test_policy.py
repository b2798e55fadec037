"""May this instance update now? By values."""

import pytest

from outrider.core.rollout.policy import Defer, Grant, Situation, decide


def test_an_older_instance_is_granted_the_version_of_its_channel() -> None:
    verdict = decide(Situation(running="1.0.0", wanted="1.2.3"))

    assert Grant(version="1.2.3") == verdict


def test_an_instance_that_runs_what_it_should_is_up_to_date() -> None:
    verdict = decide(Situation(running="1.2.3", wanted="1.2.3"))

    assert Defer(reason="up to date", by="current") == verdict


def test_versions_are_compared_as_versions_and_not_as_text() -> None:
    assert Grant(version="1.10.0") == decide(Situation(running="1.9.0", wanted="1.10.0"))
    assert Grant(version="1.0.0") == decide(Situation(running="1.0.0-rc.2", wanted="1.0.0"))


def test_nobody_is_sent_back_to_an_older_version() -> None:
    verdict = decide(Situation(running="2.0.0", wanted="1.9.0"))

    assert Defer(reason="running 2.0.0 is newer than the channel's 1.9.0", by="version", pending=True) == verdict


def test_a_paused_group_holds_its_instances_back() -> None:
    verdict = decide(Situation(running="1.0.0", wanted="2.0.0", paused=True))

    assert Defer(reason="group is paused", by="paused", pending=True) == verdict


def test_a_pause_keeps_nothing_from_an_instance_that_is_up_to_date() -> None:
    verdict = decide(Situation(running="2.0.0", wanted="2.0.0", paused=True))

    assert Defer(reason="group is paused", by="paused", pending=False) == verdict


def test_a_release_that_is_blocked_is_offered_to_nobody_and_says_why() -> None:
    verdict = decide(Situation(running="2.0.0", wanted="3.0.0", blocked="health check: 500"))

    assert Defer(reason="3.0.0 is blocked: health check: 500", by="blocked", pending=True) == verdict


def test_a_mark_without_a_reason_holds_back_all_the_same() -> None:
    verdict = decide(Situation(running="2.0.0", wanted="3.0.0", blocked=""))

    assert Defer(reason="3.0.0 is blocked", by="blocked", pending=True) == verdict


def test_the_operators_pause_is_named_before_the_mark() -> None:
    verdict = decide(Situation(running="2.0.0", wanted="3.0.0", paused=True, blocked="bad"))

    assert Defer(reason="group is paused", by="paused", pending=True) == verdict


@pytest.mark.parametrize("paused", [False, True])
def test_a_channel_that_points_at_nothing_offers_nothing(paused: bool) -> None:
    verdict = decide(Situation(running="1.0.0", wanted=None, channel="beta", paused=paused))

    assert isinstance(verdict, Defer)
    assert verdict.reason.endswith("channel 'beta' offers nothing yet")
    assert paused == verdict.reason.startswith("group is paused")
    assert not verdict.pending


@pytest.mark.parametrize("running", ["", "1.0.0.0", "v1.0.0", "one", "1.0"])
def test_a_version_that_cannot_be_compared_is_never_guessed_about(running: str) -> None:
    verdict = decide(Situation(running=running, wanted="2.0.0"))

    assert isinstance(verdict, Defer)
    assert repr(running) in verdict.reason
    assert "semver" in verdict.reason


def test_build_metadata_alone_is_no_news() -> None:
    verdict = decide(Situation(running="1.0.0+a", wanted="1.0.0+b"))

    assert isinstance(verdict, Defer)
    assert "build metadata" in verdict.reason
