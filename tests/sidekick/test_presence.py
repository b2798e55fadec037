"""What a sidekick lets the fleet see of itself, from its settings on."""

import threading
from pathlib import Path

import pytest

from outrider.config.load import load_settings
from outrider.demo.programs import free_ports
from outrider.model.documents import Presence, decode
from outrider.model.keys import Keys
from outrider.sidekick.assemble import Assembly
from outrider.sidekick.presence import PresenceWriter
from tests.sim.fake_etcd import FakeEtcd
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON


@pytest.mark.parametrize("scope", ["", "eu"])
def test_a_sidekick_says_in_which_scope_it_takes_turns(tmp_path: Path, scope: str) -> None:
    (port,) = free_ports(1)
    path = tmp_path / "site.toml"
    path.write_text(
        f"""
        instance = {{id = "a", app = "SHOP", group = "web", state_dir = "{tmp_path}/state", balancer = "none"}}
        process = {{command = ["./server"]}}
        service = {{urls = ["http://127.0.0.1:{port}"]}}
        lock = {{scope = "{scope}"}}
        """
    )
    etcd, key = FakeEtcd(), Keys().presence("shop", "web", "a")
    sidekick = Assembly(load_settings((path,), {}).settings, cluster=etcd.client())
    running = threading.Thread(target=sidekick.run)
    running.start()
    try:
        entry = eventually(lambda: etcd.entries.get(key))
    finally:
        sidekick.stop()
        running.join(60)

    assert entry is not None
    assert scope == decode(Presence, key, entry.value).shared_scope


def test_what_is_noted_is_added_to_the_reason_until_another_note_comes() -> None:
    """The answers so far to a probe, while the machine rests in its state."""
    etcd = FakeEtcd()
    client = etcd.client()
    lease = client.grant(30)
    writer = PresenceWriter(client, "/p", lambda: lease)

    def why() -> str:
        entry = etcd.entries.get("/p")
        return decode(Presence, "/p", entry.value).why if entry is not None else ""

    shown = Presence(
        instance="a", app="shop", group="web", state="swapping.probing", version="2.0.0", wanted="3.0.0",
        why="3.0.0 must prove healthy", since=NOON,
    )  # fmt: skip
    try:
        writer.note("noted before there is anything to show")
        writer.show(shown)
        for note in ("47 of 47 answers were 500 (/health)", "48 of 48 answers were 500 (/health)"):
            writer.note(note)
            eventually(lambda note=note: f"3.0.0 must prove healthy: {note}" == why())  # type: ignore[misc]
        writer.note("")
        eventually(lambda: "3.0.0 must prove healthy" == why())
    finally:
        writer.close()
        client.close()
