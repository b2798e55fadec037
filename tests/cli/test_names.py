"""A shell completes apps, groups and instances as the service has them."""

import pytest
from click.shell_completion import ShellComplete

from outrider.cli import main, names
from outrider.model.documents import Instance, encode
from tests.support.service import NOON, Service
from tests.support.service_examples import APP, be_alive, make_app, put


@pytest.fixture(autouse=True)
def filled(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_SERVER", service.url)
    monkeypatch.setattr(names, "ANSWER_S", 60.0)  # a busy machine answers later than a person waits
    make_app(service.store, versions=("1.0.0",), version="1.0.0")
    service.store.groups.create(APP, "canary", channel="beta")
    service.store.apps.create(app="shop")
    be_alive(service.store, "web-1", NOON)
    row = Instance(app=APP, id="web-1", group="beta", version="1.0.0", first_seen=NOON, last_seen=NOON)
    put(service.store.context.cluster, service.store.context.keys.instance(APP, "web-1"), encode(row))


def completed(*words: str) -> list[str]:
    *before, begun = words
    return [
        item.value for item in ShellComplete(main, {}, "outrider", "_OUTRIDER_COMPLETE").get_completions(before, begun)
    ]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("status", ""), [APP, f"{APP}/", "shop", "shop/"]),
        (("status", "sh"), ["shop", "shop/"]),
        (("status", f"{APP}/"), [f"{APP}/beta", f"{APP}/canary"]),
        (("rollout", "show", f"{APP}/c"), [f"{APP}/canary"]),
        (("rollout", "show", f"{APP}/canary/"), []),
        (("group", "list", ""), [APP, "shop"]),
        (("group", "list", "--app-id", "s"), ["shop"]),
        (("why", f"{APP}/beta/"), [f"{APP}/beta/web-1"]),
        (("why", f"{APP}/canary/"), []),
        (("status", "nothing/"), []),
    ],
)
def test_what_is_there_is_completed(words: tuple[str, ...], found: list[str]) -> None:
    assert found == completed(*words)


def test_without_a_service_nothing_is_completed_and_nothing_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [] == completed("status", "--server", "http://127.0.0.1:9", "")
    monkeypatch.setenv("OUTRIDER_SERVER", "not an address")
    assert [] == completed("status", "")

    assert ("", "") == tuple(capsys.readouterr())
