"""Caddy's driver: the one change that it makes to a handler, from what Caddy 2.11 answered."""

import json
from typing import Any

import pytest

from outrider.balancers.agent.caddy import (
    SETTLE_S,
    CaddyDriver,
    CaddyState,
    Patch,
    Upstream,
    handler_with,
    plan,
    report,
    upstreams_in,
)
from outrider.balancers.agent.driver import AgentServer, CannotFollow

OLD = AgentServer(id="web-1", url="http://127.0.0.1:8085")
NEW = AgentServer(id="web-1", url="http://127.0.0.1:8086", weight=3)
OLD_DIAL, NEW_DIAL = "127.0.0.1:8085", "127.0.0.1:8086"


def handler(*upstreams: str, weights: list[int] | None = None, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "@id": "hello",
        "handler": "reverse_proxy",
        "upstreams": [{"dial": one} for one in upstreams],
    }
    if weights is not None:
        made["load_balancing"] = {"selection_policy": {"policy": "weighted_round_robin", "weights": weights}}
    return {**made, **more}


def state(told: dict[str, Any], **open_at: int) -> CaddyState:
    counts = {OLD_DIAL: open_at.get("old", 0), NEW_DIAL: open_at.get("new", 0)}
    return CaddyState(upstreams=upstreams_in(told, counts), etag='"/id/hello 1"', handler=told)


def test_a_swap_is_one_change_in_which_the_old_one_gets_weight_0() -> None:
    (patch,) = plan((NEW,), state(handler(OLD_DIAL, weights=[1]), old=2))

    assert ((NEW_DIAL, 3), (OLD_DIAL, 0)) == patch.upstreams
    assert '"/id/hello 1"' == patch.etag


def test_the_old_one_keeps_its_place_while_it_has_requests_and_until_the_next_change() -> None:
    """Every change is a reload, in which Caddy may drop a request: so what has drained is no reason for one."""
    swapped = handler(NEW_DIAL, OLD_DIAL, weights=[3, 0])
    third = AgentServer(id="web-1", url="http://127.0.0.1:8087")

    assert () == plan((NEW,), state(swapped, old=1))
    assert {OLD.url: 1} == report((NEW,), state(swapped, old=1)).draining
    assert {NEW.url} == report((NEW,), state(swapped, old=1)).serving
    assert () == plan((NEW,), state(swapped))
    assert {OLD.url: 0} == report((NEW,), state(swapped)).draining
    (patch,) = plan((third,), state(swapped))
    assert (("127.0.0.1:8087", 1), (NEW_DIAL, 0)) == patch.upstreams


def test_without_any_server_none_is_left_for_caddy_takes_an_only_one_whatever_its_weight() -> None:
    (patch,) = plan((), state(handler(OLD_DIAL, weights=[1]), old=2))

    assert () == patch.upstreams
    assert () == plan((), state(handler()))


def test_what_is_as_it_must_be_is_left_alone() -> None:
    assert () == plan((NEW,), state(handler(NEW_DIAL, weights=[3])))
    assert () == plan((OLD, NEW), state(handler(NEW_DIAL, OLD_DIAL, weights=[3, 1])))


def test_another_policy_is_replaced_and_everything_else_of_the_handler_stays() -> None:
    told = handler(OLD_DIAL, transport={"protocol": "http"})
    told["upstreams"][0]["max_requests"] = 10
    told["load_balancing"] = {"retries": 2, "selection_policy": {"policy": "random"}}
    (patch,) = plan((OLD, NEW), state(told))

    made = handler_with(patch.handler, patch.upstreams)

    assert [{"dial": OLD_DIAL, "max_requests": 10}, {"dial": NEW_DIAL}] == made["upstreams"]
    assert {"protocol": "http"} == made["transport"]
    assert 2 == made["load_balancing"]["retries"]
    assert {"policy": "weighted_round_robin", "weights": [1, 3]} == made["load_balancing"]["selection_policy"]


def test_weights_that_do_not_fit_the_upstreams_mean_that_all_of_them_serve() -> None:
    told = handler(OLD_DIAL, NEW_DIAL, weights=[0])

    assert [-1, -1] == [one.weight for one in upstreams_in(told, {})]
    assert {OLD.url, NEW.url} == report((), state(told)).serving


@pytest.mark.parametrize(
    ("status", "told", "said"),
    [
        (
            404,
            {"error": "unknown object ID 'hello'"},
            "has nothing at /id/hello: give the reverse_proxy",
        ),
        (
            400,
            {"error": "array index out of bounds: 7"},
            r"at /id/hello \(status 400\): array index out",
        ),
        (200, {"listen": [":80"]}, "isn't a reverse_proxy handler: name one, as config/apps"),
        (200, {"handler": "file_server"}, "isn't a reverse_proxy handler, but file_server"),
        (200, handler(OLD_DIAL, dynamic_upstreams={"source": "a"}), "has dynamic_upstreams, which Caddy prefers"),
    ],
    ids=["no such id", "no such path", "a server", "another handler", "dynamic upstreams"],
)
def test_a_handler_that_no_agent_can_change_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, status: int, told: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(CaddyDriver, "_ask", lambda *_: (status, {}, json.dumps(told).encode()))
    driver = CaddyDriver(admin_url="http://127.0.0.1:2019", handler="id/hello")

    with pytest.raises(CannotFollow, match=said):
        driver.look()


def test_an_only_upstream_with_weight_0_serves_all_the_same() -> None:
    assert (Upstream(dial=OLD_DIAL, weight=1),) == upstreams_in(handler(OLD_DIAL, weights=[0]), {})


def test_a_server_that_leaves_counts_as_busy_for_a_moment_after_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration before may still be reading a request that it has accepted, and nothing counts that one."""
    now = [100.0]
    swapped = handler(NEW_DIAL, OLD_DIAL, weights=[3, 0])
    counts = [{"address": OLD_DIAL, "num_requests": 0}, {"address": NEW_DIAL, "num_requests": 7}]

    def ask(driver: CaddyDriver, method: str, path: str, *_: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, json.dumps(counts if path == "/reverse_proxy/upstreams" else swapped).encode()

    monkeypatch.setattr(CaddyDriver, "_ask", ask)
    driver = CaddyDriver(admin_url="http://127.0.0.1:2019", handler="id/hello", clock=lambda: now[0])

    def told() -> dict[str, int | None]:
        return {one.dial: one.open for one in driver.look().upstreams}

    assert {OLD_DIAL: 1, NEW_DIAL: 7} == told(), "an agent that was just started can't know when Caddy was changed"
    now[0] += SETTLE_S
    assert {OLD_DIAL: 0, NEW_DIAL: 7} == told()
    driver.perform(Patch(upstreams=((NEW_DIAL, 3), (OLD_DIAL, 0)), etag=""))
    now[0] += SETTLE_S / 2
    assert {OLD_DIAL: 1, NEW_DIAL: 7} == told()
    counts[0]["num_requests"] = 4
    assert {OLD_DIAL: 4, NEW_DIAL: 7} == told()
    now[0] += SETTLE_S / 2
    counts[0]["num_requests"] = 0
    assert {OLD_DIAL: 0, NEW_DIAL: 7} == told()
