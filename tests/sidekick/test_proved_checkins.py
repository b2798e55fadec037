"""A whole sidekick and the real update service over one etcd: its check-ins are proved, and a stranger's are not."""

import threading
from pathlib import Path

import requests

from outrider.config.load import load_settings
from outrider.core.errors import NotFound
from outrider.model.documents import Instance
from outrider.sidekick.assemble import Assembly
from tests.sim.fake_etcd import FakeEtcd
from tests.support.service import RunningServer
from tests.support.service_examples import APP, make_app, open_store
from tests.support.waiting import eventually


def test_a_sidekick_is_believed_from_its_first_check_in_on_and_nobody_else_in_its_name(tmp_path: Path) -> None:
    """
    1. a sidekick starts, and checks in: the row is proved, and the group asks for proofs from now on
    2. a stranger reports in its name that it runs something else: nothing changes
    """
    etcd = FakeEtcd()
    store = open_store(etcd.client("test"))
    make_app(store, version=None)
    path = tmp_path / "site.toml"

    def row() -> Instance | None:
        try:
            return store.fleet.instance(APP, "a")
        except NotFound:
            return None

    with RunningServer(etcd.client("service"), tmp_path / "payloads", "/outrider/v1") as running:
        path.write_text(
            f"""
            instance = {{id = "a", app = "{APP}", group = "beta", state_dir = "{tmp_path}/state", balancer = "none"}}
            process = {{command = ["./server"]}}
            service = {{urls = ["{running.url}"]}}
            """
        )

        sidekick = Assembly(load_settings((path,), {}).settings, cluster=etcd.client())
        thread = threading.Thread(target=sidekick.run)
        thread.start()
        try:
            first = eventually(row)
        finally:
            sidekick.stop()
            thread.join(60)
        assert first is not None
        body = (
            f'<request protocol="3.0"><app appid="{APP}" track="beta" machineid="a" version="6.6.6">'
            '<event eventtype="3" eventresult="2"/><updatecheck/></app></request>'
        )
        stranger = requests.post(f"{running.url}/v1/update", data=body, timeout=60).text
        after = row()

    assert (True, True) == (first.proved, store.groups.get(APP, "beta").requires_identity)
    assert "unproved check-in" in stranger
    assert first == after
