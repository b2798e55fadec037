"""docs/use/quickstart.md, typed as it stands: by bash, on this machine, with an etcd and three sidekicks.

Only addresses are replaced that others on this machine could use, too.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.core.errors import OutriderError
from outrider.demo.fleet import end_workloads
from outrider.demo.programs import find_etcd, free_ports
from tests.support.requirements import skip_or_fail
from tests.support.terminal import Terminal, typed_blocks
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "use" / "quickstart.md"
MOST = 5


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "docs" / "use").mkdir(parents=True)
    shutil.copytree(PAGE.parent / "examples", tmp_path / "docs" / "use" / "examples")
    etcd, service = (f"127.0.0.1:{port}" for port in free_ports(2))
    addresses = {
        "OUTRIDER_ETCD": etcd,
        "OUTRIDER_SERVE_LISTEN": service,
        "OUTRIDER_SERVICE_URLS": f"http://{service}",
    }
    typed = Terminal(tmp_path, etcd, "/outrider/v1", addresses)
    yield typed
    typed.type("kill -TERM $(jobs -p); wait")
    typed.close()
    for state in (tmp_path / "outrider-sidekicks").glob("*/*/state/*"):
        end_workloads(state)


def test_five_commands_and_one_file_lead_to_a_group_of_three_that_rolls(terminal: Terminal) -> None:
    try:
        find_etcd()
    except OutriderError as error:
        skip_or_fail(str(error))
    first, look, roll = typed_blocks(PAGE)
    set_up, serve, apply, sidekicks, wait = first
    assert len(first) <= MOST
    assert set_up.startswith("make setup ")
    subprocess.run(["make", "--dry-run", "setup"], cwd=ROOT, check=True, capture_output=True, timeout=60)

    terminal.type(serve)
    log = terminal.folder / "background-0.log"
    eventually(lambda: log.exists() and "outrider update service on " in log.read_text(), within_s=60)
    assert "applied 5 changes" in terminal.type(apply)
    terminal.type(sidekicks)
    assert "group web: 1.0.0 finished, 3 updated" in terminal.type(wait)

    overview, status, why = (terminal.type(line) for line in look)
    assert re.search(r"^Hello +web +1\.0\.0 +3 of 3 serve", overview, re.MULTILINE)
    rows = [line.split() for line in status.splitlines() if " web-" in line]
    assert [["web", f"web-{number}", "idle.waiting", "1.0.0"] for number in (1, 2, 3)] == [row[:4] for row in rows]
    assert why.startswith("web-1 of hello, group web: idle.waiting")

    terminal.type(roll[0])
    shown = terminal.type(roll[1])
    assert "~ channel hello/stable  (3 instances in web)\n    version: 1.0.0 -> 2.0.0\n" in shown
    assert "group web: 2.0.0 finished, 3 updated" in terminal.type(roll[2])
    assert "nothing to change" in terminal.type(apply)
    turns = terminal.type("outrider lock list --json")
    assert "held" not in turns
