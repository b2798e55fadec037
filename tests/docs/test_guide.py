"""CoreOS' guide "Example Update Workflow with Containers", typed word for word against a fresh service.

Three machines run ``updatectl watch`` with an ``./update.sh`` of their own; the commands are the guide's.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from outrider.etcd.seam import Cluster
from tests.service.test_serve import Process, serving
from tests.support.servers import EtcdServer
from tests.support.service_examples import open_store
from tests.support.waiting import eventually
from tests.support.watched import Program

UPDATECTL = Path(sys.executable).with_name("updatectl")
APP = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"
GROUP = "13DEFFFC-90C2-4B94-B3C2-1322BE8DC4E3"
NAMES = ("apache.1", "apache.2", "apache.3")

CREATE_APP = (
    'updatectl app update --app-id=e96281a6-d1af-4bde-9a0a-97b76e56dc57 --label="Example App" '
    '--description="Sample application to test container updates"'
)
CREATE_GROUP = (
    "updatectl group create --app-id=e96281a6-d1af-4bde-9a0a-97b76e56dc57 --channel=master "
    '--group-id=13DEFFFC-90C2-4B94-B3C2-1322BE8DC4E3 --label="Example Group"'
)
CREATE_PACKAGE = (
    "updatectl package create --app-id=e96281a6-d1af-4bde-9a0a-97b76e56dc57 --version={version} "
    "--file=coreos/example:{version}"
)
UPDATE_CHANNEL = (
    "updatectl channel update --app-id=e96281a6-d1af-4bde-9a0a-97b76e56dc57 --channel=master --version={version}"
)
LIST = "updatectl instance list-updates --app-id=e96281a6-d1af-4bde-9a0a-97b76e56dc57"
WATCH = (
    "updatectl watch --app-id=e96281a6-d1af-4bde-9a0a-97b76e56dc57 --group-id=13DEFFFC-90C2-4B94-B3C2-1322BE8DC4E3 "
    "--client-id={name} ./update.sh"
)


class Machines:
    """Three machines, each with a folder and an ``update.sh``; once started, each with a watcher."""

    def __init__(self, shell: "Shell", folder: Path) -> None:
        self.programs = {name: Program(folder / name) for name in NAMES}
        self._shell = shell
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for name, program in self.programs.items():
            self._running.append(self._shell.begin(WATCH.format(name=name), program.folder))

    def stop(self) -> None:
        for process in self._running:
            process.terminate()
        assert [0] * len(self._running) == [process.wait(60) for process in self._running]


class Shell:
    """Types what the guide says, on a machine whose settings are the server, and a user with a key of its own."""

    def __init__(self, server: str, key: str, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OUTRIDER_", "UPDATE"))}
        self._environment = kept | {
            "UPDATECTL_SERVER": server,
            "UPDATECTL_USER": "admin",
            "UPDATECTL_KEY": key,
        }
        self._folder = folder

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run one command; it must succeed."""
        done = subprocess.run(
            self._words(command),
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done

    def begin(self, command: str, folder: Path) -> subprocess.Popen[bytes]:
        """Start one command that stays, in a folder of its own."""
        with (folder / "log.txt").open("wb") as log:
            return subprocess.Popen(
                self._words(command), cwd=folder, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )

    def table(self, command: str) -> list[dict[str, str]]:
        """What a command prints, row by row, by the columns' names."""
        header, *rows = self.type(command).stdout.splitlines()
        return [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]

    @staticmethod
    def _words(command: str) -> list[str]:
        program, *words = shlex.split(command)
        assert program == "updatectl"
        return [str(UPDATECTL), *words]


@pytest.fixture
def fresh(etcd_server: EtcdServer, prefix: str, tmp_path: Path) -> Iterator[Process]:
    """``outrider serve`` over keys that nobody has written yet."""
    with serving(tmp_path, "--etcd", f"127.0.0.1:{etcd_server.port}", "--prefix", prefix.rstrip("/")) as running:
        yield running


@pytest.fixture
def shell(fresh: Process, cluster: Cluster, prefix: str, tmp_path: Path) -> Shell:
    key = open_store(cluster, prefix.rstrip("/")).users.begin("admin").token
    eventually(lambda: requests.get(f"{fresh.url}/api/v1/whoami", auth=("admin", key), timeout=60).ok)
    return Shell(fresh.url, key, tmp_path)


@pytest.fixture
def machines(shell: Shell, tmp_path: Path) -> Iterator[Machines]:
    three = Machines(shell, tmp_path)
    yield three
    three.stop()


def create_package(shell: Shell, fresh: Process, version: str, tmp_path: Path) -> None:
    """The guide's ``package create``; a service that can't keep images yet gets a file in place of one."""
    schema = requests.get(fresh.url + "/api/v1/openapi.json", timeout=60).json()["components"]["schemas"]["NewPackage"]
    command = CREATE_PACKAGE.format(version=version)
    if "image" not in schema["properties"]:
        stand_in = tmp_path / f"example-{version}"
        stand_in.write_text(f"coreos/example:{version}")
        command = command.replace(f"coreos/example:{version}", shlex.quote(str(stand_in)))
    shell.type(command)


def everybody_runs(shell: Shell, version: str) -> bool:
    rows = shell.table(LIST)
    return len(rows) == 3 and all((row["Version"], row["Status"]) == (version, "complete") for row in rows)


def test_the_guide_word_for_word(shell: Shell, fresh: Process, machines: Machines, tmp_path: Path) -> None:
    created = shell.type(CREATE_APP)
    group = shell.table(CREATE_GROUP)
    create_package(shell, fresh, "1.0.0", tmp_path)
    channel = shell.table(UPDATE_CHANNEL.format(version="1.0.0"))
    machines.start()
    eventually(lambda: everybody_runs(shell, "1.0.0"), within_s=40, every_s=0.5)
    three = shell.table(LIST)
    create_package(shell, fresh, "2.0.0", tmp_path)
    shell.type(UPDATE_CHANNEL.format(version="2.0.0"))
    eventually(lambda: everybody_runs(shell, "2.0.0"), within_s=40, every_s=0.5)

    assert [
        ["Id", "Label", "Description"],
        [APP, "Example App", "Sample application to test container updates"],
    ] == [line.split("\t") for line in created.stdout.splitlines()]
    assert ("Example Group", APP, "master", GROUP, "false") == tuple(
        group[0][column] for column in ("Label", "App", "Channel", "Id", "Updates Paused")
    )
    assert ("master", "1.0.0") == (channel[0]["Label"], channel[0]["Version"])
    assert list(NAMES) == [row["ClientID"] for row in three]
    assert {(APP, GROUP)} == {(row["AppID"], row["Group"]) for row in three}
    for program in machines.programs.values():
        first, second = program.environments
        assert ("1.0.0", None) == (first["VERSION"], first.get("OLD_VERSION"))
        assert ("2.0.0", "1.0.0", APP) == (second["VERSION"], second["OLD_VERSION"], second["APP_ID"])
