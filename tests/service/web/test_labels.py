"""Apps and groups by the names that people gave them, and their ids where a command needs them."""

from pathlib import Path

import pytest

from outrider.model.activity import Activity
from outrider.model.documents import Crash, encode
from outrider.service.rollouts.explain_groups import explain_groups
from outrider.service.rollouts.status import read_status
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster
from tests.support.browsers import Browser
from tests.support.in_process import application_over
from tests.support.service_examples import APP, be_alive, make_app, put
from tests.support.wall_clock import WallClock

GROUP = f"/apps/{APP}/groups/beta"
LABEL = "Beta & friends"
SHOWN = "Beta &amp; friends"


@pytest.fixture
def browser(client: FakeCluster, store: Store, tmp_path: Path, clock: WallClock) -> Browser:
    """A group that people call otherwise than commands do, with one instance that can't take the target."""
    make_app(store)
    store.groups.update(APP, "beta", label=LABEL)
    be_alive(store, "web-1", clock(), cannot_take="1.0.0", cannot_why="/var is full")
    event = Activity(
        at=clock(), severity="info", kind="group", app=APP, group="beta", instance="web-1", text="something happened"
    )
    put(client, f"{store.context.keys.activity(APP)}0001", encode(event))
    return Browser(application_over(client, tmp_path, now=clock, open_to_all=True))


@pytest.mark.parametrize(
    "path",
    ["/", GROUP, f"{GROUP}/at", f"{GROUP}/instances/web-1", f"{GROUP}/pause", f"/apps/{APP}/packages", "/activity"],
)
def test_every_page_calls_a_group_by_its_name_for_people(browser: Browser, path: str) -> None:
    assert 200 == browser.get(path).status

    assert SHOWN in browser.text
    assert f">{APP}/" not in browser.text
    assert "Example/beta" not in browser.text


def test_titles_have_the_names_for_people(browser: Browser) -> None:
    titles = {}
    for path in (GROUP, f"{GROUP}/pause", f"/apps/{APP}/packages", f"{GROUP}/instances/web-1"):
        browser.get(path)
        titles[path] = browser.text.partition("<title>")[2].partition(" · ")[0]

    assert [
        f"Example/{SHOWN}",
        f"Pause the rollout of Example/{SHOWN}",
        "Packages of Example",
        f"web-1 of Example/{SHOWN}",
    ] == list(titles.values())


def test_a_group_without_a_label_is_called_by_its_id(browser: Browser, store: Store) -> None:
    store.groups.update(APP, "beta", label="")
    browser.get(GROUP)

    assert "Example/beta " in browser.text


def test_commands_say_the_id_which_they_take_and_the_name_beside_it(browser: Browser, store: Store) -> None:
    (found,) = read_status(store.context, APP)
    (why,) = explain_groups(store.context, APP)

    assert ("Example", f"beta ({LABEL})") == found.line[:2]
    assert found.summary.startswith(f"group beta ({LABEL}): target: 1.0.0")
    assert ("beta", LABEL) == (found.facts["group"], found.facts["label"])
    assert why.reasons[0].startswith(f"group beta ({LABEL}) of {APP}: target 1.0.0")


def test_commands_in_a_reason_are_set_apart_and_nothing_in_it_is_markup(browser: Browser, store: Store) -> None:
    put(
        store.context.cluster,
        store.context.keys.crash(APP, "web-2"),
        encode(
            Crash(
                app=APP, group="beta", instance="web-2", state="", what="`<i>dbus</i>` is away", count=1,
                first=store.context.now(), at=store.context.now(), cannot_begin=True,
            )
        ),
    )  # fmt: skip
    browser.get(GROUP)

    assert "<code>&lt;i&gt;dbus&lt;/i&gt;</code> is away" in browser.text


def test_a_fleet_without_an_app_says_what_adds_one(client: FakeCluster, tmp_path: Path, clock: WallClock) -> None:
    browser = Browser(application_over(client, tmp_path, now=clock, open_to_all=True))
    browser.get("/")

    assert "<code>outrider app create</code> adds one" in browser.text
    assert "Nothing needs attention" not in browser.text
