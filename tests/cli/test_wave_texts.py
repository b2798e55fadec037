"""Waves on the command line and in a file, as short texts."""

import pytest

from outrider.cli.commands.policy import duration, text_of, waves
from outrider.core.errors import ConfigError

TEXTS = (
    "canary=yes; 2; soak 30m; approval",
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
    } == wave
    assert "30m" == duration(1800)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("1; soak 60s", "any; 1; soak 1m"),
        ("25%", "any; 25%"),
        ("soak 30m; approval", "any; soak 30m; approval"),
        ("approval", "any; approval"),
    ],
)
def test_a_wave_that_names_nobody_takes_anybody(text: str, same: str) -> None:
    """A bare number was taken for the name of a label, which no instance has."""
    assert [same] == text_of("waves", waves((text,)))


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
