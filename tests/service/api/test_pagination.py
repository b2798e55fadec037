"""Lists a page at a time, and the filters of the long ones."""

from datetime import timedelta
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.core.errors import ConfigError
from outrider.model.documents import Instance, encode
from outrider.service.api.pagination import page_of, position_of, token_of
from tests.support.service import NOON, Service
from tests.support.service_examples import APP, be_alive, block, make_app, payload_of, put

NAMES = st.lists(st.text(min_size=1, max_size=5), unique=True).map(sorted)


@settings(deadline=None)
@given(NAMES, st.integers(1, 7))
def test_pages_together_are_the_list(names: list[str], limit: int) -> None:
    seen: list[str] = []
    after = None
    while True:
        page, after = page_of(names, limit=limit, after=after, name=lambda name: name)
        seen += page
        if after is None:
            break
        assert limit == len(page)

    assert names == seen


@settings(deadline=None)
@given(NAMES, NAMES, NAMES, st.integers(1, 5), st.booleans())
def test_what_comes_and_goes_meanwhile_makes_nobody_else_be_seen_twice_or_never(
    stays: list[str], comes: list[str], goes: list[str], limit: int, descending: bool
) -> None:
    before = sorted({*stays, *goes}, reverse=descending)
    later = sorted({*stays, *comes}, reverse=descending)
    page, after = page_of(before, limit=limit, after=None, name=lambda name: name, descending=descending)
    seen = list(page)
    while after is not None:
        page, after = page_of(later, limit=limit, after=after, name=lambda name: name, descending=descending)
        seen += page

    assert len(seen) == len(set(seen))
    assert set(stays) <= set(seen)


@given(st.text())
def test_a_token_stands_for_its_position_and_fits_an_address(position: str) -> None:
    token = token_of(position)

    assert position == position_of(token)
    assert token.replace("-", "").replace("_", "").isalnum() or not token


@pytest.mark.parametrize("token", ["!", "a", "/w", "_w", "\u00e9"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="not the `next` of a page"):
        position_of(token)


def items(service: Service, path: str, **query: object) -> list[dict[str, Any]]:
    """A whole list, in pages of two."""
    every: list[dict[str, Any]] = []
    asked = {"limit": 2, **query}
    while True:
        answer = requests.get(f"{service.url}/api/v1{path}", params=asked, timeout=60)  # type: ignore[arg-type]
        assert answer.ok, answer.text
        every += answer.json()["items"]
        if answer.json()["next"] is None:
            return every
        assert 2 == len(answer.json()["items"])
        asked["after"] = answer.json()["next"]


def test_every_list_has_pages(service: Service) -> None:
    store = service.store
    make_app(store, versions=("1.0.0", "1.2.0", "1.10.0", "1.9.0", "1.2.0-rc.1"))
    for number in range(4):
        store.apps.create(app=f"app-{number}")
        store.channels.create(APP, f"channel-{number}")
        store.groups.create(APP, f"group-{number}", channel="beta")
        block(store, f"{number}.0.0", "it crashed", NOON)
        be_alive(store, f"web-{number}", NOON)
        be_alive(store, f"web-{number}", NOON, group="beta-2")
    for name in ("ann", "bob", "eve"):
        store.users.create(name, "admin")
    token = store.users.create("ann").token

    def listed(path: str, name: str) -> list[str]:
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {token}"
        every: list[str] = []
        after = None
        while True:
            query = {"limit": "2"} | ({"after": after} if after else {})
            answer = session.get(f"{service.url}/api/v1{path}", params=query, timeout=60).json()
            every += [one[name] for one in answer["items"]]
            after = answer["next"]
            if after is None:
                return every

    assert [*(f"app-{number}" for number in range(4)), APP] == listed("/apps", "id")
    assert ["beta", *(f"channel-{number}" for number in range(4))] == listed(f"/apps/{APP}/channels", "name")
    assert ["beta", *(f"group-{number}" for number in range(4))] == listed(f"/apps/{APP}/groups", "id")
    assert ["1.10.0", "1.9.0", "1.2.0", "1.2.0-rc.1", "1.0.0"] == listed(f"/apps/{APP}/packages", "version")
    assert [f"{number}.0.0" for number in range(4)] == listed(f"/apps/{APP}/blocks", "version")
    assert sorted([f"web-{number}" for number in range(4)] * 2) == sorted(listed(f"/apps/{APP}/presence", "instance"))
    assert ["ann", "bob", "eve"] == listed("/users", "name")


def test_packages_are_found_by_the_beginning_of_their_version(service: Service) -> None:
    make_app(service.store, versions=("1.0.0", "1.2.0", "1.2.5", "1.20.0", "1.2.5-rc.1", "12.0.0"))

    def found(prefix: str) -> list[str]:
        return [one["version"] for one in items(service, f"/apps/{APP}/packages", version=prefix)]

    assert ["1.2.5", "1.2.5-rc.1", "1.2.0"] == found("1.2")
    assert ["1.20.0", "1.2.5", "1.2.5-rc.1", "1.2.0", "1.0.0"] == found("1")
    assert ["1.2.5", "1.2.5-rc.1"] == found("1.2.5")
    assert [] == found("2")


def test_an_upload_of_a_package_between_two_pages_repeats_nothing(service: Service) -> None:
    make_app(service.store, versions=("1.0.0", "2.0.0", "3.0.0"))
    url = f"{service.url}/api/v1/apps/{APP}/packages"
    first = requests.get(url, params={"limit": "2"}, timeout=60).json()
    service.store.packages.create(APP, "4.0.0", payload_of("4.0.0"))
    service.store.packages.delete(APP, "2.0.0")

    second = requests.get(url, params={"limit": "2", "after": first["next"]}, timeout=60).json()

    assert (["3.0.0", "2.0.0"], ["1.0.0"]) == tuple(
        [one["version"] for one in page["items"]] for page in (first, second)
    )


def test_instances_are_found_by_what_is_known_of_them(service: Service) -> None:
    make_app(service.store)
    for number, facts in enumerate(
        (
            {"version": "1.0.0", "status": "complete", "alias": "Kitchen"},
            {"version": "1.0.0", "status": "error", "address": "10.0.0.9"},
            {"version": "10.0.0", "status": "complete", "group": "gamma", "oem": "qemu"},
        )
    ):
        seen = NOON + timedelta(hours=number)
        row = {"group": "beta", "first_seen": NOON, "last_seen": seen} | facts
        instance = Instance(app=APP, id=f"web-{number}", **row)  # type: ignore[arg-type]
        put(service.store.context.cluster, service.store.context.keys.instance(APP, f"web-{number}"), encode(instance))

    def found(**query: object) -> str:
        return "".join(one["id"][-1] for one in items(service, f"/apps/{APP}/instances", **query))

    assert "012" == found()
    assert "2" == found(group="gamma")
    assert "02" == found(status="complete")
    assert "01" == found(version="1")
    assert "12" == found(seen_since=(NOON + timedelta(hours=1)).isoformat())
    assert ("0", "1", "2") == (found(text="kitchen"), found(text="10.0.0.9"), found(text="QEMU"))
    assert "0" == found(status="complete", group="beta", text="web")
    assert "" == found(text="nothing like it")


@pytest.mark.parametrize("query", ["after=MQ", "limit=0", "seen_since=2026-01-01"])
def test_a_page_that_cannot_be_is_one_line_of_refusal(service: Service, query: str) -> None:
    make_app(service.store)
    path = "instances" if "seen" in query else "packages"

    answer = requests.get(f"{service.url}/api/v1/apps/{APP}/{path}?{query}", timeout=60)

    assert answer.status_code in (400, 422)
    assert "application/problem+json" == answer.headers["content-type"]
