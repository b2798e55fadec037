"""A real program for ``watch`` to run: it writes down what it was given and leaves as a test wants."""

import json
import sys
from pathlib import Path

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
