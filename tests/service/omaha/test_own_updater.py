"""The updater of ``docs/use/protocol.md``, run as a person would run it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.support.service import Service
from tests.support.service_examples import APP, make_app

PAGE = Path(__file__).parents[3] / "docs" / "use" / "protocol.md"
CONTENT = b"the new version"


@pytest.fixture
def updater(tmp_path: Path) -> Path:
    """The page's example, saved to a file."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert 40 >= sum(bool(line.strip()) for line in code.splitlines())
    path = tmp_path / "updater.py"
    path.write_text(code)
    return path


@pytest.fixture
def offering(service: Service) -> Service:
    """2.0.0 is there, as a stored payload."""
    make_app(service.store, versions=())
    api = f"{service.url}/api/v1"
    stored = requests.post(f"{api}/payloads", data=CONTENT, timeout=60).json()["sha256"]
    body = {"version": "2.0.0", "stored": stored, "name": "web.bin"}
    requests.post(f"{api}/apps/{APP}/packages", json=body, timeout=60).raise_for_status()
    service.store.channels.save(APP, "beta", version="2.0.0")
    return service


def run(updater: Path, service: Service, version: str, program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(updater), service.url, APP, "beta", "mine", version, "sh", "-c", program, "sh"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def history(service: Service) -> list[tuple[str, str, int]]:
    row = service.store.fleet.instance(APP, "mine")
    return [(one.version, one.event, one.error_code) for one in row.history]


def test_it_takes_an_update_and_then_has_nothing_to_do(updater: Path, offering: Service, tmp_path: Path) -> None:
    first = run(updater, offering, "1.0.0", f'cp "$1" {tmp_path}/installed; echo "got $2"')
    second = run(updater, offering, "2.0.0", "exit 9")

    assert (0, "got 2.0.0\n") == (first.returncode, first.stdout), first.stderr
    assert CONTENT == (tmp_path / "installed").read_bytes()
    assert (0, "no update: up to date\n") == (second.returncode, second.stdout), second.stderr
    told = [("1.0.0", "13:1", 0), ("1.0.0", "14:1", 0), ("1.0.0", "3:1", 0), ("2.0.0", "3:2", 0)]
    assert told == history(offering)
    row = offering.store.fleet.instance(APP, "mine")
    assert ("complete", "2.0.0") == (row.status, row.version)


def test_a_program_that_fails_is_reported(updater: Path, offering: Service) -> None:
    failed = run(updater, offering, "1.0.0", "exit 9")

    assert (1, "the program failed\n") == (failed.returncode, failed.stderr)
    assert ("1.0.0", "3:0", 5) == history(offering)[-1]
    assert "error" == offering.store.fleet.instance(APP, "mine").status


def test_a_payload_that_was_changed_is_not_run(updater: Path, offering: Service, tmp_path: Path) -> None:
    stored = offering.store.packages.get(APP, "2.0.0").sha256
    (path,) = (one for one in offering.payload_dir.rglob("*") if one.is_file() and stored in str(one))
    path.chmod(0o600)
    path.write_bytes(CONTENT[::-1])

    refused = run(updater, offering, "1.0.0", f"touch {tmp_path}/ran")

    assert 1 == refused.returncode
    assert "is not what the service has announced" in refused.stderr
    assert not (tmp_path / "ran").exists()
    assert ("1.0.0", "3:0", 10) == history(offering)[-1]
