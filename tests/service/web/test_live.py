"""What a page is sent of what has changed, and the forms that are checked while somebody types."""

import json
from pathlib import Path
from typing import Any

import pytest

from outrider.core.errors import ConfigError
from outrider.service.store.store import Store
from outrider.service.web.actions.policy import read_policy, read_variables
from outrider.service.web.live import Have, Live
from outrider.service.web.rendering import Fragments
from tests.sim.fake_etcd import FakeCluster
from tests.support.browsers import Browser
from tests.support.in_process import application_over, ask
from tests.support.service_examples import APP, be_alive, make_app
from tests.support.wall_clock import WallClock

GROUP = f"/apps/{APP}/groups/beta"


@pytest.fixture
def browser(client: FakeCluster, store: Store, tmp_path: Path, clock: WallClock) -> Browser:
    """An operator, who looks at three instances on 1.0.0 whose target is 2.0.0."""
    make_app(store, version="2.0.0")
    for number in range(3):
        be_alive(store, f"web-{number}", clock())
    browser = Browser(application_over(client, tmp_path, now=clock, open_to_all=True))
    browser.get(GROUP)
    return browser


def turn(browser: Browser, have: str = "", query: str = "") -> dict[str, Any]:
    answer = browser.get(f"/live{GROUP}?have={have}&{query}", accept="application/json")
    assert 200 == answer.status, answer.body
    told: dict[str, Any] = json.loads(answer.body)
    return told


def test_a_page_gets_everything_once_and_then_what_has_changed(
    browser: Browser, store: Store, clock: WallClock
) -> None:
    first = turn(browser)
    assert ["i-web-0", "i-web-1", "i-web-2"] == first["lists"]["rows"]

    browser.application.state.web.live._turns.clear()  # type: ignore[attr-defined] # as if its time was over
    be_alive(store, "web-1", clock(), version="2.0.0")
    second = turn(browser, first["have"])

    assert "2.0.0" in second["html"]["i-web-1"]
    assert not {"i-web-0", "i-web-2", "policy"} & set(second["html"])
    assert {} == second["lists"]


def test_a_page_of_another_process_gets_everything(browser: Browser) -> None:
    assert turn(browser, "nobody-knows-that")["html"].keys() == turn(browser)["html"].keys()


def test_rows_are_filtered_and_sorted_by_the_address(browser: Browser) -> None:
    assert ["i-web-1"] == turn(browser, query="q=web-1")["lists"]["rows"]
    assert ["i-web-2", "i-web-1", "i-web-0"] == turn(browser, query="sort=-instance")["lists"]["rows"]
    assert [] == turn(browser, query="state=rollback")["lists"]["rows"]
    assert 3 == len(turn(browser, query="state=other")["lists"]["rows"])


def test_a_browser_gets_four_streams_and_the_service_has_an_end() -> None:
    live = Live(reading=None, most=6)  # type: ignore[arg-type] # nothing is read
    live._open.update({"ann": 4, "bob": 1})

    assert [True, False] == [live.is_full("ann"), live.is_full("bob")]
    live._open["eve"] = 1
    assert live.is_full("bob")


def test_a_change_of_order_alone_is_sent_as_an_order() -> None:
    live = Live(reading=_Fresh(), most=1)  # type: ignore[arg-type]
    there, back = (
        Fragments(html={"a": "1", "b": "2"}, lists={"l": ["a", "b"]}),
        Fragments(html={"a": "1", "b": "2"}, lists={"l": ["b", "a"]}),
    )
    had = live.remember(Have.of(there))

    _, told = live.message(_turn(back), had)

    assert ({}, {"l": ["b", "a"]}) == (told["html"], told["lists"])


class _Fresh:
    revision = 1

    def stale_s(self) -> float:
        return 0.0


def _turn(fragments: Fragments) -> Any:
    from outrider.service.web.live import Turn
    from tests.support.wall_clock import NOON

    return Turn(fragments=fragments, have=Have.of(fragments), revision=1, made_at=0.0, now=NOON, pace_s=0.4)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "JSON"), ('{"canary": -1}', "canary"), ('{"nothing": 1}', "nothing"), ('{"percent": "x"}', "percent")],
)
def test_a_policy_that_is_none_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_policy(text)


def test_variables_are_lines_and_a_wrong_one_has_its_number() -> None:
    assert {"A": "1", "B": "x=y"} == read_variables("A=1\n\n# a comment\nB=x=y")
    with pytest.raises(ConfigError, match="line 2"):
        read_variables("A=1\nnothing")


def lint(browser: Browser, path: str, **form: str) -> dict[str, Any]:
    browser.get(path)
    answer = browser.post(f"{path}/lint", {"csrf": browser.fields()["csrf"], **form}, x_outrider_script="1")
    assert 200 == answer.status, answer.body
    told: dict[str, Any] = json.loads(answer.body)
    return told


def test_a_form_says_what_is_wrong_while_somebody_types(browser: Browser, store: Store) -> None:
    wrong = lint(browser, f"{GROUP}/policy", policy='{"canary": "many"}')
    never = lint(browser, f"{GROUP}/policy", policy='{"percent": 0}')
    other = lint(browser, f"{GROUP}/environment", variables="LOG_LEVEL=debug")

    assert "canary" in wrong["lint"][0]
    assert never["lint"]
    assert ["LOG_LEVEL: (not there) → debug"] == other["effect"]
    assert 100.0 == store.rollouts.policy(APP, "beta").percent


def test_a_promotion_says_which_instances_follow_and_is_done(browser: Browser, store: Store) -> None:
    path = f"{GROUP}/promote/beta"
    told = lint(browser, path, version="1.0.0")
    assert "channel beta: 2.0.0 → 1.0.0" in told["effect"]

    browser.get(path)
    answer = browser.post(path, {**browser.fields(), "version": "1.0.0"})

    assert 303 == answer.status
    assert "1.0.0" == store.channels.get(APP, "beta").version


def test_a_command_of_the_page_is_the_apis(browser: Browser, store: Store) -> None:
    path = f"{GROUP}/instances/web-1/drain"
    browser.get(path)
    assert "2 of 3 serve then" in browser.text

    browser.post(path, browser.fields())

    said = ask(browser.application, "GET", f"/api/v1/apps/{APP}/instances/web-1/why").body.decode()
    assert "drain requested" in said


def test_a_turn_that_is_free_can_not_be_released(browser: Browser) -> None:
    path = f"{GROUP}/turns/0/release"
    browser.get(path)
    assert "left behind any more" in browser.text

    assert 409 == browser.post(path, browser.fields()).status
    assert 404 == browser.get(f"{GROUP}/turns/x/release").status


def test_the_statechart_is_drawn_with_the_numbers_of_instances(browser: Browser) -> None:
    answer = browser.get(f"{GROUP}/statechart.svg?theme=dark")

    assert "image/svg+xml" == answer.headers["content-type"]
    assert "style" not in browser.text
