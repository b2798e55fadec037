"""A sidekick that dies of an unexpected exception says so in status, why and activity, not only in its log."""

import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from outrider.cli import main
from outrider.cli.commands import sidekick as command
from outrider.cli.commands import status
from outrider.config.load import load_settings
from outrider.core.errors import OutriderError, Unknown
from outrider.core.rollout.ends import BEGIN_ENDS
from outrider.demo.programs import free_ports
from outrider.etcd.seam import Put
from outrider.model.documents import Crash, decode
from outrider.model.keys import Keys
from outrider.runtimes import Workload
from outrider.runtimes.process.runtime import ProcessRuntime
from outrider.service.history.activity_log import read_activity
from outrider.service.rollouts.explain import explain, read_overviews
from outrider.service.rollouts.explain_groups import explain_groups
from outrider.service.rollouts.status import read_status
from outrider.service.store.context import StoreContext
from outrider.service.web.rows import rows_of
from outrider.sidekick.assemble import Assembly
from outrider.sidekick.crashes import MAX_TEXT, in_words, tell_begun, tell_crash
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON

KEY = Keys().crash("shop", "a")


def sidekick_over(etcd: FakeEtcd, folder: Path) -> Assembly:
    (port,) = free_ports(1)
    path = folder / "site.toml"
    path.write_text(
        f"""
        instance = {{id = "a", app = "shop", group = "web", state_dir = "{folder}/state", balancer = "none"}}
        process = {{command = ["./server"]}}
        service = {{urls = ["http://127.0.0.1:{port}"]}}
        """
    )
    return Assembly(load_settings((path,), {}).settings, cluster=etcd.client())


def dies(sidekick: Assembly, break_it: Callable[[], None]) -> BaseException:
    """Run the sidekick until what ``break_it`` did ends it; returns what it died of."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            sidekick.run()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            raised.append(error)

    running = threading.Thread(target=run)
    running.start()
    break_it()
    running.join(60)
    assert not running.is_alive()
    (error,) = raised
    return error


def context(etcd: FakeEtcd) -> StoreContext:
    return StoreContext(cluster=etcd.client("operator"), keys=Keys(), now=lambda: NOON)


def test_a_bug_in_a_worker_is_told_to_the_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    1. a worker meets an exception that nobody expects
    2. the sidekick ends with it, and leaves a line in etcd
    3. status, why and activity say so, although no sidekick lives
    """
    etcd = FakeEtcd()
    sidekick = sidekick_over(etcd, tmp_path)

    def broken(*_: object) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(sidekick._workers["workload"]._noun, "perform", broken)

    assert isinstance(dies(sidekick, lambda: None), KeyError)

    told = decode(Crash, KEY, etcd.entries[KEY].value)
    assert (1, "a", "web") == (told.count, told.instance, told.group)
    assert "KeyError: 'no such thing' (test_crashes.py:" in told.what
    assert "a" in read_overviews(context(etcd), "shop")[0].instances
    why = "\n".join(explain(context(etcd), "shop", "a"))
    assert "sidekick offline" in why
    assert "sidekick ended unexpectedly" in why
    assert "KeyError: 'no such thing'" in why
    assert "its log has the traceback" in why
    (event,) = [one for _, one in read_activity(context(etcd))]
    assert ("error", "sidekick-crashed", "a") == (event.severity, event.kind, event.instance)
    assert "the sidekick of a ended unexpectedly in " in event.text
    monkeypatch.setattr(status, "open_cluster", lambda address: etcd.client("cli"))
    shown = CliRunner().invoke(main, ["status", "shop"])
    assert "sidekick offline; sidekick ended unexpectedly" in shown.stdout
    assert "KeyError: 'no such thing'" in shown.stdout


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError(""), ZeroDivisionError("by zero"), OSError(5, "io")])
def test_a_thread_that_dies_ends_the_sidekick_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """As ``outrider sidekick run`` sets it up: an exception in any thread, such as the one of a watch."""
    etcd = FakeEtcd()
    assemblies: list[Assembly] = []

    def made(settings: object, *, owns_process: bool) -> Assembly:
        assert owns_process, "outrider sidekick run does nothing else in its process"
        assemblies.append(sidekick_over(etcd, tmp_path))
        return assemblies[0]

    monkeypatch.setattr("outrider.sidekick.assemble.Assembly", made)
    monkeypatch.setattr(command, "on_signals", lambda *_: None)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    (tmp_path / "site.toml").write_text("")
    sidekick_over(etcd, tmp_path)._close()

    def later() -> None:
        eventually(lambda: assemblies and etcd.entries.get(Keys().presence("shop", "web", "a")))
        threading.Thread(target=_raise, args=(error,)).start()

    breaking = threading.Thread(target=later)
    breaking.start()
    result = CliRunner().invoke(main, ["sidekick", "run", "--config", str(tmp_path / "site.toml")])
    breaking.join(60)

    assert result.exception is error
    assert type(error).__name__ in decode(Crash, KEY, etcd.entries[KEY].value).what


def _raise(error: Exception) -> None:
    raise error


def tell(cluster: FakeCluster, error: BaseException, *, after_s: float = 0.0) -> None:
    tell_crash(
        cluster,
        Keys(),
        app="shop",
        group="web",
        instance="a",
        state="idle.waiting",
        error=error,
        at=NOON + timedelta(seconds=after_s),
    )


def test_a_sidekick_that_dies_again_and_again_is_counted_and_not_repeated() -> None:
    """It dies each second at its start: one document, one event, until there is something new."""
    etcd = FakeEtcd()
    client = etcd.client()

    for second in range(50):
        tell(client, KeyError("same"), after_s=second)

    crash = decode(Crash, KEY, etcd.entries[KEY].value)
    assert (50, NOON, NOON + timedelta(seconds=49)) == (crash.count, crash.first, crash.at)
    assert 1 == len(read_activity(context(etcd)))

    tell(client, KeyError("other"), after_s=60)

    assert 2 == len(read_activity(context(etcd)))
    assert "ended unexpectedly 51 times, last" in "\n".join(explain(context(etcd), "shop", "a"))


def test_what_is_told_goes_by_itself() -> None:
    etcd = FakeEtcd()
    tell(etcd.client(), KeyError("x"))
    assert etcd.entries[KEY].lease

    etcd.clock.advance(3601)

    assert KEY not in etcd.entries


@pytest.mark.parametrize("trouble", ["cut off", "full", "damaged"])
def test_a_fleet_that_can_not_be_told_changes_nothing_for_the_dying(trouble: str) -> None:
    etcd = FakeEtcd()
    client = etcd.client()
    if trouble == "cut off":
        client.cut_off()
    elif trouble == "full":
        etcd.full = True
    else:
        tell(client, KeyError("x"))
        etcd.apply([Put(key=KEY, value=b"garbage")])

    tell(client, KeyError("x"))

    assert (trouble == "damaged") is (KEY in etcd.entries)


def test_an_end_that_is_no_bug_is_not_told(tmp_path: Path) -> None:
    etcd = FakeEtcd()
    sidekick = sidekick_over(etcd, tmp_path)

    assert isinstance(dies(sidekick, lambda: sidekick.crash(Unknown("etcd is away"))), OutriderError)

    assert KEY not in etcd.entries


def cannot_begin(cluster: FakeCluster, why: str, *, after_s: float = 0.0) -> None:
    tell_crash(
        cluster, Keys(), app="shop", group="web", instance="a", state="", error=Unknown(why),
        at=NOON + timedelta(seconds=after_s), cannot_begin=True,
    )  # fmt: skip


def test_one_that_cannot_begin_is_seen_in_status_and_why_and_serves_nowhere() -> None:
    etcd = FakeEtcd()
    for second in range(3):
        cannot_begin(etcd.client(), f"Docker does not answer ({second})", after_s=-second)

    (found,) = read_status(context(etcd), "shop")
    group = "\n".join(explain_groups(context(etcd), "shop")[0].reasons)
    why = "\n".join(explain(context(etcd), "shop", "a"))

    words = "machine cannot begin: Docker does not answer (2) (tried 3 times, last 2s ago)"
    assert ("0 of 1 serve", "1 machine cannot begin") == found.line[3:]
    assert ("web", "a", "", "(cannot begin)") == found.rows[0][:4]
    assert words in found.rows[0][-1]
    assert words in group
    assert f"ends: {BEGIN_ENDS}" in group
    assert words in why
    assert f"ends: {BEGIN_ENDS}" in why
    assert "traceback" not in why
    assert ["sidekick-cannot-begin"] == [one.kind for _, one in read_activity(context(etcd))]
    (overview,) = read_overviews(context(etcd), "shop")
    assert ("(cannot begin)", "bad", False) == ((row := rows_of(overview)[0]).state, row.tone, row.serving)
    assert not etcd.client().list(Keys().presences("shop")).entries


def test_what_is_told_of_one_that_cannot_begin_goes_once_it_has_and_by_itself() -> None:
    etcd = FakeEtcd()
    client = etcd.client()
    cannot_begin(client, "Docker does not answer")
    tell_begun(client, Keys(), app="shop", instance="a")
    assert KEY not in etcd.entries

    cannot_begin(client, "Docker does not answer")
    etcd.clock.advance(301)
    assert KEY not in etcd.entries

    tell(client, KeyError("x"))
    tell_begun(client, Keys(), app="shop", instance="a")
    assert KEY in etcd.entries, "what it died of is shown for an hour"


def test_one_whose_runtime_is_away_says_so_before_its_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    1. the runtime doesn't answer at the first start: the fleet is told, and the process ends as before
    2. it answers at the next start: what was told is taken back as soon as etcd has accepted the sidekick
    """
    etcd = FakeEtcd()

    def away(self: ProcessRuntime) -> tuple[Workload, ...]:
        raise Unknown("D-Bus does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(ProcessRuntime, "running", away)
        with pytest.raises(Unknown, match="D-Bus"):
            sidekick_over(etcd, tmp_path)
    crash = decode(Crash, KEY, etcd.entries[KEY].value)
    assert (True, "D-Bus does not answer", "") == (crash.cannot_begin, crash.what, crash.state)

    sidekick = sidekick_over(etcd, tmp_path)
    running = threading.Thread(target=sidekick.run)
    running.start()
    try:
        eventually(lambda: KEY not in etcd.entries)
    finally:
        sidekick.stop()
        running.join(60)
    assert not running.is_alive()


def test_an_exception_in_words_fits_on_a_line() -> None:
    try:
        raise ValueError("a\nb" * 1000)
    except ValueError as error:
        words = in_words(error)

    assert "\n" not in words
    assert len(words) < MAX_TEXT + 50
    assert words.endswith(")")
    assert "ValueError: a b" in words
    assert "KeyError: 'x'" == in_words(KeyError("x"))
    assert sys.exc_info() == (None, None, None)
