"""``.ci/run`` on a machine whose make, apt-get and Docker are stubs: what it runs, what it counts, how it ends."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.rings import ROOT

PASSES = "@echo '=== 7 passed, 2 skipped in 75.12s (0:01:15) ==='"
FAILS = "@echo '=== 2 failed, 5 passed, 1 error in 3.10s ==='; exit 1"
DOCKER = """echo "docker $*" >>docker.txt
[ -n "${1:-}" ] || { mkdir -p .cache; echo 1 >.cache/dockerd.pid; }"""
RINGS = {
    "lint": "lint",
    "verify": "verify",
    "test": "test",
    "live": "test-live",
    "fleet": "test-fleet",
    "machines": "live",
    "long": "test-long",
    "pythons": "test-pythons",
    "install": "test-install",
    "partitions": "test-partitions",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script, below stubs."""
    for name, text in {
        "tools/start_docker.sh": DOCKER,
        "stubs/apt-get": "exit 0",
        "stubs/sudo": "exit 0",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    return tmp_path


def run(checkout: Path, *names: str, **recipes: str) -> subprocess.CompletedProcess[str]:
    """Run the script; ``recipes`` are what a ring's target does, ``@true`` otherwise."""
    targets = [f"{target}:\n\t{recipes.get(ring, '@true')}\n" for ring, target in RINGS.items()]
    (checkout / "Makefile").write_text("\n".join(targets))
    environment = os.environ | {"PATH": f"{checkout / 'stubs'}:{os.environ['PATH']}"}
    command = [str(checkout / ".ci" / "run"), *names]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_every_ring_is_run_and_told_with_its_time(checkout: Path) -> None:
    done = run(checkout, *RINGS, test=PASSES, live=PASSES)

    *_, last = told = done.stdout.splitlines()
    assert 0 == done.returncode, done.stdout + done.stderr
    assert list(RINGS) == [line.split()[1] for line in told if line.endswith(" s  passed")]
    assert f"{2 * 7 + len(RINGS) - 2} passed, 0 failed" == last


def test_a_ring_that_fails_keeps_no_other_from_running_and_the_end_is_bad(checkout: Path) -> None:
    done = run(checkout, *RINGS, lint="@echo bad; exit 3", live=FAILS, install=PASSES)

    *_, last = told = done.stdout.splitlines()
    assert 1 == done.returncode
    assert ["lint", "live"] == [line.split()[1] for line in told if "FAILED (2)" in line]
    assert f"{5 + 7 + len(RINGS) - 3} passed, {1 + 3} failed" == last


def test_without_names_it_runs_every_ring_the_first_one_on_two_pythons(checkout: Path) -> None:
    done = run(checkout)

    assert set(RINGS) - {"test"} == {
        line.split()[1] for line in done.stdout.splitlines() if line.endswith(" s  passed")
    }


def test_of_what_would_not_fit_it_runs_one_part(checkout: Path) -> None:
    done = run(checkout, long="@echo '=== 1 passed in 1s ===' $(sample)", partitions="@echo part $(sample)")

    parts = re.findall(r"(?:=== |part )(\d+)/(\d+)$", done.stdout, re.MULTILINE)
    assert 2 == len(parts)
    assert all(1 <= int(part) <= int(of) for part, of in parts)


def test_what_a_ring_runs_heeds_ctrl_c(checkout: Path) -> None:
    ignored = "@python3 -c 'import signal; raise SystemExit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)'"

    assert 0 == run(checkout, "lint", lint=ignored).returncode


def test_the_daemon_that_it_started_is_ended(checkout: Path) -> None:
    run(checkout, "lint", lint="@exit 1")

    assert ["docker ", "docker --stop"] == (checkout / "docker.txt").read_text().splitlines()


def test_a_daemon_that_ran_before_stays(checkout: Path) -> None:
    (checkout / ".cache").mkdir()
    (checkout / ".cache" / "dockerd.pid").write_text("1\n")

    run(checkout, "lint")

    assert ["docker "] == (checkout / "docker.txt").read_text().splitlines()


def test_an_unknown_ring_is_one_clear_line(checkout: Path) -> None:
    done = run(checkout, "test", "lvie")

    assert (2, "") == (done.returncode, done.stdout)
    assert f"ci: no such ring: lvie; known: {' '.join(RINGS)}\n" == done.stderr
