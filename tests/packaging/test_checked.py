"""What others say of the packages: lintian, rpmlint and rpm, and Ansible of the role. Slow: ``make test-packages``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tools.packages import RELEASES

from tests.packaging.clean_machine import ROOT
from tests.support.requirements import skip_or_fail

pytestmark = [pytest.mark.packages, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of the older release, of both kinds."""
    if ready := os.environ.get("OUTRIDER_TEST_PACKAGES"):
        return Path(ready).absolute()
    folder = tmp_path_factory.mktemp("packages")
    command = [sys.executable, "tools/packages.py", "bookworm", "--output", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert 0 == done.returncode, done.stderr
    return folder


def said(*words: str, **environment: str) -> tuple[int, str]:
    """How a program leaves and all that it prints; the test is skipped where there is none, or fails in CI."""
    if shutil.which(words[0]) is None:
        skip_or_fail(f"{words[0]} is not installed")
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=600, check=False, env=os.environ | environment, cwd=ROOT
    )
    return done.returncode, done.stdout + done.stderr


def test_lintian_reports_no_error(built: Path) -> None:
    found = sorted(map(str, built.glob("*~deb12_*.deb")))

    code, text = said("lintian", "--fail-on", "error", *found)

    assert 2 == len(found)
    assert [] == [line for line in text.splitlines() if line.startswith("E:")]
    assert 0 == code, text


def test_lintian_still_looks_behind_what_is_meant(built: Path) -> None:
    (package,) = built.glob("outrider_*~deb12_*.deb")

    code, text = said("lintian", "--fail-on", "error", "--no-override", str(package))

    assert 0 != code
    assert "E: outrider: dir-or-file-in-opt" in text, "without the overrides it reports what they name"


def test_rpmlint_reports_no_error(built: Path) -> None:
    found = sorted(map(str, built.glob("*.py311.*.rpm")))

    _, text = said("rpmlint", "--rpmlintrc", str(ROOT / "packages/rpmlintrc"), *found)

    assert 2 == len(found)
    assert "2 packages and 0 specfiles checked; 0 errors" in text, [
        line for line in text.splitlines() if ": E:" in line
    ]


def test_the_rpms_are_installed_below_a_root_and_removed(built: Path, tmp_path: Path) -> None:
    """Neither their scripts nor their programs are run: what they need isn't there."""
    root = ("rpm", "--root", str(tmp_path))
    code, text = said(*root, "--install", "--nodeps", "--noscripts", *map(str, built.glob("*.py311.*.rpm")))
    assert 0 == code, text

    assert "/opt/outrider/bin/python3.11" not in said(*root, "--verify", "outrider", "--nodeps")[1]
    assert (tmp_path / "usr/lib/systemd/system/outrider-serve.service").is_file()
    assert os.access(tmp_path / "opt/outrider/bin/outrider", os.X_OK)
    requires = said(*root, "--query", "--requires", "outrider")[1]
    assert "python(abi) = 3.11" in requires.splitlines()

    code, text = said(*root, "--erase", "--nodeps", "--noscripts", "outrider-server", "outrider")
    assert 0 == code, text
    assert not (tmp_path / "opt/outrider").exists()


def test_the_role_is_sound(tmp_path: Path) -> None:
    subprocess.run([str(ROOT / "tools/package_tools.sh"), "ansible"], check=True, capture_output=True, timeout=600)
    programs = ROOT / ".cache/packages/ansible/bin"
    folder = tmp_path / "ansible"
    shutil.copytree(ROOT / "packages/ansible", folder)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "ANSIBLE_HOME": str(tmp_path / "home")}

    checked = said(
        str(programs / "ansible-playbook"),
        "--syntax-check",
        "-i",
        "outrider,",
        str(folder / "example.yml"),
        **environment,
    )
    linted = said(
        *(str(programs / "ansible-lint"), "--offline", "--strict", "--project-dir", str(folder), str(folder)),
        **environment,
    )

    assert 0 == checked[0], checked[1]
    assert 0 == linted[0], linted[1]
    assert "0 failure(s), 0 warning(s)" in linted[1]


def test_what_is_checked_is_of_a_release_that_is_built() -> None:
    assert {"bookworm", "trixie"} == set(RELEASES)
