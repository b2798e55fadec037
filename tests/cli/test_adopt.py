"""``outrider adopt`` as it is typed: what it shows, what it asks, and what it says when it refuses."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from outrider.cli import main
from outrider.core.errors import ConfigError
from outrider.demo.programs import free_ports
from outrider.runtimes.adopted import adopter, read_record
from tests.support.waiting import eventually

SERVER = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


class App:
    """A process with a pid file, and the configuration of the sidekick that comes."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        self.url, self.pid_file, self.state = f"http://127.0.0.1:{port}", folder / "app.pid", folder / "state"
        self.process = subprocess.Popen([sys.executable, "-S", "-c", SERVER, str(port)], start_new_session=True)
        self.pid_file.write_text(str(self.process.pid))
        self._config = folder / "web-a.toml"
        self.configure("start-first")

    def configure(self, strategy: str) -> None:
        ports = '\n[workload]\nports = "8085"\n' if strategy == "stop-first" else ""
        self._config.write_text(
            f'[instance]\nid = "web-a"\napp = "hello"\ngroup = "g"\nbalancer = "none"\nstrategy = "{strategy}"\n'
            f'state_dir = "{self.state}"\n[process]\ncommand = ["./server"]\n[probe]\ninterval_s = 0.1\n{ports}'
        )

    def adopt(self, *more: str, answer: str | None = None, path: Path | None = None) -> Result:
        words = ["adopt", "pid-file", str(path or self.pid_file), "--config", str(self._config), *more]
        return CliRunner().invoke(main, words, input=answer)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    app = App(tmp_path)
    try:
        eventually(lambda: app.adopt("--version=1.0.0", "--dry-run").exit_code == 0, every_s=0.1)
        yield app
    finally:
        app.process.kill()
        app.process.wait()


def test_it_shows_what_will_happen_and_asks_first(app: App) -> None:
    refused = app.adopt("--version=1.0.0", answer="n\n")

    assert 1 == refused.exit_code
    assert read_record(app.state) is None
    lines = refused.stdout.splitlines()
    assert lines[0].startswith(f"pid {app.process.pid} (")
    assert [
        "  version   1.0.0, by --version",
        f"  address   {app.url}, health check passed (/health)",
        "  entry     there is no balancer (instance.balancer is none)",
        "  replaced  SIGTERM, and SIGKILL after 30 s",
        "  rollback  a rollback needs it running, for outrider can't start it again: only what started it knows how",
    ] == lines[1:6]
    assert "would run beside its successor" in lines[6]

    done = app.adopt("--version=1.0.0", answer="y\n")

    assert 0 == done.exit_code
    assert "adopted; start the sidekick of web-a" == done.stdout.splitlines()[-1]
    record = read_record(app.state)
    assert record is not None
    assert ("pid-file", "1.0.0", app.url) == (record.kind, record.version, record.url)
    assert app.process.poll() is None


def test_json_says_the_same_and_whether_it_was_done(app: App) -> None:
    told = [json.loads(app.adopt("--version=1.0.0", "--json", each).stdout) for each in ("--dry-run", "--yes")]

    assert [False, True] == [one.pop("adopted") for one in told]
    assert told[0] == told[1]
    assert ("pid-file", app.url, False) == (told[0]["kind"], told[0]["url"], told[0]["can_be_started_again"])


def test_what_is_refused_is_one_line_and_changes_nothing(app: App, tmp_path: Path) -> None:
    attempts = {
        "nothing tells its version; say it with --version": app.adopt(),
        "version 'one': not semver": app.adopt("--version=one"),
        "connection refused": app.adopt("--version=1.0.0", "--url=http://127.0.0.1:1"),
        "write http://HOST:PORT": app.adopt("--version=1.0.0", "--url=127.0.0.1:1"),
        "No such file": app.adopt("--version=1.0.0", path=tmp_path / "nobody.pid"),
    }

    for words, result in attempts.items():
        assert 1 == result.exit_code, result.output
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: ")
        assert words in line
    assert not app.state.exists()


def test_stop_first_is_refused_for_what_can_not_be_started_again(app: App) -> None:
    app.configure("stop-first")

    result = app.adopt("--version=1.0.0", "--yes")

    assert 1 == result.exit_code
    assert "set instance.strategy to start-first" in result.stderr
    assert not app.state.exists()


@pytest.mark.parametrize(("kind", "extra"), [("container", "docker"), ("unit", "systemd")])
def test_a_missing_library_is_told_with_what_to_type(monkeypatch: pytest.MonkeyPatch, kind: str, extra: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=re.escape(f"pip install 'outrider[{extra}]'")):
        adopter(kind)
    adopter("pid-file")
