"""A watcher on a thread, and a real program for it: it writes down what it was given and leaves as a test wants."""

import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

from outrider.clients import Watcher, WatchSettings
from outrider.core.errors import Refused
from outrider.omaha_client import Upstream

APP = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"

_TEXT = """#!{python}
import json, os, signal, sys, time
folder = os.path.dirname(os.path.abspath(__file__))
hanging = os.path.exists(os.path.join(folder, "hang"))
if hanging:
    # Before anybody can see this run: a test may end it at once.
    def leave(number, frame):
        with open(os.path.join(folder, "ended"), "w") as ended:
            ended.write(signal.Signals(number).name)
        sys.exit(0)
    signal.signal(signal.SIGTERM, leave)
found = {{name: value for name, value in os.environ.items() if name.startswith("UPDATE_SERVICE_")}}
with open(os.path.join(folder, "runs.jsonl"), "a") as log:
    log.write(json.dumps({{"environment": found, "arguments": sys.argv[1:], "pid": os.getpid()}}) + "\\n")
print("program:", found.get("UPDATE_SERVICE_VERSION"), flush=True)
while hanging:
    time.sleep(3600)
try:
    sys.exit(int(open(os.path.join(folder, "code")).read()))
except FileNotFoundError:
    sys.exit(0)
"""


class Program:
    """The program in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path = folder, folder / "update.sh"
        self.path.write_text(_TEXT.format(python=sys.executable))
        self.path.chmod(0o755)

    def leave_with(self, code: int) -> None:
        """Whatever runs from now on ends with ``code``."""
        (self.folder / "code").write_text(str(code))

    def hang(self) -> None:
        """Whatever runs from now on stays until SIGTERM."""
        (self.folder / "hang").touch()

    @property
    def ended_by(self) -> str:
        """The signal that ended a hanging run; empty while none has."""
        path = self.folder / "ended"
        return path.read_text() if path.exists() else ""

    @property
    def runs(self) -> list[dict[str, object]]:
        """What each run found, in order."""
        path = self.folder / "runs.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def environments(self) -> list[dict[str, str]]:
        """Each run's ``UPDATE_SERVICE_*`` variables, without that prefix."""
        found = []
        for run in self.runs:
            variables = run["environment"]
            assert isinstance(variables, dict)
            found.append({name.removeprefix("UPDATE_SERVICE_"): value for name, value in variables.items()})
        return found


class Watching:
    """A watcher on a thread of its own."""

    def __init__(self, url: str, program: Program, app: str = APP, **changes: object) -> None:
        settings = WatchSettings(
            app_id=app,
            interval_s=0.05,
            retry_min_s=0.2,
            retry_max_s=0.4,
            grace_s=0.5,
            program=(str(program.path), "now"),
        )
        client = Upstream(urls=(url,), app_id=app, group="beta", instance="web-1", timeout_s=5)
        self.told: list[str] = []
        self.watcher = Watcher(client, replace(settings, **changes), self.told.append)  # type: ignore[arg-type]
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.watcher.run()
        except Refused as error:
            self.error = error

    def __enter__(self) -> "Watching":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.watcher.stop()
        self.join()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), "the watcher didn't end"
