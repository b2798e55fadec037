"""What a sidekick lets the fleet see of itself, from its settings on."""

import threading
from pathlib import Path

import pytest

from outrider.config.load import load_settings
from outrider.demo.programs import free_ports
from outrider.model.documents import Presence, decode
from outrider.model.keys import Keys
from outrider.sidekick.assemble import Assembly
from tests.sim.fake_etcd import FakeEtcd
from tests.support.waiting import eventually


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
