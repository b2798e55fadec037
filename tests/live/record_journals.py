"""Records ``tests/data/journals`` anew, from real sidekicks: ``python -m tests.live.record_journals``.

Each journal is of one instance from its first install on. Ports differ from run to run, so they are numbered in the
order in which they come; nothing else is changed.
"""

import os
import re
import tempfile
from pathlib import Path

import msgspec

from outrider.core.sidekick.memory import Strategy
from outrider.journal.journal import Journal, Record, read
from tests.live.killed_fixture import KilledFixture, Life
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

JOURNALS = Path(__file__).parents[1] / "data" / "journals"
FIRST_PORT = 9001


class Recorded(Life):
    """An ordinary instance's name, whatever happens to its sidekick."""

    @property
    def name(self) -> str:
        return "web-a"


def main() -> None:
    os.environ["OUTRIDER_DEMO_ETCD"] = str(etcd_binary())
    _record("good_update", "good", "start-first", ())
    _record("good_update_stop_first", "good", "stop-first", ())
    _record("bad_release", "unhealthy", "start-first", ())
    _record("killed_in_soaking", "good", "start-first", ("swapping.soaking",))


def _record(name: str, release: str, strategy: Strategy, kills: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        life = Recorded(kills, release, strategy)
        fixture = KilledFixture(Path(folder), (life,), odd_acts=True)
        try:
            fixture.bring_up()
            if kills:
                fixture.arm()
            fixture.publish("2.0.0", release)
            if kills:
                eventually(fixture.restart_the_dead, within_s=60, every_s=0.1)
            wanted = "2.0.0" if release == "good" else "1.0.0"
            eventually(
                lambda: fixture.expect_all_on(wanted) and (release == "good" or fixture.blocked()),
                within_s=60,
                every_s=0.2,
            )
        finally:
            fixture.stop()
        records = read(fixture.state_dir(life.name) / "journal.jsonl")
        _write(name, _numbered(records), folder)


def _numbered(records: list[Record]) -> list[Record]:
    text = msgspec.json.encode(records).decode()
    ports = dict.fromkeys(re.findall(r"127\.0\.0\.1:(\d+)", text))
    for number, port in enumerate(ports, start=FIRST_PORT):
        text = re.sub(rf"127\.0\.0\.1:{port}\b", f"127.0.0.1:port-{number}", text)
    return msgspec.json.decode(text.replace("127.0.0.1:port-", "127.0.0.1:"), type=list[Record])


def _write(name: str, records: list[Record], folder: str) -> None:
    with tempfile.TemporaryDirectory() as fresh:
        journal = Journal(Path(fresh))
        for record in records:
            journal.append(record)
        journal.close()
        content = journal.path.read_bytes()
    assert folder.encode() not in content, f"{name}: a path of this machine is in the journal"
    JOURNALS.mkdir(parents=True, exist_ok=True)
    (JOURNALS / f"{name}.jsonl").write_bytes(content)


if __name__ == "__main__":
    main()
