"""Waves on the command line and in a file, as short texts."""

import pytest

from outrider.cli.commands.policy import analyses, duration, text_of, waves
from outrider.core.errors import ConfigError

TEXTS = (
    "canary=yes; 2; soak 30m; approval",
    "site=a; soak 1h; analysis errors, latency; approval",
    "site in (a, b),!db; 25%; success 90%",
    "any; 1",
    "rack=3",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_wave_is_shown_as_it_was_written(text: str) -> None:
    assert [text] == text_of("waves", waves((text,)))


def test_a_wave_says_what_it_takes() -> None:
    (wave,) = waves(("canary=yes; 2; soak 30m; success 50 %; approval",))

    assert {
        "selector": "canary=yes",
        "count": 2,
        "percent": None,
        "soak_s": 1800,
        "success_percent": 50.0,
        "approval": True,
        "analyses": [],
    } == wave
    assert "30m" == duration(1800)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("1; soak 60s", "any; 1; soak 1m"),
        ("25%", "any; 25%"),
        ("soak 30m; approval", "any; soak 30m; approval"),
        ("approval", "any; approval"),
        ("analysis errors", "any; analysis errors"),
    ],
)
def test_a_wave_that_names_nobody_takes_anybody(text: str, same: str) -> None:
    """A bare number was taken for the name of a label, which no instance has."""
    assert [same] == text_of("waves", waves((text,)))


ANALYSES = (
    'errors; prometheus http://prometheus:9090; < 0.01; query sum(rate(errors_total{version="{version}"}[5m]))',
    "verdict; http https://checkout.example/verdict?of={group}; failures 3; every 1m; within 30m; undecided fail",
    "rate; http http://a:1/; > 0.5; field stats.rate; timeout 10s",
    'odd; prometheus http://prometheus:9090; == 1; query up{path=~"a; query b;c"} == 1',
)


@pytest.mark.parametrize("text", ANALYSES)
def test_an_analysis_is_shown_as_it_was_written(text: str) -> None:
    """The query comes last, and may hold what else would divide the text."""
    assert [text] == text_of("analyses", analyses((text,)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("errors; prometheus http://a:1; small", "'small' can't be read"),
        ("errors; every often", "duration 'often'"),
        ("errors; http http://a:1; prometheus http://b:1", "says url a second time"),
        ("errors; failures many", "'failures many' can't be read"),
    ],
)
def test_an_analysis_that_cannot_be_read_is_one_line_that_says_what_to_write(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        analyses((text,))
    assert "write NAME; prometheus URL; CONDITION; query PROMQL" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_none_takes_the_analyses_away() -> None:
    assert [] == analyses(("none",))


@pytest.mark.parametrize("selector", ["1", "approval"])
def test_a_selector_that_looks_like_something_else_is_read_back_as_a_selector(selector: str) -> None:
    """The API takes a label of that name; a text that names it must not become a count."""
    (text,) = text_of("waves", [waves(("any; 2",))[0] | {"selector": selector}])

    (wave,) = waves((text,))
    assert (f"{selector},{selector}", 2) == (wave["selector"], wave["count"])


def test_none_takes_the_waves_away() -> None:
    assert [] == waves(("none",))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("site=; 2", "selector 'site='"),
        ("site=a; two", "'two' can't be read"),
        ("site=a; 2; 3", "'3' says count a second time"),
        ("site=a; soak long", "duration 'long'"),
    ],
)
def test_a_wave_that_cannot_be_read_says_how_one_is_written(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=r"write SELECTOR; COUNT or SHARE%") as caught:
        waves((text,))

    assert problem in str(caught.value)
