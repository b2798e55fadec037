"""The wheel and the sdist as users install them: into an empty environment, without constraints.txt.

Slow, and needs the package index: the mark ``packages`` keeps it out of a plain pytest. ``make test-install`` runs it.
"""

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.live.test_demo import processes_in
from tests.support.servers import EtcdServer
from tests.support.waiting import eventually

# Each environment downloads and installs some thirty packages; a slow index takes minutes for that.
pytestmark = [pytest.mark.packages, pytest.mark.timeout(1200)]

CHECKOUT = Path(__file__).parents[2]
KINDS = {"wheel": "outrider-*.whl", "sdist": "outrider-*.tar.gz"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment of the Python that runs the tests.

    Attributes:
        folder: Where it is; ``folder.parent`` is the working folder of what runs in it, so no checkout is found there.
    """

    folder: Path

    @property
    def programs(self) -> Path:
        return self.folder / "bin"

    def variables(self, **more: str) -> Mapping[str, str]:
        """The machine's, without what would lead to another Python's packages, to our settings, or to constraints."""
        foreign = ("OUTRIDER_", "UPDATECTL_", "PYTHON", "VIRTUAL_ENV", "PIP_CONSTRAINT")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return kept | {"PATH": f"{self.programs}:{kept['PATH']}"} | more

    def run(self, *command: str, within_s: float = 60, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            cwd=self.folder.parent,
            env=self.variables(**variables),
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def install(self, requirement: str) -> None:
        done = self.run("python", "-m", "pip", "--disable-pip-version-check", "install", requirement, within_s=900)
        assert 0 == done.returncode, done.stdout[-2000:] + done.stderr[-2000:]


def make_environment(folder: Path) -> Environment:
    venv.create(folder, with_pip=True)
    return Environment(folder=folder)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this checkout's wheel and sdist."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t", "sdist", "-t", "wheel"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return folder


def find(distributions: Path, kind: str) -> Path:
    (found,) = distributions.glob(KINDS[kind])
    return found


@pytest.fixture(scope="module", params=KINDS)
def installed(
    request: pytest.FixtureRequest, distributions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """An environment with nothing in it but outrider, from the wheel or the sdist, and the extra ``demo``."""
    environment = make_environment(tmp_path_factory.mktemp(request.param) / "env")
    environment.install(f"{find(distributions, request.param)}[demo]")
    return environment


@pytest.fixture(scope="module")
def bare(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and no extra, as machines with a sidekick have it."""
    environment = make_environment(tmp_path_factory.mktemp("bare") / "env")
    environment.install(str(find(distributions, "wheel")))
    return environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A program that was started, and the file that takes what it prints."""

    process: "subprocess.Popen[bytes]"
    output: Path

    def url(self) -> str:
        """The address in the line that ``outrider serve`` prints when it serves; empty before that."""
        ended = self.process.poll()
        printed = self.output.read_text()
        assert ended is None, f"ended with {ended}: {printed}"
        return next(iter(re.findall(r"^outrider update service on (http://\S+)$", printed, re.MULTILINE)), "")


@pytest.fixture
def serving(installed: Environment, etcd_server: EtcdServer, prefix: str, tmp_path: Path) -> Iterator[Running]:
    """The installed ``outrider serve`` on a real etcd."""
    command = [
        *(str(installed.programs / "outrider"), "serve", "--listen", "127.0.0.1:0"),
        *("--payload-dir", str(tmp_path / "payloads"), "--etcd", f"127.0.0.1:{etcd_server.port}", "--prefix", prefix),
    ]
    output = tmp_path / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=installed.variables(PYTHONUNBUFFERED="1"), stdout=file, stderr=file
        )
    yield Running(process=process, output=output)
    if process.poll() is None:
        process.kill()
    process.wait()


def test_the_statechart_that_comes_along_is_sound(installed: Environment) -> None:
    checked = installed.run("outrider", "statechart", "check")
    where = installed.run(
        "python", "-c", "from outrider.statechart import find_sidekick_chart as find; print(find())"
    ).stdout.strip()

    assert (0, "sidekick.scxml: ok") == (checked.returncode, checked.stdout.strip().partition(",")[0]), checked.stderr
    assert installed.folder in Path(where).parents, "this environment's own, not the checkout's"
    assert (CHECKOUT / "statecharts" / "sidekick.scxml").read_bytes() == Path(where).read_bytes()


def test_what_pip_chose_fits_together(installed: Environment) -> None:
    checked = installed.run("python", "-m", "pip", "--disable-pip-version-check", "check")

    assert 0 == checked.returncode, checked.stdout + checked.stderr


def test_the_installed_service_gets_ready_and_ends_on_sigterm(serving: Running) -> None:
    url = eventually(serving.url, within_s=120, every_s=0.1)
    eventually(lambda: answers_ok(f"{url}/readyz"), within_s=60, every_s=0.1)

    serving.process.terminate()

    assert 0 == serving.process.wait(60)


def answers_ok(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).ok
    except requests.RequestException:
        return False


def test_the_installed_demo_ends_as_promised_and_leaves_nothing(installed: Environment, tmp_path: Path) -> None:
    demo = installed.run("outrider", "demo", within_s=300, TMPDIR=str(tmp_path))

    assert 0 == demo.returncode, demo.stdout[-3000:] + demo.stderr
    assert "all as promised" in demo.stdout
    assert [] == list(tmp_path.iterdir())
    assert [] == processes_in(tmp_path)


@pytest.mark.parametrize(("command", "extra"), [("serve", "server"), ("demo", "demo")])
def test_without_an_extra_the_command_that_needs_it_names_it_in_one_line(
    bare: Environment, command: str, extra: str
) -> None:
    refused = bare.run("outrider", command)

    assert 1 == refused.returncode
    assert f"is missing; install outrider[{extra}]" in refused.stderr
    assert 1 == len(refused.stderr.splitlines())


def test_a_sidekick_needs_no_extra(bare: Environment) -> None:
    checked = bare.run("outrider", "statechart", "check")
    loaded = bare.run("python", "-c", "import outrider.sidekick.assemble as loaded; print(loaded.__file__)")

    assert (0, 0) == (checked.returncode, loaded.returncode), checked.stderr + loaded.stderr
    assert loaded.stdout.startswith(str(bare.folder)), "this environment's own, not the checkout's"
