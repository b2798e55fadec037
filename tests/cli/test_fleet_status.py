"""The whole fleet in a table, and scripts that wait for a rollout."""

import json
from typing import Any

import pytest

from outrider.cli.commands.rollout import blocked_because, describe, status_of
from outrider.model.documents import Presence, encode
from tests.support.service import NOON, Service
from tests.support.service_examples import APP, be_alive, block, make_app, put
from tests.support.typing_verbs import Run, lines, typist


@pytest.fixture
def run(service: Service) -> Run:
    return typist(service)


def test_without_an_app_every_group_of_every_app_is_a_line(run: Run, service: Service) -> None:
    """
    1. nothing yet: one clear line
    2. an app with a group and two instances, one of them on the target; an app without a group; one that is unknown
       to the service, whose sidekick lives
    """
    assert "no app has a group yet" in run("status").stderr

    make_app(service.store)
    be_alive(service.store, "web-1", NOON)
    be_alive(service.store, "web-2", NOON, version="0.9.0")
    run("app create --app-id=other --label=Other")
    keys = service.store.context.keys
    foreign = Presence(instance="db-1", app="foreign", group="db", since=NOON, state="idle", version="3.0.0")
    put(service.store.context.cluster, keys.presence("foreign", "db", "db-1"), encode(foreign))

    shown = lines(run("status").stdout)

    assert ["APP", "GROUP", "TARGET", "INSTANCES"] == shown[0][:4]
    by_group = {line[1]: line for line in shown[1:]}
    assert {"beta", "db"} == set(by_group)
    assert "2 of 2 serve, 1 with 1.0.0" == by_group["beta"][3]
    assert "foreign" == by_group["db"][0]
    assert {"beta", "db"} == {one["group"] for one in json.loads(run("status --json").stdout)}


def test_a_group_is_addressed_as_such(run: Run, service: Service) -> None:
    make_app(service.store)
    be_alive(service.store, "web-1", NOON)

    assert "web-1" in run(f"status {APP}/beta").stdout
    assert "--group says 'b', and the address says 'beta'" in run(f"status {APP}/beta --group=b", code=2).stderr
    assert "has no group 'alpha'" in run(f"status {APP}/alpha", code=1).stderr


def test_instances_are_shown_with_their_labels_and_selected_by_them(run: Run, service: Service) -> None:
    make_app(service.store)
    be_alive(service.store, "web-1", NOON, labels={"site": "a", "rack": "1"})
    be_alive(service.store, "web-2", NOON)

    shown = run(f"status {APP}").stdout
    chosen = run(f"status {APP} --selector site=a").stdout
    (facts,) = json.loads(run(f"status {APP} -l '!site' --json").stdout)

    assert ["GROUP", "INSTANCE", "LABELS", "STATE"] == lines(shown)[0][:4]
    assert "rack=1,site=a" in lines(shown)[1]
    assert "web-1" in chosen
    assert "web-2" not in chosen
    assert [("web-2", {})] == [(one["instance"], one["labels"]) for one in facts["instances"]]
    assert "can't be read from 'a b'" in run(f"status {APP} -l 'a b'", code=1).stderr


def test_without_labels_there_is_no_column_for_them(run: Run, service: Service) -> None:
    make_app(service.store)
    be_alive(service.store, "web-1", NOON)

    assert "LABELS" not in run(f"status {APP}").stdout


SHOWN = {
    "group": "web", "version": "2.0.0", "state": "running", "finished": None, "succeeded": 3, "opened": ["a"],
    "waiting": [], "failures": [], "why": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "blocked", "line", "status"),
    [
        ({}, "", "group web: 2.0.0 running, 3 updated, 1 under way", None),
        ({"waiting": ["b", "c"]}, "", "group web: 2.0.0 running, 3 updated, 1 under way, 2 deferred", None),
        ({"opened": [], "finished": "now"}, "", "group web: 2.0.0 finished, 3 updated", 0),
        ({"state": "halted", "why": "4 failed"}, "", "group web: 2.0.0 halted, 3 updated, 1 under way: 4 failed", 2),
        ({"state": "paused", "why": "lunch"}, "", "group web: 2.0.0 paused, 3 updated, 1 under way: lunch", None),
        ({"opened": []}, "a: 503", "group web: 2.0.0 blocked, 3 updated: a: 503", 2),
    ],
)
def test_what_a_script_is_told_and_leaves_with(
    facts: dict[str, object], blocked: str, line: str, status: int | None
) -> None:
    found = SHOWN | facts

    assert (line, status) == (describe(found, blocked), status_of(found, blocked))


def test_a_script_waits_until_it_is_finished_or_cannot_be(run: Run, service: Service) -> None:
    """
    1. nothing is to be waited for
    2. it takes too long
    """
    run(f"app create --app-id={APP}")
    run(f"group create --app-id={APP} --group-id=beta --channel=beta")
    assert "has no release to wait for" in run(f"rollout wait {APP}/beta", code=1).stderr

    run(f"package create --app-id={APP} --version=1.0.0 --url=http://x/a.tar --size=1 --sha256={'0' * 64}")
    run(f"channel update --app-id={APP} --channel=beta --version=1.0.0")
    late = run(f"rollout wait {APP}/beta --timeout=1s", code=4)
    assert "not finished after 1s: group beta: 1.0.0 running, 0 updated" in late.stderr


class Blocks:
    """A service that has these blocks, and answers nothing else."""

    def __init__(self, *blocks: tuple[str, str]) -> None:
        self.blocks = [{"label": label, "instance": by, "why": "503"} for label, by in blocks]

    def get_all(self, *path: str) -> list[dict[str, str]]:
        assert ("apps", APP, "blocks") == path
        return self.blocks


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        ([("2.0.0", "web-1")], "web-1: 503"),
        ([("2.0.0", "group beta")], "group beta: 503"),
        ([("2.0.0", "group alpha")], ""),
        ([("1.0.0", "web-1")], ""),
        ([], ""),
    ],
)
def test_a_block_of_another_group_alone_is_none(blocks: list[tuple[str, str]], why: str) -> None:
    service: Any = Blocks(*blocks)

    assert why == blocked_because(service, APP, "beta", "2.0.0")


def test_a_blocked_release_ends_the_wait(run: Run, service: Service) -> None:
    make_app(service.store)
    block(service.store, "1.0.0", "47 of 47 answers were 503", NOON)

    for verb in ("wait", "watch"):
        told = run(f"rollout {verb} {APP}/beta", code=2)
        assert "1.0.0 blocked" in told.stdout
        assert "web-1" in told.stdout


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon-fri 09:00-17:00", ["mon", "tue", "wed", "thu", "fri"]),
        ("sat-mon 09:00-17:00", ["sat", "sun", "mon"]),
        ("mon-tue,fri 09:00-17:00", ["mon", "tue", "fri"]),
        ("Mon-Wed 09:00-17:00", ["mon", "tue", "wed"]),
        ("sun-sun 09:00-17:00", ["sun"]),
    ],
)
def test_a_window_may_name_a_range_of_days(run: Run, service: Service, text: str, days: list[str]) -> None:
    make_app(service.store)

    run(f"group policy {APP}/beta --window='{text}'")

    policy = json.loads(run(f"group policy {APP}/beta --json").stdout)
    assert [days] == [window["days"] for window in policy["windows"]]


@pytest.mark.parametrize("text", ["mon-fry 09:00-17:00", "-fri 09:00-17:00", "mon-tue-wed 09:00-17:00"])
def test_a_range_that_is_none_is_one_clear_line(run: Run, service: Service, text: str) -> None:
    make_app(service.store)

    assert "are no days: write two of mon, tue" in run(f"group policy {APP}/beta --window='{text}'", code=1).stderr
