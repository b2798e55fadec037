"""An etcd that was restored, and has overtaken the service meanwhile: what it holds of the etcd before is looked over.

No watch can notice that by itself: the revisions go on as if nothing had happened. The epoch tells (P8).
"""

import json
import queue
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from outrider.clients.wake import Announced
from outrider.etcd.seam import Entry, Put, WatchEvent
from outrider.model.documents import Block, encode
from outrider.model.epoch import Epoch
from outrider.model.keys import Keys
from outrider.service.history.activity_log import read_activity
from outrider.service.history.background import background_tasks
from outrider.service.history.recorder import ActivityRecorder
from outrider.service.history.webhooks import Webhooks
from outrider.service.rollouts import controller as controllers
from outrider.service.rollouts.wakeups import Look
from outrider.service.store.store import Store
from outrider.service.store.users import KnownUsers
from tests.sim.fake_etcd import FakeCluster, FakeEtcd, FakeWatch
from tests.support.service_examples import APP, LOOPBACK, make_app, open_store
from tests.support.waiting import eventually

KEYS = Keys()
SEEN = f"{KEYS.prefix}/activity-seen"


class Restorable:
    """An etcd with an epoch that processes have seen, of which a copy is kept and restored."""

    def __init__(self) -> None:
        self.etcd = FakeEtcd()
        self.store: Store = open_store(self.etcd.client("operator"), now=lambda: datetime.now(UTC))
        self._kept: Mapping[str, Entry] = {}
        self._renewals = 0
        self.renew("t")

    def renew(self, name: str) -> None:
        """Write the next token. After a restore it follows what was kept, not what was seen since."""
        entry = self.etcd.entries.get(KEYS.epoch())
        tokens = json.loads(entry.value) if entry is not None else None
        self._renewals += 1
        epoch = Epoch(
            token=f"{name}{self._renewals}",
            earlier=() if tokens is None else (*tokens["earlier"], tokens["token"]),
            at=datetime.now(UTC),
        )
        self.store.context.cluster.txn((), (Put(key=KEYS.epoch(), value=encode(epoch)),))

    def keep(self) -> None:
        """A backup; then the epoch goes on."""
        self._kept = dict(self.etcd.entries)
        self.renew("t")

    def restore(self) -> None:
        """The backup is back, nobody is told, and the service renews the epoch as always."""
        self.renew("t")
        self.etcd.restore(self._kept)
        self.renew("restored")


@pytest.fixture
def restorable(no_thread_left: None) -> Iterator[Restorable]:
    made = Restorable()
    yield made
    made.store.context.cluster.close()


def test_a_token_that_was_revoked_since_is_what_the_restored_etcd_says(restorable: Restorable) -> None:
    users = restorable.store.users
    ann = users.begin("ann")
    restorable.keep()
    bob = users.create("bob", "viewer")
    cluster = restorable.etcd.client("service")
    known = KnownUsers(cluster, KEYS)
    known.load()
    assert known.of_token(bob.token) is not None

    restorable.restore()

    eventually(lambda: known.of_token(bob.token) is None)
    assert known.of_token(ann.token) is not None
    cluster.close()


def test_a_restore_right_after_the_users_were_read_is_noticed(restorable: Restorable) -> None:
    """The epoch is read before them: the first one that is seen must not be that of the restored etcd."""
    users = restorable.store.users
    users.begin("ann")
    restorable.keep()
    bob = users.create("bob", "viewer")
    cluster = RestoredBetween(restorable)
    known = KnownUsers(cluster, KEYS)
    known.load()

    eventually(lambda: known.of_token(bob.token) is None)
    cluster.close()


class RestoredBetween(FakeCluster):
    """etcd is restored when the first watch begins: everything was read, nothing of the epoch was heard."""

    def __init__(self, restorable: Restorable) -> None:
        super().__init__(restorable.etcd, "service", timeout_s=3.0)
        self._restore: Callable[[], None] | None = restorable.restore

    def watch(
        self, prefix: str, from_revision: int, deliver: Callable[[WatchEvent], None], *, exact: bool = False
    ) -> FakeWatch:
        restore, self._restore = self._restore, None
        if restore is not None:
            restore()
        return super().watch(prefix, from_revision, deliver, exact=exact)


def test_every_group_is_looked_at_again(restorable: Restorable, monkeypatch: pytest.MonkeyPatch) -> None:
    make_app(restorable.store, version="1.0.0")
    restorable.keep()
    looked: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def look(context: object, group_lock: object, app: str, group: str, *others: object) -> Look:
        looked.put((app, group))
        return Look()

    monkeypatch.setattr(controllers, "look", look)
    with controllers.rollout_controller(restorable.store.context):
        assert (APP, "beta") == looked.get(timeout=10)
        eventually(lambda: len(restorable.etcd.watches) > 1)
        while not looked.empty():
            looked.get()

        restorable.restore()

        assert (APP, "beta") == looked.get(timeout=10)


def test_what_the_restored_documents_say_otherwise_is_recorded(restorable: Restorable) -> None:
    make_app(restorable.store, version="1.0.0")
    restorable.keep()
    recorder = ActivityRecorder(restorable.etcd.client("service"), KEYS, lambda: datetime.now(UTC))
    recorder.start()
    eventually(lambda: SEEN in restorable.etcd.entries)
    restorable.store.groups.update(APP, "beta", paused=True)
    eventually(lambda: "group-paused" in kinds(restorable))

    restorable.restore()

    eventually(lambda: "group-resumed" in kinds(restorable))
    recorder.close()


def kinds(restorable: Restorable) -> list[str]:
    return [record.kind for _, record in read_activity(restorable.store.context)]


def test_a_mark_from_before_the_restore_hides_no_later_change(restorable: Restorable) -> None:
    """A process that had not noticed the restore has written how far it was, and ended."""
    make_app(restorable.store, version="1.0.0")
    ahead = restorable.etcd.revision + 1_000
    restorable.store.context.cluster.txn((), (Put(key=SEEN, value=str(ahead).encode()),))
    block = Block(version="1.0.0", sha256="0" * 64, instance="web-1", why="it crashed", at=datetime.now(UTC))
    restorable.store.context.cluster.txn((), (Put(key=KEYS.block(APP, "1.0.0"), value=encode(block)),))

    recorder = ActivityRecorder(restorable.etcd.client("service"), KEYS, lambda: datetime.now(UTC))
    recorder.start()

    eventually(lambda: "release-blocked" in kinds(restorable))
    eventually(lambda: int(restorable.etcd.entries[SEEN].value) < ahead)
    recorder.close()


@contextmanager
def receiver(took: Callable[[str], None]) -> Iterator[str]:
    """A webhook's receiver; ``took`` gets the type of each event."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            took(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["type"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_webhooks_hear_of_it_though_the_lease_of_the_sender_is_gone(restorable: Restorable) -> None:
    """The sender's key and lease are not in the restored etcd: it takes them anew, and delivers at once."""
    told: list[str] = []
    with receiver(told.append) as url:
        Webhooks(context=restorable.store.context, auditing=restorable.store.auditing, destinations=LOOPBACK).create(
            "ops", url
        )
        make_app(restorable.store, version="1.0.0")
        restorable.keep()
        with background_tasks(restorable.etcd.client("service"), KEYS.prefix, retry_min_s=0.1, destinations=LOOPBACK):
            eventually(lambda: SEEN in restorable.etcd.entries)
            restorable.store.groups.update(APP, "beta", paused=True)
            eventually(lambda: "outrider.group-paused" in told)

            restorable.restore()

            eventually(lambda: "outrider.group-resumed" in told)


def test_a_watcher_asks_again(restorable: Restorable) -> None:
    woken: queue.SimpleQueue[float] = queue.SimpleQueue()
    announced = Announced(
        restorable.etcd.client("watcher"), KEYS, app="app", group="beta", instance="web-1", wake=lambda: woken.put(1)
    )
    woken.get(timeout=10)
    restorable.keep()
    eventually(lambda: len(restorable.etcd.watches) >= 4)
    assert woken.empty()

    restorable.restore()

    woken.get(timeout=10)
    announced.close()
