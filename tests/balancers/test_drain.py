"""Draining by a clock that moves only while the drain waits: every verdict, and when it falls."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from outrider.balancers import drain as drain_module
from outrider.balancers.drain import Drain, Drained, DrainVerdict, Expired, Interrupted, Unmoved
from outrider.balancers.none import NoObserver
from outrider.config.sections import DrainSettings

OLD, NEW = frozenset({"http://127.0.0.1:1"}), frozenset({"http://127.0.0.1:2"})


class Time(threading.Event):
    """A clock, and a stop event whose waits take no time: they move the clock, and set the event at ``stop_at``."""

    def __init__(self, stop_at: float | None = None) -> None:
        super().__init__()
        self.now, self._stop_at = 0.0, stop_at

    def __call__(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None, "a wait without an end"
        assert timeout > 0, "a wait that would spin"
        self.now = round(self.now + timeout, 3)
        if self._stop_at is not None and self.now >= self._stop_at:
            self.set()
        return self.is_set()


class Told:
    """A balancer that answers by the clock. ``propagation_s`` is 2.5.

    Attributes:
        exact: As of an ``Observer``.
        doubts: What it says while it can't tell.
        counts: Requests that it has open, each time one after the other; without any it doesn't count.
    """

    name = "told"
    propagation_s = 2.5

    def __init__(self, answer: Callable[[], bool | None], *, exact: bool = False, counts: tuple[int, ...] = ()) -> None:
        self._answer, self.exact, self.counts, self.doubts = answer, exact, list(counts), ""

    def confirm(self, *, present: frozenset[str], absent: frozenset[str]) -> bool | None:
        answer = self._answer()
        self.doubts = "agent lb-2 isn't running" if answer is None and self.exact else ""
        return answer

    def doubt(self) -> str:
        return self.doubts

    def open_requests(self, urls: frozenset[str]) -> int | None:
        if self.exact:
            self.confirm(present=frozenset(), absent=urls)
        if not self.counts or self.doubts:
            return None
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]


def drained(
    answer: Callable[[float], bool | None],
    *,
    time: Time | None = None,
    settings: DrainSettings | None = None,
    inflight_url: str | None = None,
    absent: frozenset[str] = OLD,
    undoing: bool = False,
    exact: bool = False,
    counts: tuple[int, ...] = (),
) -> tuple[DrainVerdict, float]:
    """The verdict, and the second at which it fell, for a balancer that answers by the seconds that have passed."""
    time = time or Time()
    drain = Drain(Told(lambda: answer(time()), exact=exact, counts=counts), settings or DrainSettings(), clock=time)
    return drain.wait(NEW, absent, inflight_url=inflight_url, stop=time, undoing=undoing), time()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apps are real here and the time isn't: near the deadline a slow machine would have a tenth of a second."""
    asked = drain_module._inflight
    monkeypatch.setattr(drain_module, "_inflight", lambda url, timeout_s: asked(url, 60.0))


@contextmanager
def app(*answers: str) -> Iterator[str]:
    """An app that answers each question for its open requests with the next of ``answers``, the last one forever."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (left.pop(0) if len(left) > 1 else left[0]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    left = list(answers)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/inflight"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_once_confirmed_the_old_one_gets_its_wait_and_no_more() -> None:
    verdict, at = drained(lambda now: now >= 1.3)

    assert isinstance(verdict, Drained)
    assert "confirmed by told after 1.3 s" in verdict.how
    assert pytest.approx(1.3 + 5.0, abs=0.11) == at


def test_without_an_answer_the_propagation_time_must_pass() -> None:
    verdict, at = drained(lambda now: None)

    assert isinstance(verdict, Drained)
    assert "waited 2.5 s for it to reach all" in verdict.how
    assert pytest.approx(2.5 + 5.0, abs=0.11) == at


def test_a_balancer_that_surely_does_not_follow_is_unmoved_and_never_drained() -> None:
    verdict, at = drained(lambda now: False)

    assert isinstance(verdict, Unmoved)
    assert "still sends to http://127.0.0.1:1" in verdict.why
    assert pytest.approx(15.0, abs=0.11) == at


def test_a_short_limit_for_all_of_it_does_not_turn_unmoved_into_stop() -> None:
    verdict, at = drained(lambda now: False, settings=DrainSettings(max_s=3.0))

    assert isinstance(verdict, Unmoved)
    assert pytest.approx(3.0, abs=0.11) == at


def test_silence_after_a_no_must_last_for_the_propagation_time() -> None:
    """One of two balancers is away: the answers are "no", then "can't tell", and the swap must not hang on it."""
    verdict, at = drained(lambda now: False if now < 1.5 else None, settings=DrainSettings(wait_s=0))

    assert isinstance(verdict, Drained)
    assert pytest.approx(1.4 + 2.5, abs=0.11) == at


def test_a_no_between_silences_is_a_no() -> None:
    verdict, _ = drained(lambda now: False if round(now) % 2 else None)

    assert isinstance(verdict, Unmoved)


def test_a_yes_to_an_undoing_counts_once_what_is_undone_had_its_time_to_arrive() -> None:
    """It has neither followed the change nor its undoing yet, and will do the one just before the other."""
    verdict, at = drained(lambda now: not 1.0 <= now < 1.6, undoing=True, settings=DrainSettings(wait_s=0))

    assert isinstance(verdict, Drained)
    assert "confirmed by told after 2.5 s" in verdict.how
    assert pytest.approx(2.5, abs=0.11) == at


def test_a_balancer_that_did_not_follow_in_time_is_not_believed_sooner_when_that_is_undone() -> None:
    """
    1. it does not follow for 30 s: unmoved, and the change is undone
    2. it says "as you wish" at once, for it sends as before the change: 4 s later it makes the change after all
    3. it follows the undoing, too; until then what it might send to stays
    4. the next swap and its undoing have nothing to do with that
    """
    time = Time()
    settings = DrainSettings(wait_s=0, confirm_timeout_s=30.0, max_s=120.0)
    states = [(0.0, False), (30.05, True), (34.0, False), (36.0, True), (200.0, True)]

    def says() -> bool:
        return [follows for since, follows in states if since <= time()][-1]

    drain = Drain(Told(says), settings, clock=time)
    first = drain.wait(NEW, OLD, inflight_url=None, stop=time)
    unmoved_at = time()
    undone = drain.wait(NEW, OLD, inflight_url=None, stop=time, undoing=True)

    assert isinstance(first, Unmoved)
    assert isinstance(undone, Drained)
    assert pytest.approx(2 * unmoved_at, abs=0.3) == time()
    before = time()
    assert isinstance(drain.wait(NEW, OLD, inflight_url=None, stop=time, undoing=True), Drained)
    assert pytest.approx(2.5, abs=0.2) == time() - before


def test_an_undoing_that_is_interrupted_is_doubted_as_long_when_it_goes_on() -> None:
    time = Time()
    settings = DrainSettings(wait_s=0, confirm_timeout_s=30.0, max_s=120.0)
    drain = Drain(Told(lambda: time() >= 30.05), settings, clock=time)
    assert isinstance(drain.wait(NEW, OLD, inflight_url=None, stop=time), Unmoved)
    interrupted = threading.Event()
    interrupted.set()
    assert isinstance(drain.wait(NEW, OLD, inflight_url=None, stop=interrupted, undoing=True), Interrupted)

    before = time()
    assert isinstance(drain.wait(NEW, OLD, inflight_url=None, stop=time, undoing=True), Drained)
    assert pytest.approx(30.0, abs=0.3) == time() - before


def test_a_yes_of_an_exact_observer_counts_at_once_also_for_an_undoing() -> None:
    verdict, at = drained(lambda now: True, undoing=True, exact=True, settings=DrainSettings(wait_s=0))

    assert isinstance(verdict, Drained)
    assert 0.0 == at


def test_no_time_replaces_the_word_of_an_exact_observer_and_the_deadline_names_who_is_missing() -> None:
    verdict, at = drained(lambda now: None, exact=True)

    assert isinstance(verdict, Expired)
    assert "30 s passed before the change could have reached all; agent lb-2 isn't running" == verdict.why
    assert pytest.approx(30.0, abs=0.11) == at


def test_an_exact_observer_that_said_no_and_then_is_not_heard_is_waited_for_and_not_unmoved() -> None:
    verdict, at = drained(lambda now: False if now < 1 else None, exact=True)

    assert isinstance(verdict, Expired)
    assert pytest.approx(30.0, abs=0.11) == at


def test_an_exact_observer_that_says_no_is_unmoved() -> None:
    verdict, at = drained(lambda now: False, exact=True)

    assert isinstance(verdict, Unmoved)
    assert pytest.approx(15.0, abs=0.11) == at


def test_requests_that_the_balancer_counts_end_the_wait_at_the_second_zero_in_a_row() -> None:
    verdict, at = drained(lambda now: True, exact=True, counts=(2, 0, 1, 0, 0))

    assert isinstance(verdict, Drained)
    assert "no request open" in verdict.how
    assert pytest.approx(0.4, abs=0.01) == at


def test_requests_that_the_balancer_counts_and_that_never_end_expire() -> None:
    verdict, _ = drained(lambda now: True, exact=True, counts=(2,))

    assert isinstance(verdict, Expired)
    assert "30 s passed with 2 requests open" == verdict.why


def test_an_agent_that_dies_while_its_requests_are_open_is_waited_for() -> None:
    verdict, at = drained(lambda now: True if now < 1 else None, exact=True, counts=(2,))

    assert isinstance(verdict, Expired)
    assert "requests perhaps open; agent lb-2 isn't running" in verdict.why
    assert pytest.approx(30.0, abs=0.11) == at


def test_app_and_balancer_must_both_have_no_request_open() -> None:
    with app("0", "0", "3", "0") as url:
        verdict, at = drained(lambda now: True, counts=(1, 0, 0, 0), inflight_url=url)

    assert isinstance(verdict, Drained)
    assert pytest.approx(0.4, abs=0.01) == at


def test_an_undoing_that_is_not_followed_is_unmoved_all_the_same() -> None:
    verdict, at = drained(lambda now: now < 2.0, undoing=True)

    assert isinstance(verdict, Unmoved)
    assert pytest.approx(15.0, abs=0.11) == at


def test_when_nothing_is_known_and_all_the_time_is_gone_the_verdict_says_so() -> None:
    verdict, at = drained(lambda now: None, settings=DrainSettings(max_s=1.0))

    assert isinstance(verdict, Expired)
    assert pytest.approx(1.0, abs=0.11) == at


def test_a_wait_longer_than_all_the_time_expires() -> None:
    verdict, at = drained(lambda now: True, settings=DrainSettings(wait_s=60.0, max_s=30.0))

    assert isinstance(verdict, Expired)
    assert pytest.approx(30.0, abs=0.11) == at


def test_a_first_instance_has_nobody_to_wait_for() -> None:
    verdict, at = drained(lambda now: True, absent=frozenset())

    assert isinstance(verdict, Drained)
    assert 0.0 == at


def test_stopping_ends_either_wait_at_once() -> None:
    for answer in (lambda now: None, lambda now: True):
        verdict, at = drained(answer, time=Time(stop_at=1.0))

        assert Interrupted() == verdict
        assert 1.0 == at


def test_open_requests_end_the_wait_at_the_second_zero_in_a_row() -> None:
    with app("3", "0", "1", "0", "0") as url:
        verdict, at = drained(lambda now: True, inflight_url=url)

    assert isinstance(verdict, Drained)
    assert "no request open" in verdict.how
    assert pytest.approx(0.4) == at


def test_requests_that_never_end_expire_and_are_counted() -> None:
    with app("2") as url:
        verdict, at = drained(lambda now: True, inflight_url=url, settings=DrainSettings(max_s=8.0))

    assert isinstance(verdict, Expired)
    assert "2 requests open" in verdict.why
    assert pytest.approx(8.0, abs=0.11) == at


@pytest.mark.parametrize("answer", ["<html>", "", "-1", "1.5", "9" * 40])
def test_an_app_that_answers_no_number_gets_the_fixed_wait(answer: str) -> None:
    with app(answer) as url:
        verdict, at = drained(lambda now: True, inflight_url=url)

    assert isinstance(verdict, Drained)
    assert "doesn't answer a number" in verdict.how
    assert pytest.approx(5.0, abs=0.11) == at


def test_an_app_that_is_gone_gets_the_fixed_wait() -> None:
    verdict, at = drained(lambda now: True, inflight_url="http://127.0.0.1:1/inflight")

    assert isinstance(verdict, Drained)
    assert pytest.approx(5.0, abs=0.11) == at


def test_without_a_balancer_only_open_requests_count() -> None:
    time = Time()

    verdict = Drain(NoObserver(), DrainSettings(wait_s=1.0), clock=time).wait(NEW, OLD, inflight_url=None, stop=time)

    assert isinstance(verdict, Drained)
    assert pytest.approx(1.0, abs=0.11) == time()
