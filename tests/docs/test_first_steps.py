"""docs/use/service.md, "From an empty etcd to a rolling group", typed as it stands: by bash, on this machine.

Only addresses and names that others on this machine could use, too, are replaced, and waits are shortened by settings.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.demo.fleet import end_workloads
from tests.support.servers import EtcdServer
from tests.support.terminal import Terminal
from tests.support.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs" / "use" / "service.md"
INSTANCES = ("a", "b", "c")


def blocks() -> dict[str, list[str]]:
    """The section's steps, ``1`` to ``4``: the code blocks of each."""
    section = PAGE.read_text().partition("## From an empty etcd to a rolling group\n")[2].partition("\n## ")[0]
    parts = re.split(r"^\*\*(\d)\. ", section, flags=re.MULTILINE)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    return {step: re.findall(r"```(?:toml)?\n(.*?)```", text, re.DOTALL) for step, text in found.items()}


@pytest.fixture
def terminal(etcd_server: EtcdServer, prefix: str, tmp_path: Path) -> Iterator[Terminal]:
    typed = Terminal(tmp_path, f"127.0.0.1:{etcd_server.port}", prefix.rstrip("/"))
    yield typed
    typed.close()
    for instance in INSTANCES:
        end_workloads(tmp_path / instance)


@pytest.mark.skipif(shutil.which("tar") is None, reason="the page's commands need tar")
def test_an_operator_who_follows_the_page_gets_a_group_that_rolls(terminal: Terminal) -> None:
    steps = blocks()
    assert ["1", "2", "3", "4"] == list(steps)

    def type_all(block: str) -> str:
        return [terminal.type(line) for line in block.splitlines()][-1]

    def all_run(version: str) -> bool:
        rows = [line.split() for line in terminal.type("outrider status example").splitlines()]
        found = {row[1]: row for row in rows if row[1:] and row[1] in INSTANCES}
        return len(found) == len(INSTANCES) and all(version in row and "idle.waiting" in row for row in found.values())

    service, init = steps["1"][0].rstrip().rpartition("\n")[::2]
    type_all(service)
    log = terminal.folder / "background-0.log"
    eventually(lambda: log.exists() and "outrider update service on " in log.read_text())
    type_all(init)
    type_all(steps["2"][0])
    (terminal.folder / "example.toml").write_text(terminal.replaced(steps["3"][0]))
    sidekicks, look = steps["3"][1], "outrider instance list-updates --app-id=example"
    type_all(sidekicks)
    eventually(lambda: all_run("1.0.0"), within_s=60, every_s=0.5)
    type_all(steps["4"][0])
    eventually(lambda: all_run("2.0.0"), within_s=120, every_s=0.5)

    rows = [line.split() for line in terminal.type(look).splitlines()[1:]]
    assert set(INSTANCES) == {word for row in rows for word in row if word in INSTANCES}
    assert len(rows) == len(INSTANCES)
    assert all("2.0.0" in row for row in rows)
