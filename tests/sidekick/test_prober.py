"""Probes against a real HTTP server: what passes, what fails with which words, and that they end when told to."""

import http.server
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from outrider.config.sections import ProbeSettings
from outrider.core.blame import judge
from outrider.sidekick.prober import Failed, Kind, Passed, Probe, Prober, Verdict
from outrider.sidekick.probes import ask
from tests.support.waiting import eventually

SETTINGS = ProbeSettings(interval_s=0.02, timeout_s=1, successes=3, failures=3, deadline_s=5)


class App:
    """An app whose next answers a test lays down; the last of them stays.

    Attributes:
        seen: (path, header fields, client's port) of the requests, in order.
    """

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[str, dict[str, str], int]] = []
        app = self

        class Answer(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                app.seen.append((self.path, dict(self.headers), self.client_address[1]))
                self.send_response(app.answers.pop(0) if len(app.answers) > 1 else app.answers[0])
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def app() -> Iterator[App]:
    made = App(200)
    yield made
    made.close()


class Raw:
    """A server that only does what a test writes down: it hands each connection to ``answer``."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def drip(connection: socket.socket) -> None:
    """A header that never ends: every byte resets the time limits of a socket."""
    with connection:
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not ended.wait(0.05):
                connection.sendall(b"z")
        except OSError:
            return


def slam(connection: socket.socket) -> None:
    connection.recv(100)
    connection.close()


def babble(connection: socket.socket) -> None:
    with connection:
        connection.recv(4096)
        connection.sendall(b"hello\r\n\r\n")


ended = threading.Event()


@pytest.fixture
def raw(request: pytest.FixtureRequest) -> Iterator[Raw]:
    ended.clear()
    made = Raw(request.param)
    yield made
    ended.set()
    made.close()


def closed_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def verdict_of(url: str, kind: Kind = "prove", settings: ProbeSettings = SETTINGS) -> Verdict:
    verdicts: queue.Queue[Verdict] = queue.Queue()
    probe = Prober(settings).start(url, kind=kind, deliver=verdicts.put)
    try:
        return verdicts.get(timeout=60)
    finally:
        probe.stop()


def test_so_many_healthy_answers_in_a_row_prove_it(app: App) -> None:
    app.answers = [200, 204, 503, 200, 200, 200]

    assert isinstance(verdict_of(app.url), Passed)
    assert 6 == len(app.seen)


def test_the_first_answer_is_asked_for_at_once_and_one_may_do(app: App) -> None:
    verdict = verdict_of(app.url, settings=replace(SETTINGS, successes=1, interval_s=40))

    assert isinstance(verdict, Passed)
    assert verdict.took_s < 30


def test_what_is_not_healthy_by_the_deadline_failed_with_its_answers(app: App) -> None:
    app.answers = [503]

    verdict = verdict_of(app.url, settings=replace(SETTINGS, deadline_s=0.3))

    assert isinstance(verdict, Failed)
    told = re.fullmatch(r"/health: 503 \((\d+) of \d+ answers\)(, last: .+)?", verdict.reason)
    assert told is not None, verdict.reason
    # the deadline may come between a question and its answer
    assert len(app.seen) - 1 <= int(told[1]) <= len(app.seen) <= 16


def test_the_reason_names_the_commonest_bad_answer_and_the_last(app: App) -> None:
    app.answers = [500, 503, 503, 200, 404]

    verdict = verdict_of(app.url, "watch", replace(SETTINGS, failures=1))
    assert Failed(reason="/health: 500 (1 of 1 answers)") == verdict
    app.answers = [200, 503, 503, 404]
    assert Failed(reason="/health: 503 (2 of 4 answers), last: 404") == verdict_of(app.url, "watch")


def test_too_few_good_answers_by_the_deadline_are_no_pass(app: App) -> None:
    verdict = verdict_of(app.url, settings=replace(SETTINGS, interval_s=10, deadline_s=0.2))

    assert Failed(reason="/health: 1 of 3 healthy answers in 0.2 s") == verdict


def test_a_port_where_nobody_listens_is_refused_until_the_deadline() -> None:
    verdict = verdict_of(closed_url(), settings=replace(SETTINGS, deadline_s=0.2))

    assert isinstance(verdict, Failed)
    assert verdict.reason.startswith("/health: connection refused (")
    assert "unhealthy" == verdict.evidence


@pytest.mark.parametrize("kind", ["prove", "watch"])
def test_an_address_that_this_machine_cannot_send_to_tells_nothing_of_the_release(kind: Kind) -> None:
    """The kernel has no way to that address: nothing is sent, as from a machine that was unplugged."""
    verdict = verdict_of("http://255.255.255.255:80", kind, replace(SETTINGS, deadline_s=0.2))

    assert isinstance(verdict, Failed)
    assert verdict.reason.startswith("/health: network is unreachable (")
    assert "unreachable" == verdict.evidence


@pytest.mark.parametrize(
    ("answers", "blame"),
    [
        (["", "no route to host", "503", "503"], "world"),
        (["503", "503", "network is unreachable"], "world"),
        (["network is unreachable", "", "503", "503", "503"], "release"),
    ],
)
def test_a_release_is_blamed_for_its_own_answers_alone(
    monkeypatch: pytest.MonkeyPatch, answers: list[str], blame: str
) -> None:
    left = list(answers)
    monkeypatch.setattr("outrider.sidekick.prober.ask", lambda url, settings, health: left.pop(0))

    verdict = verdict_of("http://app", "watch")

    assert isinstance(verdict, Failed)
    assert (blame, []) == (judge(verdict.evidence), left)


def test_a_watch_is_silent_while_bad_answers_do_not_come_in_a_row(app: App) -> None:
    app.answers = [503, 503, 200] * 5 + [200]
    verdicts: queue.Queue[Verdict] = queue.Queue()
    probe = Prober(SETTINGS).start(app.url, kind="watch", deliver=verdicts.put)
    eventually(lambda: len(app.seen) > 16)

    assert verdicts.empty()

    app.answers = [503]
    assert isinstance(verdicts.get(timeout=60), Failed)
    probe.stop()


def test_a_watch_has_no_deadline(app: App) -> None:
    verdicts: queue.Queue[Verdict] = queue.Queue()
    probe = Prober(replace(SETTINGS, deadline_s=0.1)).start(app.url, kind="watch", deliver=verdicts.put)

    eventually(lambda: len(app.seen) > 10)

    assert verdicts.empty()
    probe.stop()


@pytest.mark.parametrize("raw", [drip], indirect=True)
def test_a_server_that_dribbles_holds_up_neither_verdict(raw: Raw) -> None:
    began = time.monotonic()

    watched = verdict_of(raw.url, "watch", replace(SETTINGS, timeout_s=0.2, failures=2))
    proved = verdict_of(raw.url, "prove", replace(SETTINGS, timeout_s=30, deadline_s=0.3))

    assert Failed(reason="/health: no answer in 0.2 s (2 of 2 answers)") == watched
    assert Failed(reason="/health: 0 of 3 healthy answers in 0.3 s") == proved
    assert time.monotonic() - began < 25


@pytest.mark.parametrize("raw", [drip], indirect=True)
def test_stop_does_not_wait_for_an_answer(raw: Raw) -> None:
    verdicts: queue.Queue[Verdict] = queue.Queue()
    probe = Prober(replace(SETTINGS, timeout_s=60, deadline_s=60)).start(raw.url, kind="prove", deliver=verdicts.put)
    eventually(lambda: probe_threads() == 1)
    began = time.monotonic()

    probe.stop()
    probe.stop()

    eventually(lambda: probe_threads() == 0, within_s=30)
    assert time.monotonic() - began < 30
    assert verdicts.empty()


def probe_threads() -> int:
    return sum(thread.name == "probe-prove" for thread in threading.enumerate())


def test_stop_ends_a_long_pause_at_once(app: App) -> None:
    probe = Prober(replace(SETTINGS, interval_s=60, deadline_s=600)).start(app.url, kind="prove", deliver=print)
    eventually(lambda: app.seen)

    probe.stop()

    eventually(lambda: probe_threads() == 0, within_s=30)


def test_a_verdict_that_comes_with_the_stop_is_not_delivered(app: App) -> None:
    """The last answer and ``stop`` at the same moment: the probe's thread has its verdict in hand."""
    verdicts: queue.Queue[Verdict] = queue.Queue()
    probe = Prober(replace(SETTINGS, interval_s=60, deadline_s=600)).start(app.url, kind="prove", deliver=verdicts.put)
    probe.stop()

    probe._end(Passed(took_s=1.0))

    assert verdicts.empty()


def test_a_probe_may_be_stopped_from_its_own_verdict(app: App) -> None:
    verdicts: queue.Queue[Verdict] = queue.Queue()
    made: queue.Queue[Probe] = queue.Queue()

    def deliver(verdict: Verdict) -> None:
        made.get(timeout=60).stop()
        verdicts.put(verdict)

    made.put(Prober(SETTINGS).start(app.url, kind="prove", deliver=deliver))

    assert isinstance(verdicts.get(timeout=60), Passed)


@pytest.mark.parametrize("raw", [slam, babble], indirect=True)
def test_what_is_no_http_is_a_bad_answer(raw: Raw) -> None:
    assert ask(raw.url, SETTINGS) in ("connection closed", "connection reset", "no HTTP answer")


def test_a_redirect_is_not_healthy_and_not_followed(app: App) -> None:
    app.answers = [302]

    assert "302" == ask(app.url, SETTINGS)
    assert ["/health"] == [path for path, _, _ in app.seen]


def test_every_probe_is_a_new_connection_that_says_so(app: App) -> None:
    verdict_of(app.url)

    assert 3 == len({port for _, _, port in app.seen})
    assert {"close"} == {headers["Connection"] for _, headers, _ in app.seen}


def test_proxies_of_the_environment_are_not_used(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", closed_url())
    monkeypatch.delenv("no_proxy", raising=False)

    assert "" == ask(app.url, SETTINGS)


class Shown:
    """What a probe told while it ran."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize(("status", "kind"), [(500, "prove"), (404, "prove"), (503, "watch")])
def test_a_probe_that_fails_says_so_while_it_fails(app: App, status: int, kind: Kind) -> None:
    app.answers = [status]
    shown, verdicts = Shown(), queue.SimpleQueue[Verdict]()
    settings = replace(SETTINGS, deadline_s=30, failures=1000)
    probe = Prober(settings).start(app.url, kind=kind, deliver=verdicts.put, tell=shown)
    try:
        eventually(lambda: shown.texts)
    finally:
        probe.stop()

    assert shown.texts[0].startswith(f"1 of 1 answers were {status} (/health)")
    assert ("probe.path" in shown.texts[0]) == (status == 404)
    assert verdicts.empty()


def test_the_account_is_renewed_now_and_then_and_ends_with_a_good_answer(app: App) -> None:
    """Each account is a write to etcd: not one per answer."""
    app.answers = [500] * 30 + [200]
    shown, now = Shown(), [0.0]

    def clock() -> float:
        now[0] += 0.1
        return now[0]

    probe = Prober(replace(SETTINGS, deadline_s=1000, successes=1000, interval_s=0.001), clock=clock).start(
        app.url, kind="prove", deliver=lambda verdict: None, tell=shown
    )
    try:
        eventually(lambda: shown.texts and shown.texts[-1] == "")
    finally:
        probe.stop()

    accounts = shown.texts[:-1]
    assert 2 <= len(accounts) < 10
    numbers = [int(text.partition(" ")[0]) for text in accounts]
    assert sorted(set(numbers)) == numbers
    assert all(
        text.endswith(f"{number} answers were 500 (/health)") for number, text in zip(numbers, accounts, strict=True)
    )
