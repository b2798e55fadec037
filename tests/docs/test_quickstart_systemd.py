"""docs/use/quickstart-systemd.md, typed as it stands: by bash, with a machine of its own whose systemd runs the app.

Service and sidekicks run here, and reach that systemd over its D-Bus; ``systemctl`` and ``journalctl`` ask there. Only
addresses are replaced.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.core.errors import OutriderError
from outrider.demo.programs import find_etcd, free_ports
from tests.support.requirements import skip_or_fail
from tests.support.systemd_machine import SystemdMachine, systemd_machine
from tests.support.terminal import Terminal, blocks_of, typed_blocks
from tests.support.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs" / "use" / "quickstart-systemd.md"
NAMES = ("web-1", "web-2", "web-3")
UNIT = re.compile(
    r"^outrider-app-(web-\d)@\1-(\d\.\d\.\d)-[0-9a-f]+\.service +loaded +active +running +hello \2 \(\1\)$"
)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[SystemdMachine]:
    found = systemd_machine(tmp_path)
    yield found
    found.clean()


@pytest.fixture
def terminal(tmp_path: Path, machine: SystemdMachine) -> Iterator[Terminal]:
    try:
        find_etcd()
    except OutriderError as error:
        skip_or_fail(str(error))
    shutil.copytree(PAGE.parent / "examples", tmp_path / "docs/use/examples")
    etcd, service = (f"127.0.0.1:{port}" for port in free_ports(2))
    typed = Terminal(
        tmp_path,
        etcd,
        "/outrider/v1",
        {
            "OUTRIDER_ETCD": etcd,
            "OUTRIDER_SERVE_LISTEN": service,
            "OUTRIDER_SERVICE_URLS": f"http://{service}",
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={machine.socket}",
        },
        programs=machine.programs("systemctl"),
    )
    yield typed
    with contextlib.suppress(AssertionError):
        typed.type("kill -TERM $(jobs -p); wait")
    typed.close()


def test_the_systemd_quickstart_leads_to_three_services_that_roll(terminal: Terminal) -> None:
    """
    1. the group is made, and systemd runs three units of 1.0.0, as the page shows one
    2. one changed line: it runs three units of 2.0.0, and no other
    3. the clean-up leaves no unit behind
    """
    start, look, roll, clean = typed_blocks(PAGE)

    def running() -> list[tuple[str, str]]:
        """Instance and version of each unit, by the page's own ``systemctl``."""
        lines = [line.strip() for line in terminal.type(look[0]).splitlines() if line.strip()]
        found = [UNIT.match(line) for line in lines]
        assert all(found), lines
        return sorted((one[1], one[2]) for one in found if one)

    setup, serve, apply, sidekicks, wait = start
    assert setup.startswith("make setup ")
    terminal.type(serve)
    log = terminal.folder / "background-0.log"
    eventually(lambda: log.exists() and "outrider update service on " in log.read_text(), within_s=60)
    assert "applied 5 changes" in terminal.type(apply)
    terminal.type(sidekicks)
    assert "group web: 1.0.0 finished, 3 updated" in terminal.type(wait)

    assert [UNIT.match(line) is not None for line in blocks_of(PAGE, "text")[0]] == [True]
    assert [(name, "1.0.0") for name in NAMES] == running()
    rows = [line.split() for line in terminal.type(look[1]).splitlines() if " web-" in line]
    assert [["web", name, "idle.waiting", "1.0.0"] for name in NAMES] == [row[:4] for row in rows]

    terminal.type(roll[0])
    assert "version: 1.0.0 -> 2.0.0\n" in terminal.type(roll[1])
    assert "group web: 2.0.0 finished, 3 updated" in terminal.type(roll[2])
    assert roll[3] == look[0]
    assert [(name, "2.0.0") for name in NAMES] == running()

    terminal.type(clean[0])
    eventually(lambda: running() == [], within_s=60, every_s=0.5)
