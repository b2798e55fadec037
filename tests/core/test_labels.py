"""Labels, and selectors that choose by them."""

import pytest

from outrider.core.errors import ConfigError
from outrider.core.labels import MAX_LABELS, check_labels, parse_selector, shown

RACK_3 = {"site": "a", "rack": "3"}


@pytest.mark.parametrize(
    ("selector", "selects"),
    [
        ("", True),
        ("  ", True),
        ("site=a", True),
        ("site == a", True),
        ("site=b", False),
        ("site=a,rack=3", True),
        ("site=a , rack=4", False),
        ("rack!=3", False),
        ("rack!=4", True),
        ("canary!=yes", True),
        ("site in (a, b)", True),
        ("site in (b)", False),
        ("site notin (b,c),rack", True),
        ("canary notin (yes)", True),
        ("canary", False),
        ("!canary", True),
        ("! rack", False),
    ],
)
def test_a_selector_selects_by_labels(selector: str, selects: bool) -> None:
    assert selects == parse_selector(selector).selects(RACK_3)


@pytest.mark.parametrize(
    "text", ["site=", "=a", "site=a,", ",site=a", "site a", "site in a", "site in ()", "site in (a", "!", "s!te=a"]
)
def test_a_selector_that_cannot_be_read_says_so(text: str) -> None:
    with pytest.raises(ConfigError, match="selector"):
        parse_selector(text)


def test_the_message_says_where_it_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match=r"can't be read from 'rack>3' on"):
        parse_selector("site=a,rack>3")


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ({"si te": "a"}, "label 'si te'"),
        ({"": "a"}, "label ''"),
        ({"site": ""}, "label site = ''"),
        ({"site": "a,b"}, "label site = 'a,b'"),
        ({"site": "a" * 64}, "label site"),
        ({f"l{number}": "x" for number in range(MAX_LABELS + 1)}, "at most 16"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(labels: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        check_labels(labels)


def test_names_as_in_kubernetes_can_be_used() -> None:
    labels = {"topology.kubernetes.io/zone": "eu-1a"}

    assert labels == check_labels(labels)
    assert parse_selector("topology.kubernetes.io/zone=eu-1a").selects(labels)


def test_labels_are_shown_as_a_selector_would_select_them() -> None:
    assert shown(RACK_3) == "rack=3,site=a"
    assert parse_selector(shown(RACK_3)).selects(RACK_3)
