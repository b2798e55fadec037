"""Whole sidekicks with the runtimes ``command`` and ``fleet``, and whatever may go wrong with a version.

Each fault ends with the version before serving, a reason in the journal, and nothing half-started left behind. For
``docker`` see ``test_docker_faults.py``, for ``systemd`` ``test_systemd_fleet.py`` and ``test_systemd_runtime.py``.
"""

import contextlib
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import requests

from outrider.demo.fleet import APP_ID, CHANNEL, HOST, QUICK
from outrider.runtimes.process.identity import marked
from tests.live.live_fixture import LiveFixture
from tests.support.command_programs import command_settings
from tests.support.fleet_stand_in import MACHINE, FleetStandIn
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually
from tests.support.workloads import APP, payload

INSTANCE = "web-a"
HASTE: Mapping[str, Mapping[str, object]] = {
    **QUICK,
    "probe": {"interval_s": 0.1, "timeout_s": 1.0, "successes": 2, "failures": 2, "deadline_s": 5.0},
    "drain": {"wait_s": 0.2, "max_s": 5.0},
    "soak": {"duration_s": 0.2},
    "service": {"retry_min_s": 0.2, "retry_max_s": 1.0},
}
ENDS = "print('no licence', flush=True)\nraise SystemExit(3)"
LACKS = "import os\nos.execvp('sh', ['sh', '-c', 'exec frobnicate'])"
FULL = "raise OSError(28, 'No space left on device')"
SILENT = """
import os, socket, time
listener = socket.create_server((os.environ["HOST"], int(os.environ["PORT"])))
time.sleep(600)
"""
HUNGRY = """
import os
with open("%s/cgroup.procs", "w") as group:
    group.write(str(os.getpid()))
hoard = [b"x" * (1 << 20) for _ in range(4096)]
"""


class Faulty(LiveFixture):
    """One instance whose versions are scripts.

    Attributes:
        lost: What is said once it was lost.
    """

    lost: str

    def publish(self, version: str, kind: str = APP) -> None:
        """``kind``: the script."""
        home = self.folder / f"release-{version}"
        home.mkdir()
        path = payload(home, {"app.py": kind})
        self.outrider("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={path}")
        self.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")

    def said(self, pattern: str) -> bool:
        """Whether the instance has said so.

        Raises:
            AssertionError: it has said something else.
        """
        found = []
        for record in self.records(INSTANCE):
            told = record.event
            found += [str(told[key]) for key in ("cause", "status", "reason") if key in told]
        assert any(re.search(pattern, one) for one in found), f"{pattern}: {json.dumps(found[-8:])}"
        return True

    def serving(self) -> str:
        """The version that answers through the balancer."""
        answer = requests.get(self.web_url, headers={"Host": HOST}, timeout=60)
        version: str = answer.json()["OUTRIDER_VERSION"]
        return version

    def only(self, version: str) -> bool:
        """Whether that version alone runs, has a folder, and serves.

        Raises:
            AssertionError: it is not so.
        """
        homes = list((self.state_dir(INSTANCE) / "workloads").glob("[!.]*"))
        assert len(homes) == 1, homes
        (home,) = homes
        record = json.loads((home / "record.json").read_bytes())
        assert version == record["version"], record
        assert version == self.serving()
        assert {version} == set(self.processes()), self.processes()
        return True

    def processes(self) -> Sequence[str]:
        """The version of each process of an app."""
        raise NotImplementedError

    def lose(self) -> None:
        """From now on what starts, finds and stops versions is not there."""
        raise NotImplementedError

    def find_again(self) -> None:
        """It is back."""
        raise NotImplementedError

    def take_away(self) -> str:
        """Take away what a start needs; what is said then."""
        raise NotImplementedError

    def bring_back(self) -> None:
        """It is there again."""
        raise NotImplementedError


class Commands(Faulty):
    """The operator's own script."""

    lost = r"it can't be told whether it runs"

    def __init__(self, folder: Path, ports: str) -> None:
        programs = folder / "programs"
        programs.mkdir()
        own = {name: value for name, value in asdict(command_settings(programs)).items() if value is not None}
        self.switches, self.script = programs / "switches", programs / "example-update"
        super().__init__(
            folder,
            [INSTANCE],
            settings={
                **HASTE,
                "instance": {"runtime": "command"},
                "command": own,
                "workload": {"stop_grace_s": 2.0, "ports": ports},
            },
        )

    def processes(self) -> Sequence[str]:
        found = marked({"OUTRIDER_INSTANCE_DIR": str(self.state_dir(INSTANCE))})
        told = (Path(f"/proc/{one.pid}/environ").read_bytes().split(b"\0") for one in found)
        pairs = (dict(line.decode().partition("=")[::2] for line in lines if line) for lines in told)
        # what the sidekick runs itself, find for example, is there for a moment
        return [one["OUTRIDER_VERSION"] for one in pairs if one.get("OUTRIDER_ACTION") == "start"]

    def lose(self) -> None:
        (self.switches / "find.exits").write_text("4")

    def find_again(self) -> None:
        (self.switches / "find.exits").unlink()

    def take_away(self) -> str:
        (self.switches / "start.exits").write_text("127")
        (self.switches / "start.says").write_text("example-update: 1: exec: frob-run: not found\n")
        return r"start \(example-update\): exit 127; .*frob-run is not on this machine: install it"

    def bring_back(self) -> None:
        for name in ("start.exits", "start.says"):
            (self.switches / name).unlink()

    def stop(self) -> None:
        super().stop()
        for one in marked({"OUTRIDER_INSTANCE_DIR": str(self.state_dir(INSTANCE))}):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, 9)


class Units(Faulty):
    """A stand-in for fleet."""

    lost = r"fleet: .*: no answer from unix://"

    def __init__(self, folder: Path, ports: str) -> None:
        self.fleet = FleetStandIn(folder)
        self.template = folder / "example@.service"
        self.template.write_text(
            f"[Service]\nExecStart={sys.executable} {{root}}/app.py\n[X-Fleet]\nMachineID={MACHINE}\n"
        )
        super().__init__(
            folder,
            [INSTANCE],
            settings={
                **HASTE,
                "instance": {"runtime": "fleet"},
                "fleet": {"url": self.fleet.url, "template": str(self.template), "poll_interval_s": 0.1},
                "workload": {"stop_grace_s": 2.0, "ports": ports},
            },
            environment={"PATH": f"{self.fleet.journal_programs()}:{os.environ['PATH']}"},
        )

    def processes(self) -> Sequence[str]:
        return [name.partition("@")[2].partition(f"-{INSTANCE}")[0] for name in self.fleet.units]

    def lose(self) -> None:
        self.fleet.silent = True

    def find_again(self) -> None:
        self.fleet.silent = False

    def take_away(self) -> str:
        self.template.rename(self.template.with_name("away"))
        return r"example@\.service"

    def bring_back(self) -> None:
        self.template.with_name("away").rename(self.template)

    def stop(self) -> None:
        super().stop()
        self.fleet.close()


@contextlib.contextmanager
def memory_group() -> Iterator[Path | None]:
    """A control group that may have 32 MiB; None where none can be made."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / f"outrider-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limit).exists():
                (group / limit).write_text(str(32 * 1024**2))
                yield group
                return
        finally:
            eventually(lambda group=group: not (group / "cgroup.procs").read_text())  # type: ignore[misc]
            group.rmdir()
    yield None


def two_ports() -> int:
    """The first of two adjacent ports that are free, below those of outgoing connections; each worker has its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 16
    for port in range(21000 + 500 * worker, 21500 + 500 * worker, 2):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for each in (port, port + 1):
                stack.enter_context(socket.create_server(("127.0.0.1", each)))
            return port
    raise AssertionError("no two free ports")


@pytest.fixture(params=[Commands, Units])
def fleet(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    first = two_ports()
    found = request.param(tmp_path, f"{first}-{first + 1}")
    try:
        found.start()
        found.create()
        found.start_sidekick(INSTANCE)
        eventually(lambda: found.expect_all_on("1.0.0"), within_s=60, every_s=0.1)
        yield found
    finally:
        found.stop()
        shutil.rmtree(tmp_path / "state", ignore_errors=True)


def test_whatever_goes_wrong_the_version_before_serves_on_and_it_is_said_why(fleet: Faulty) -> None:
    """
    1. an app that ends at once, and one whose health check never answers: the release's fault
    2. a program that this machine lacks, a full disk, the memory, what the start needs, a port: this machine's fault
    3. the runtime is lost in mid-swap: nobody's fault; once it is back the new version comes
    """

    def expect(pattern: str, blocked: list[str]) -> None:
        eventually(lambda: fleet.said(pattern), within_s=30, every_s=0.1)
        eventually(lambda: fleet.blocked() == blocked, within_s=60, every_s=0.1)
        eventually(lambda: fleet.only("1.0.0"), within_s=60, every_s=0.1)

    fleet.publish("2.0.0", ENDS)
    expect(r"it said: no licence", ["2.0.0"])
    fleet.publish("3.0.0", SILENT)
    expect(r"no answer in 1 s", ["2.0.0", "3.0.0"])

    fleet.publish("4.0.0", LACKS)
    expect(r"frobnicate is not on this machine: install it", ["2.0.0", "3.0.0"])
    fleet.publish("5.0.0", FULL)
    expect(r"No space left on device.*make room there", ["2.0.0", "3.0.0"])
    with memory_group() as group:
        if group is not None:  # these runtimes aren't told how an app has ended; the kernel counts whom it has killed
            fleet.publish("5.0.1", HUNGRY % group)
            expect(r"killed a process for memory meanwhile", ["2.0.0", "3.0.0"])
    words = fleet.take_away()
    fleet.publish("6.0.0")
    expect(words, ["2.0.0", "3.0.0"])
    fleet.bring_back()

    (port,) = other_port(fleet)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        fleet.publish("7.0.0")
        expect(rf"port {port} is in use by pid {os.getpid()}", ["2.0.0", "3.0.0"])
        fleet.lose()
    fleet.publish("8.0.0")
    eventually(lambda: fleet.said(fleet.lost), within_s=60, every_s=0.1)
    assert "1.0.0" == fleet.serving()
    fleet.find_again()
    eventually(lambda: fleet.expect_all_on("8.0.0"), within_s=60, every_s=0.1)
    eventually(lambda: fleet.only("8.0.0"), within_s=60, every_s=0.1)
    assert ["2.0.0", "3.0.0"] == fleet.blocked()


def other_port(fleet: Faulty) -> list[int]:
    """The port of ``workload.ports`` that what runs doesn't have."""
    mine = int(str(fleet.presences()[INSTANCE].url).rpartition(":")[2])
    first, last = (int(word) for word in str(fleet._settings["workload"]["ports"]).split("-"))
    return [port for port in (first, last) if port != mine]
