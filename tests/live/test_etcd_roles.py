"""A fleet on an etcd that asks for users, each with the role that `outrider database roles` makes, and no more."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outrider.demo.fleet import APP_ID, GROUP, OUTRIDER, QUICK, SERVICE
from outrider.demo.programs import Program, free_ports, start_etcd
from outrider.etcd.client import EtcdCluster, connect
from outrider.etcd.seam import Cluster, Delete, EtcdAddress, PermissionDenied, Put
from outrider.etcd.users import EtcdUsers
from outrider.http import ask
from outrider.model.keys import group_scope
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

INSTANCES = ("web-a", "web-b")
ROOT = "rootpw"


class GuardedFixture(LiveFixture):
    """Everybody signs in: the service, and each sidekick as itself. Nothing reads the balancer's keys."""

    def start(self) -> None:
        self.etcd = self._keep(start_etcd(self.folder))
        self.etcd.wait_ready()
        self.passwords = self.folder / "passwords"
        common = self.folder / "common.toml"
        common.write_text(
            f'[service]\nurls = ["http://127.0.0.1:1"]\n[process]\ncommand = ["x"]\n[balancer]\nservice = "{SERVICE}"\n'
        )
        named = [f"--sidekick={APP_ID}/{GROUP}/{instance}" for instance in self.instances]
        self.outrider(
            *("database", "roles", "--create", f"--password-dir={self.passwords}", f"--config={common}"),
            *("--balancer-keys=traefik/", "--slots=2", *named),
        )
        root = EtcdAddress(endpoints=(self.etcd.endpoint,))
        users = EtcdUsers(root)
        users.make_user("root", ROOT)
        users.give_role("root", "root")
        assert not users.are_asked_for()
        users.enable()
        assert users.are_asked_for()
        users.close()
        self.cluster = connect(replace(root, user="root", password=ROOT))
        self.start_service()

    def start_service(self) -> None:
        self.service_url = f"http://127.0.0.1:{free_ports(1)[0]}"
        command = [*OUTRIDER, "serve", "--listen", self.service_url.removeprefix("http://"), "--etcd", self.endpoint]
        command += ["--socket", str(self.socket), "--payload-dir", str(self.folder / "payloads")]
        command += ["--etcd-user=outrider-service", f"--etcd-password-file={self.passwords / 'outrider-service'}"]

        def answers() -> bool:
            answer = ask(f"{self.service_url}/readyz", timeout_s=5.0)
            return answer is not None and answer.status == 200

        self.service = self._keep(Program("service", command, self.folder, ready=answers))
        self.service.wait_ready()

    def user_of(self, instance: str) -> str:
        return f"sidekick-{APP_ID}-{instance}"

    def connect_as(self, user: str) -> EtcdCluster:
        password = (self.passwords / user).read_text().strip()
        return connect(EtcdAddress(endpoints=(self.etcd.endpoint,), user=user, password=password))

    def _config(self, instance: str) -> str:
        user = self.user_of(instance)
        signing_in = {"user": user, "password_file": str(self.passwords / user)}
        self._settings = {**QUICK, "etcd": {"endpoints": [self.endpoint], **signing_in}, "traefik": {"throttle_s": 0.1}}
        self.balancer = ""
        text = super()._config(instance)
        return text.replace('balancer = "agent"\n', 'balancer = "traefik"\n')


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[GuardedFixture]:
    etcd_binary()
    made = GuardedFixture(tmp_path, INSTANCES)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def denied(cluster: Cluster, *ops: Put | Delete) -> str:
    """What etcd says to a write that it doesn't permit."""
    with pytest.raises(PermissionDenied) as caught:
        cluster.txn((), ops)
    return str(caught.value)


def test_each_user_of_a_fleet_has_what_it_needs_and_no_more(fixture: GuardedFixture) -> None:
    """
    1. service and sidekicks, each with a user of its own, install a release, update to the next, and block a bad one
    2. nobody of them was refused anything
    3. one sidekick's user ends no turn of the other, writes no entry, no presence and no command of it
    4. what was refused names the key, the user and the role
    """
    fixture.create(slots=2)
    for instance in fixture.instances:
        fixture.start_sidekick(instance)
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=60, every_s=0.2)
    fixture.publish("2.0.0")
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=60, every_s=0.2)
    fixture.publish("3.0.0", "unhealthy")
    eventually(lambda: fixture.blocked() == ["3.0.0"], within_s=60, every_s=0.2)
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=60, every_s=0.2)

    logs = {one.name: one.log.read_text() for one in (fixture.service, *fixture.sidekicks.values())}
    assert {} == {name: text for name, text in logs.items() if "permission" in text}
    assert {""} == {one.notice for one in fixture.presences().values()}

    keys, scope = fixture.keys, group_scope(APP_ID, GROUP)
    mallory = fixture.connect_as(fixture.user_of("web-a"))
    try:
        entry = f"traefik/http/services/{SERVICE}/loadbalancer/servers/web-b/url"
        assert fixture.cluster.get(entry) is not None, "the entry is there to be attacked"
        others = (
            keys.slot(scope, 0, "web-b"),
            keys.waiter(scope, "web-b"),
            keys.presence(APP_ID, GROUP, "web-b"),
            keys.command(APP_ID, "web-b"),
            keys.server(SERVICE, "web-b"),
            keys.gone(APP_ID, "web-b"),
            keys.verdict(APP_ID, "web-b", "2.0.0"),
            keys.target(APP_ID, GROUP),
            entry,
        )
        for key in others:
            who = f"user {fixture.user_of('web-a')} (role {fixture.user_of('web-a')})"
            assert f"etcd permits {who} no write of {key}: permission denied" in denied(mallory, Delete(key=key))
            assert f"write of {key}" in denied(mallory, Put(key=key, value=b"{}"))
        with pytest.raises(PermissionDenied, match=rf"no read of {keys.users()}\*"):
            mallory.list(keys.users())
        with pytest.raises(PermissionDenied, match=rf"no read of {keys.prefix}\*"):
            mallory.watch(keys.prefix, 1, lambda _: None)
    finally:
        mallory.close()
