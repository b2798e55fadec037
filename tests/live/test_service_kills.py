"""``outrider serve`` is killed in the middle of whatever it does, again and again: what was acknowledged is there.

Operators and instances go on meanwhile, as they do: an operator looks again before repeating, an instance's outbox
sends a report until it is accepted.
"""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import requests

from outrider.core.omaha import AppRequest, OmahaEvent, OmahaRequest, render_request
from outrider.etcd.seam import Cluster
from outrider.service.rollouts.rows import MAX_HISTORY
from outrider.service.store.audit import AuditEntry, AuditLog, Wanted
from outrider.service.store.store import Store
from outrider.service.store.targets import target_of as target_that_follows
from tests.service.test_serve import Process, serving
from tests.support.servers import EtcdServer
from tests.support.service_examples import APP, open_store, target_of
from tests.support.waiting import eventually

KILLS = 6
SEED = 3


class Work:
    """Something that asks a service again and again; ``done`` holds what was acknowledged, in order."""

    repeats = False

    def __init__(self, step: Callable[[str, int], str]) -> None:
        self.done: list[str] = []
        self.unanswered = 0
        self.wanted = 0
        self.url = ""
        self._step = step
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            try:
                self.done.append(self._step(self.url, number))
            except (requests.RequestException, LookupError):
                self.unanswered += 1
                self._ended.wait(0.02)
                if self.repeats:
                    continue
            number += 1


class Outbox(Work):
    """Sends the same again until it is accepted."""

    repeats = True


def accepted(answer: requests.Response) -> requests.Response:
    if not answer.ok:
        raise LookupError(answer.text)
    return answer


def label_group(url: str, number: int) -> str:
    accepted(requests.patch(f"{url}/api/v1/apps/{APP}/groups/web", json={"label": f"label-{number}"}, timeout=60))
    return f"label-{number}"


def roll_new_package(url: str, number: int) -> str:
    """Upload, make a package of it, point the channel at it."""
    content, version = f"content of {number}".encode() * 20_000, f"1.{number}.0"
    sha256 = accepted(requests.post(f"{url}/api/v1/payloads", data=content, timeout=60)).json()["sha256"]
    new = {"version": version, "stored": sha256, "name": "web.tar"}
    accepted(requests.post(f"{url}/api/v1/apps/{APP}/packages", json=new, timeout=60))
    accepted(requests.put(f"{url}/api/v1/apps/{APP}/channels/stable", json={"version": version}, timeout=60))
    return f"{version} {sha256}"


def report(url: str, number: int) -> str:
    event = OmahaEvent(type=3, result=0, error_code=number % 40 + 1)
    app = AppRequest(app_id=APP, version="0.1.0", track="web", machine_id="web-1", events=(event,))
    body = render_request(OmahaRequest(apps=(app,), request_id=f"report-{number}"))
    accepted(requests.post(f"{url}/v1/update", data=body, timeout=60))
    return f"report-{number}"


@pytest.fixture
def store(cluster: Cluster, prefix: str) -> Store:
    store = open_store(cluster, prefix.rstrip("/"))
    store.apps.create(app=APP)
    store.groups.create(APP, "web", channel="stable")
    return store


@pytest.fixture
def start(etcd_server: EtcdServer, prefix: str, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Start the service; whatever was started is ended."""
    with ExitStack() as running:
        options = ("--etcd", f"127.0.0.1:{etcd_server.port}", "--prefix", prefix.rstrip("/"))
        # nobody waits between two requests here; an instance without a sidekick keeps a fifth of the history
        limits = ("--max-checkins-per-s=10000", "--max-requests-per-s=10000", f"--max-history={5 * MAX_HISTORY}")
        yield lambda: running.enter_context(serving(tmp_path, "--insecure-listen", *limits, *options))


def test_what_was_acknowledged_survives_every_kill_and_nothing_is_half_done(
    store: Store, start: Callable[[], Process], tmp_path: Path
) -> None:
    draw = random.Random(SEED)
    labels, packages, reports = Work(label_group), Work(roll_new_package), Outbox(report)
    works = (labels, packages, reports)
    process = start()
    for work in works:
        work.url = process.url
        work.start()
    try:
        for _ in range(KILLS):
            for work in works:
                work.wanted = len(work.done) + draw.randint(1, 4)
            eventually(lambda: all(len(work.done) >= work.wanted for work in works), within_s=60)
            process.process.kill()
            process = start()
            for work in works:
                work.url = process.url
    finally:
        for work in works:
            work.end()

    assert all(work.unanswered for work in (labels, packages)), "no kill came in the middle of anything"
    assert_all_there(store, labels, packages, reports)
    assert_payloads_whole(store, tmp_path / "payloads")
    assert_recorded(store)


def assert_all_there(store: Store, labels: Work, packages: Work, reports: Work) -> None:
    assert set(packages.done) <= {f"{package.version} {package.sha256}" for package in store.packages.list(APP)}
    # A change that wasn't acknowledged may have happened: then it was made after the last one that was.
    at_least = int(labels.done[-1].partition("-")[2])
    assert at_least <= int(store.groups.get(APP, "web").label.partition("-")[2])
    ids = [line.request_id for line in store.fleet.instance(APP, "web-1").history]
    assert len(ids) == len(set(ids)), "a repeated report was booked twice"
    newest = reports.done[-(MAX_HISTORY - 5) :]
    assert newest == [one for one in ids if one in set(newest)]


def assert_payloads_whole(store: Store, folder: Path) -> None:
    stored = {path.name: path for path in (folder / "sha256").rglob("*") if path.is_file()}
    for name, path in stored.items():
        assert name == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {package.sha256 for package in store.packages.list(APP)} <= set(stored)


def assert_recorded(store: Store) -> None:
    """The newest entry of every document is what the document is; and every target follows from its documents."""
    newest: dict[str, AuditEntry] = {}
    for recorded in AuditLog(context=store.context).list(Wanted(), limit=100_000):
        newest.setdefault(recorded.entry.key, recorded.entry)
    group, channel, packages = store.groups.get(APP, "web"), store.channels.get(APP, "stable"), store.packages.list(APP)
    assert group.label == after(newest, "groups/web")["label"]
    assert channel.version == after(newest, "channels/stable")["version"]
    for package in packages:
        assert package.sha256 == after(newest, f"packages/{package.version}")["sha256"]
    pointed_at = next((package for package in packages if package.version == channel.version), None)
    found = target_of(store, "web")
    assert msgspec.structs.replace(target_that_follows(group, channel, pointed_at), since=found.since) == found


def after(newest: dict[str, AuditEntry], below: str) -> dict[str, object]:
    facts = newest[f"apps/{APP}/{below}"].after
    assert facts is not None
    return facts
