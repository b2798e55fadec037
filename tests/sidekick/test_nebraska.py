"""A whole sidekick against Nebraska: the history that it leaves there, and what it says of itself in etcd."""

import threading
from collections.abc import Callable, Collection, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from outrider.cli.main import main
from outrider.config.drivers import DriverTable, Problem
from outrider.config.load import load_settings
from outrider.config.sections import Settings
from outrider.core.errors import Refused
from outrider.core.images import PayloadKind
from outrider.model.documents import Presence, decode
from outrider.model.keys import Keys
from outrider.runtimes import Exited, RunnableRelease, Runtime, Workload, WorkloadSpec
from outrider.runtimes.drivers import RuntimeContext, RuntimeDriver
from outrider.sd_notify import Notifier
from outrider.sidekick import assemble
from outrider.sidekick.assemble import Assembly
from tests.sim.fake_etcd import FakeEtcd
from tests.support.nebraska import APP, Nebraska
from tests.support.waiting import eventually

KEYS = Keys()
INSTANCE = "web-1"
SETTINGS = None


class Starting:
    """A runtime that starts whatever it is told to, at ``url``; a version named bad ends before it serves."""

    name = "process"
    kinds: frozenset[PayloadKind] = frozenset({"archive"})
    bad: frozenset[str] = frozenset()

    def __init__(self, url: str) -> None:
        self._url = url
        self._started: dict[str, Workload] = {}

    def start(self, spec: WorkloadSpec) -> Workload:
        if spec.release.version in self.bad:
            raise Refused(f"{spec.release.version} ends at once")
        found = Workload(workload_id=spec.workload_id, version=spec.release.version, url=self._url, handle="made up")
        self._started[spec.workload_id] = found
        return found

    def running(self) -> tuple[Workload, ...]:
        return tuple(self._started.values())

    def find(self, workload_id: str) -> Workload | None:
        return self._started.get(workload_id)

    def watch(self, workload_id: str, deliver: Callable[[Exited], None]) -> "Starting":
        return self

    def stop(self, workload_id: str, grace_s: float) -> None:
        self._started.pop(workload_id, None)

    def prepare(self, release: RunnableRelease) -> None: ...
    def prune(self, needed: Collection[str]) -> None: ...
    def remove(self, workload_id: str) -> None: ...
    def close(self) -> None: ...


def problems(settings: Settings) -> tuple[Problem, ...]:
    return ()


def make(settings: Settings, context: RuntimeContext) -> Runtime:
    return Starting(settings.workload.env["URL"])


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def healthy() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def nebraska() -> Iterator[Nebraska]:
    with Nebraska() as running:
        running.offer("1.0.0", b"one")
        yield running


class Sidekick:
    """One sidekick, which can be started again, also with an empty folder."""

    def __init__(self, folder: Path, nebraska: Nebraska, url: str) -> None:
        self.folder, self.etcd = folder, FakeEtcd()
        self.client = self.etcd.client("test")
        self._assembly: Assembly | None = None
        self._thread: threading.Thread | None = None
        self._text = (
            f'[instance]\nid = "{INSTANCE}"\napp = "{APP}"\ngroup = "web"\nbalancer = "none"\n'
            f'[process]\ncommand = ["./run"]\n[workload]\nenv = {{ URL = "{url}" }}\n'
            "[probe]\ninterval_s = 0.02\nsuccesses = 1\nfailures = 1\ntimeout_s = 0.5\n[soak]\nduration_s = 0.05\n"
            "[drain]\nwait_s = 0\nconfirm_timeout_s = 0\nmax_s = 1\n"
            f'[service]\nkind = "omaha"\nallow_unverified = true\nurls = ["{nebraska.url}"]\n'
            "foreign_poll_interval_s = 1\nretry_min_s = 0.1\nretry_max_s = 0.2\n"
        )

    def start(self, state: str = "state") -> None:
        path = self.folder / "sidekick.toml"
        path.write_text(self._text.replace("[instance]\n", f'[instance]\nstate_dir = "{self.folder / state}"\n'))
        settings = load_settings((path,), environment={}).settings
        self._assembly = Assembly(settings, cluster=self.etcd.client(), notifier=Notifier(), shares_process=True)
        self._thread = threading.Thread(target=self._assembly.run)
        self._thread.start()

    def stop(self) -> None:
        if self._assembly is not None and self._thread is not None:
            self._assembly.stop()
            self._thread.join(60)
            assert not self._thread.is_alive()
            self._assembly = None

    @property
    def presence(self) -> Presence | None:
        entry = self.client.get(KEYS.presence(APP, "web", INSTANCE))
        return None if entry is None else decode(Presence, entry.key, entry.value)

    def says(self, words: str) -> bool:
        presence = self.presence
        return presence is not None and words in presence.why

    def runs(self, version: str) -> bool:
        presence = self.presence
        return presence is not None and (presence.version, presence.state) == (version, "idle.waiting")


@pytest.fixture
def sidekick(
    tmp_path: Path, nebraska: Nebraska, healthy: str, monkeypatch: pytest.MonkeyPatch, no_thread_left: None
) -> Iterator[Sidekick]:
    table: DriverTable[RuntimeDriver] = DriverTable(chosen_by="instance.runtime", modules={"process": __name__})
    monkeypatch.setattr(assemble, "RUNTIMES", table)
    made = Sidekick(tmp_path, nebraska, healthy)
    yield made
    made.stop()
    made.client.close()


def test_a_good_update_is_complete_once_it_serves(sidekick: Sidekick, nebraska: Nebraska) -> None:
    sidekick.start()
    eventually(lambda: sidekick.runs("1.0.0"))
    eventually(lambda: ("complete", "1.0.0") in nebraska.history(INSTANCE))
    eventually(lambda: nebraska.requests[-1].version == "1.0.0" and not nebraska.requests[-1].events)
    before = len(nebraska.requests)
    nebraska.offer("2.0.0", b"two")
    eventually(lambda: sidekick.runs("2.0.0"))

    steps = ("update-granted", "downloading", "downloaded", "installed", "complete")
    eventually(lambda: len(nebraska.history(INSTANCE)) == 10)
    assert [(status, version) for version in ("1.0.0", "2.0.0") for status in steps] == nebraska.history(INSTANCE)
    assert [()] * len(nebraska.checks) == [check.events for check in nebraska.checks], "a check reports nothing"
    wanted = ["13:1", "14:1", "800:1", "3:1", "3:2"]
    eventually(lambda: wanted == [event.code for one in nebraska.requests[before:] for event in one.events])


def test_a_bad_update_is_an_error_and_its_block_is_told_as_what_it_is(
    sidekick: Sidekick, nebraska: Nebraska, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Starting, "bad", frozenset({"2.0.0"}))
    sidekick.start()
    eventually(lambda: sidekick.runs("1.0.0"))
    nebraska.offer("2.0.0", b"two")
    eventually(lambda: ("error", "2.0.0") in nebraska.history(INSTANCE))
    eventually(lambda: sidekick.says("2.0.0 is blocked: "))

    checks = len(nebraska.checks)
    eventually(lambda: len(nebraska.checks) >= checks + 2)
    after = nebraska.history(INSTANCE)[nebraska.history(INSTANCE).index(("error", "2.0.0")) + 1 :]
    assert ("complete", "2.0.0") not in nebraska.history(INSTANCE), "it never ran"
    assert {("update-granted", "2.0.0")} >= set(after), "what is refused is granted, and reported as nothing"
    assert sidekick.presence is not None
    assert "1.0.0" == sidekick.presence.version


def test_a_held_update_says_why_the_server_holds_it_back(sidekick: Sidekick, nebraska: Nebraska) -> None:
    sidekick.start()
    eventually(lambda: sidekick.runs("1.0.0"))
    nebraska.hold = "error-maxUpdatesPerPeriodLimitReached"
    nebraska.offer("2.0.0", b"two")

    eventually(lambda: sidekick.says("limit of updates per period is reached (error-maxUpdatesPerPeriodLimitReached)"))
    assert ("on-hold", "") == nebraska.history(INSTANCE)[-1]
    nebraska.hold = ""
    eventually(lambda: sidekick.runs("2.0.0") and sidekick.says(""))
    eventually(lambda: ("complete", "2.0.0") == nebraska.history(INSTANCE)[-1])


def test_an_offer_without_sha256_is_refused_with_the_reason_and_reported_as_nothing(
    sidekick: Sidekick, nebraska: Nebraska
) -> None:
    sidekick.start()
    eventually(lambda: sidekick.runs("1.0.0"))
    eventually(lambda: ("complete", "1.0.0") == nebraska.history(INSTANCE)[-1])
    nebraska.offer("2.0.0", b"two", with_sha256=False)

    eventually(lambda: sidekick.says("offers 2.0.0 without a SHA-256, so it can't be verified"))
    checks = len(nebraska.checks)
    eventually(lambda: len(nebraska.checks) >= checks + 2)
    assert ("update-granted", "2.0.0") == nebraska.history(INSTANCE)[-1]
    nebraska.offer("2.0.0", b"two")
    eventually(lambda: sidekick.runs("2.0.0"))


def test_one_that_lost_its_folder_in_mid_update_ends_that_update_and_gets_the_next(
    sidekick: Sidekick, nebraska: Nebraska
) -> None:
    sidekick.start()
    eventually(lambda: sidekick.runs("1.0.0"))
    eventually(lambda: ("complete", "1.0.0") == nebraska.history(INSTANCE)[-1])
    sidekick.stop()
    nebraska.offer("2.0.0", b"two")
    row = nebraska.rows[INSTANCE]
    row.granted = "2.0.0"
    row.become("update-granted", "2.0.0")
    row.become("downloading", "2.0.0")  # and then its disk was replaced

    sidekick.start("another")
    eventually(lambda: sidekick.runs("2.0.0"))

    eventually(lambda: ("complete", "2.0.0") == nebraska.history(INSTANCE)[-1])
    steps = [status for status, version in nebraska.history(INSTANCE) if version == "2.0.0"]
    assert ["update-granted", "downloading", "error", "update-granted", "downloading"] == steps[:5]
    failed = [event for one in nebraska.requests for event in one.events if event.code == "3:0"]
    assert [1] == [event.error_code for event in failed]


def test_a_group_that_nebraska_serves_is_seen_and_unblocked_from_etcd_alone(
    sidekick: Sidekick, nebraska: Nebraska, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No update service of outrider's knows the app: only sidekicks do."""
    monkeypatch.setattr(Starting, "bad", frozenset({"2.0.0"}))
    for module in ("release", "status"):
        monkeypatch.setattr(f"outrider.cli.commands.{module}.open_cluster", lambda etcd: sidekick.etcd.client("cli"))
    sidekick.start()
    eventually(lambda: sidekick.runs("1.0.0"))
    nebraska.offer("2.0.0", b"two")
    eventually(lambda: sidekick.says("2.0.0 is blocked: "))

    def typed(*words: str) -> str:
        done = CliRunner().invoke(main, [*words, "--etcd=127.0.0.1:1"])
        assert 0 == done.exit_code, done.output
        return done.output

    assert f"2.0.0    {INSTANCE}" in typed("release", "list", f"--app-id={APP}")
    assert "1.0.0" in typed("status", APP)
    assert "2.0.0 is blocked: " in typed("why", APP, INSTANCE)
    monkeypatch.setattr(Starting, "bad", frozenset())
    assert "2.0.0 of" in typed("release", "unblock", f"--app-id={APP}", "--version=2.0.0", "--yes")

    eventually(lambda: sidekick.runs("2.0.0"))
    assert "[]" == typed("release", "list", f"--app-id={APP}", "--json").strip()
