"""Which signal does what to ``outrider sidekick run --config-dir``. What follows: ``tests/sidekick/test_host.py``."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from outrider.cli import main
from outrider.config.folder import Folder
from outrider.sd_notify import Notifier

SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what the command changes in this process."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr("outrider.log.setup_logging", lambda settings, verbosity: None)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_sighup_reads_the_folder_again_and_the_others_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class StubHost:
        def __init__(self, folder: Folder, notifier: Notifier) -> None:
            assert ["a.toml"] == [path.name for path in folder.loaded], folder.problems

        def run(self) -> None:
            for number in SIGNALS:
                signal.raise_signal(number)

        def gauges(self) -> tuple[()]:
            return ()

        def reload(self) -> None:
            done.append("reload")

        def stop(self) -> None:
            done.append("stop")

    monkeypatch.setattr("outrider.sidekick.host.Host", StubHost)
    (tmp_path / "a.toml").write_text(
        f'[instance]\napp = "hello"\ngroup = "web"\nbalancer = "none"\nstate_dir = "{tmp_path / "a"}"\n'
        '[process]\ncommand = ["./run"]\n[service]\nurls = ["http://127.0.0.1:9"]\n'
    )

    told = CliRunner().invoke(main, ["sidekick", "run", "--config-dir", str(tmp_path)])

    assert (0, ["reload", "stop", "stop"]) == (told.exit_code, done), (told.output, told.exception)
