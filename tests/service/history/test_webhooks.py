"""Webhooks: told in order, signed, again after a failure, by one process at a time."""

import base64
import hashlib
import hmac
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest

from outrider.core.errors import ConfigError, Conflict
from outrider.core.omaha import AppRequest, OmahaRequest
from outrider.core.rollout.policy_settings import Policy
from outrider.etcd.seam import Cluster
from outrider.service.history.background import background_tasks
from outrider.service.history.webhooks import Webhooks
from outrider.service.rollouts.checkins import Caller, Checkins
from outrider.service.store.store import Store, utc_now
from tests.support.service_examples import APP, LOOPBACK, make_app, open_store
from tests.support.waiting import eventually


class Receiver:
    """A web server that notes what it is told, and answers what it is set to."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.took: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.took.append(({name.lower(): text for name, text in self.headers.items()}, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Not in the tests' output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kinds(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.took]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


@pytest.fixture
def real(cluster: Cluster, prefix: str) -> Store:
    return open_store(cluster, prefix.rstrip("/"), utc_now)


@pytest.fixture
def hooks(real: Store) -> Webhooks:
    return Webhooks(context=real.context, auditing=real.auditing, destinations=LOOPBACK)


def run(stack: ExitStack, real: Store, count: int = 1) -> None:
    """Start the background tasks of so many processes, and wait until recording has begun."""
    for _ in range(count):
        stack.enter_context(
            background_tasks(real.context.cluster, real.context.keys.prefix, retry_min_s=0.1, destinations=LOOPBACK)
        )
    eventually(lambda: real.context.cluster.get(f"{real.context.keys.prefix}/activity-seen") is not None)


def test_deliveries_are_signed_and_come_in_order(real: Store, hooks: Webhooks, receiver: Receiver) -> None:
    hook = hooks.create("ops", receiver.url)
    with ExitStack() as stack:
        run(stack, real)
        make_app(real, version="1.0.0")
        for paused in (True, False, True):
            real.groups.update(APP, "beta", paused=paused)

        eventually(lambda: receiver.kinds().count("outrider.group-paused") == 2)

    told = [kind for kind in receiver.kinds() if kind in ("outrider.group-paused", "outrider.group-resumed")]
    assert ["outrider.group-paused", "outrider.group-resumed", "outrider.group-paused"] == told
    headers, body = receiver.took[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(hook.secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert f"v1,{expected}" == headers["webhook-signature"]
    assert APP == json.loads(body)["data"]["app"]


def test_a_release_that_waits_for_a_person_is_told_with_a_link(
    real: Store, hooks: Webhooks, receiver: Receiver
) -> None:
    hooks.create("ops", receiver.url, least="warning")
    make_app(real, version="1.0.0")
    real.rollouts.set_policy(APP, "beta", Policy(approval=True))
    check = AppRequest(app_id=APP, version="0.9.0", track="beta", machine_id="web-1", update_check=True)
    with ExitStack() as stack:
        cluster, prefix = real.context.cluster, real.context.keys.prefix
        stack.enter_context(
            background_tasks(
                cluster, prefix, retry_min_s=0.1, public_url="https://updates.example:8443", destinations=LOOPBACK
            )
        )
        eventually(lambda: cluster.get(f"{prefix}/activity-seen") is not None)
        Checkins(context=real.context).answer(OmahaRequest(apps=(check,)), Caller(address="", base_url="http://x"))

        eventually(lambda: "outrider.rollout-awaits-approval" in receiver.kinds())

    (told,) = [json.loads(body)["data"] for _, body in receiver.took if b'"outrider.rollout-awaits-approval"' in body]
    link = f"https://updates.example:8443/api/v1/apps/{quote(APP)}/groups/beta/rollout"
    assert {"link": link} == told["facts"]
    assert (
        f"the rollout of 1.0.0 to group beta waits for an approval: outrider rollout approve {APP}/beta" == told["text"]
    )


def test_people_are_told_in_their_own_way_and_again_after_a_failure(
    real: Store, hooks: Webhooks, receiver: Receiver
) -> None:
    """``json://`` is the one of apprise's addresses behind which a test can stand itself."""
    made = hooks.create("chat", receiver.url.replace("http://", "json://"), least="warning", kind="notification")
    make_app(real, version="1.0.0")
    receiver.statuses = [503]
    with ExitStack() as stack:
        run(stack, real)
        real.groups.update(APP, "beta", paused=True)

        eventually(lambda: len(receiver.took) == 2 and hooks.pending("chat") == 0)

    (_, refused), (headers, body) = receiver.took
    told = json.loads(body)
    assert refused == body
    assert (f"outrider: {APP}/beta", "group beta is paused", "warning") == (
        told["title"], told["message"], told["type"],
    )  # fmt: skip
    assert "webhook-signature" not in headers
    assert "json://..." == made.shown_url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("carrier-pigeon://home", r"carrier-pigeon://\.\.\.: no address that apprise knows"),
        ("slack://", r"slack://\.\.\.: no address that apprise knows"),
        ("syslog://", "reaches only the machine of the update service"),
        ("", "no address that apprise knows"),
    ],
)
def test_an_address_at_which_nobody_is_told_is_refused(hooks: Webhooks, url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        hooks.create("chat", url, kind="notification")

    assert () == hooks.list()


def test_a_service_without_the_library_says_what_to_install(hooks: Webhooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)

    with pytest.raises(ConfigError, match=r"pip install 'outrider\[notify\]'"):
        hooks.create("chat", "json://localhost", kind="notification")


def test_what_a_receiver_refuses_is_told_again_with_the_same_id(
    real: Store, hooks: Webhooks, receiver: Receiver
) -> None:
    hooks.create("ops", receiver.url, least="warning")
    make_app(real, version="1.0.0")
    receiver.statuses = [500, 302, 503]
    with ExitStack() as stack:
        run(stack, real)
        real.groups.update(APP, "beta", paused=True)

        eventually(lambda: len(receiver.took) == 4 and hooks.pending("ops") == 0)

    assert 1 == len({headers["webhook-id"] for headers, _ in receiver.took})


def test_two_processes_tell_a_receiver_once(real: Store, hooks: Webhooks, receiver: Receiver) -> None:
    hooks.create("ops", receiver.url, least="warning")
    make_app(real, version="1.0.0")
    with ExitStack() as stack:
        run(stack, real, count=2)
        for number in range(20):
            real.groups.update(APP, "beta", paused=number % 2 == 0)

        eventually(lambda: receiver.kinds().count("outrider.group-paused") >= 10 and not hooks.pending("ops"))

    assert 10 == receiver.kinds().count("outrider.group-paused")


def test_what_one_process_did_not_deliver_the_next_one_does(real: Store, hooks: Webhooks, receiver: Receiver) -> None:
    hooks.create("ops", receiver.url, least="warning")
    make_app(real, version="1.0.0")
    receiver.statuses = [500] * 1000
    with ExitStack() as stack:
        run(stack, real)
        real.groups.update(APP, "beta", paused=True)
        eventually(lambda: bool(receiver.took))
    assert 1 == hooks.pending("ops")
    receiver.statuses = []

    with ExitStack() as stack:
        run(stack, real)

        eventually(lambda: hooks.pending("ops") == 0)


def test_a_receiver_that_is_gone_for_good_is_not_told_any_more(
    real: Store, hooks: Webhooks, receiver: Receiver
) -> None:
    hooks.create("ops", receiver.url, least="warning")
    make_app(real, version="1.0.0")
    receiver.statuses = [410]
    with ExitStack() as stack:
        run(stack, real)
        real.groups.update(APP, "beta", paused=True)

        eventually(lambda: not hooks.list())


def test_one_webhook_hears_of_its_app_only(hooks: Webhooks, real: Store, receiver: Receiver) -> None:
    hooks.create("ops", receiver.url, app="another")
    hooks.create("all", receiver.url + "/all", least="error")

    with ExitStack() as stack:
        run(stack, real)
        make_app(real, version="1.0.0")
        eventually(lambda: real.context.cluster.list(real.context.keys.activity(APP)).entries != ())

    assert [] == receiver.took


@pytest.mark.parametrize("url", ["", "ftp://x/", "http://", "https://user@example.org/", "x"])
def test_a_webhook_needs_an_address_that_can_be_posted_to(hooks: Webhooks, url: str) -> None:
    with pytest.raises(ConfigError, match="write https://HOST/PATH"):
        hooks.create("ops", url)


def test_a_name_is_taken_once(hooks: Webhooks) -> None:
    hooks.create("ops", "https://example.org/a")

    with pytest.raises(Conflict, match="exists already"):
        hooks.create("ops", "https://example.org/b")
