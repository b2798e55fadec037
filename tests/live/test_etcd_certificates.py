"""A fleet whose programs prove themselves to etcd by client certificates, and share one queue over two groups."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trustme

from outrider.balancers.entry import ensure_static
from outrider.balancers.traefik import TraefikKeys, TraefikSettings
from outrider.demo.fleet import APP_ID, GROUP, HOST, OUTRIDER, QUICK, SERVICE
from outrider.demo.programs import Program, free_ports, start_etcd, start_traefik
from outrider.etcd.client import EtcdCluster, connect
from outrider.etcd.seam import Delete, EtcdAddress, PermissionDenied, Put
from outrider.etcd.users import EtcdUsers
from outrider.http import ask
from outrider.model.keys import shared_scope
from tests.live.live_fixture import LiveFixture
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

INSTANCES = ("web-a", "web-b")
SCOPE = "rack-1"


class CertifiedFixture(LiveFixture):
    """Nobody has a password: whoever holds the key of a certificate with a user's name is that user."""

    def start(self) -> None:
        self.authority = trustme.CA()
        self.ca = self.folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.issue("server", "127.0.0.1", "localhost")
        self.issue("root")
        self.etcd = self._keep(
            start_etcd(self.folder, ca_file=self.ca, cert_file=self.pem("server"), key_file=self.key("server"))
        )
        eventually(self._serves, within_s=60)
        common = self.folder / "common.toml"
        common.write_text(
            f'[service]\nurls = ["http://127.0.0.1:1"]\n[process]\ncommand = ["x"]\n[balancer]\nservice = "{SERVICE}"\n'
            f"[traefik]\nrule = 'Host(`{HOST}`)'\n[lock]\nscope = \"{SCOPE}\"\n"
        )
        self.outrider(
            *("database", "roles", "--create", "--no-password", f"--config={common}", "--balancer-keys=traefik/"),
            *("--slots=2", *(f"--sidekick={APP_ID}/{GROUP}/{instance}" for instance in self.instances)),
        )
        users = EtcdUsers(self.address_of("root"))
        users.make_user("root", None)
        users.give_role("root", "root")
        users.enable()
        users.close()
        for user in ("outrider-service", "outrider-status", "balancer-traefik", *map(self.user_of, self.instances)):
            self.issue(user)
        self.cluster = connect(self.address_of("root"))
        ensure_static(self.cluster, TraefikKeys(TraefikSettings(rule=f"Host(`{HOST}`)"), service=SERVICE))
        self.traefik = self._keep(
            start_traefik(
                self.folder,
                self.etcd.endpoint,
                ca_file=self.ca,
                cert_file=self.pem("balancer-traefik"),
                key_file=self.key("balancer-traefik"),
            )
        )
        self.start_service()
        self.traefik.wait_ready()
        self.web_url = self.traefik.web_url

    def _serves(self) -> bool:
        cluster = connect(self.address_of("root"))
        try:
            return cluster.get("/nothing") is None
        except Exception:  # noqa: BLE001 - whatever it is, it isn't there yet
            return False
        finally:
            cluster.close()

    def pem(self, user: str) -> Path:
        return self.folder / f"{user}.pem"

    def key(self, user: str) -> Path:
        return self.folder / f"{user}.key"

    def issue(self, user: str, *names: str) -> None:
        """A new certificate of a user, in place of the one before."""
        issued = self.authority.issue_cert(*(names or (f"{user}.example.org",)), common_name=user)
        issued.private_key_pem.write_to_path(str(self.key(user)))
        self.pem(user).write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))

    def user_of(self, instance: str) -> str:
        return f"sidekick-{APP_ID}-{instance}"

    def address_of(self, user: str) -> EtcdAddress:
        return EtcdAddress(
            endpoints=(self.etcd.endpoint,),
            ca_file=str(self.ca),
            cert_file=str(self.pem(user)),
            key_file=str(self.key(user)),
        )

    def connect_as(self, user: str) -> EtcdCluster:
        return connect(self.address_of(user))

    def command_environment(self) -> Mapping[str, str]:
        return {**super().command_environment(), **self.environment_of("root")}

    def environment_of(self, user: str) -> dict[str, str]:
        return {
            "OUTRIDER_ETCD_CA_FILE": str(self.ca),
            "OUTRIDER_ETCD_CERT_FILE": str(self.pem(user)),
            "OUTRIDER_ETCD_KEY_FILE": str(self.key(user)),
        }

    def start_service(self) -> None:
        self.service_url = f"http://127.0.0.1:{free_ports(1)[0]}"
        user = "outrider-service"
        command: list[str | Path] = [*OUTRIDER, "serve", "--listen", self.service_url.removeprefix("http://")]
        command += ["--etcd", self.endpoint, "--etcd-ca-file", self.ca, "--socket", self.socket]
        command += ["--etcd-cert-file", self.pem(user), "--etcd-key-file", self.key(user)]
        command += ["--payload-dir", self.folder / "payloads"]
        self.service = self._keep(Program("service", command, self.folder, ready=self.is_ready))
        self.service.wait_ready()

    def is_ready(self) -> bool:
        """The service reaches etcd."""
        answer = ask(f"{self.service_url}/readyz", timeout_s=5.0)
        return answer is not None and answer.status == 200

    def _config(self, instance: str) -> str:
        user, kept = self.user_of(instance), self._settings
        proof = {"ca_file": self.ca, "cert_file": self.pem(user), "key_file": self.key(user)}
        self._settings = {**kept, "etcd": proof, "lock": {**kept.get("lock", {}), "scope": SCOPE}}
        try:
            return super()._config(instance).replace("[traefik]\n", f"[traefik]\nrule = 'Host(`{HOST}`)'\n")
        finally:
            self._settings = kept


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CertifiedFixture]:
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    made = CertifiedFixture(tmp_path, INSTANCES, settings=QUICK)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def refused(cluster: EtcdCluster, *ops: Put | Delete) -> str:
    with pytest.raises(PermissionDenied) as caught:
        cluster.txn((), ops)
    return str(caught.value)


def test_certificates_are_users_and_are_read_again(fixture: CertifiedFixture) -> None:
    """
    1. service and sidekicks, each by its certificate, install a release; the sidekicks take turns in a shared queue
    2. nobody was refused anything
    3. one sidekick ends no turn of the other in the shared queue, nor takes one or blocks in its name
    4. who may read reads the status, and writes nothing
    5. every certificate is replaced and etcd starts again: all go on, with an update
    """
    fixture.create(slots=2)
    for instance in fixture.instances:
        fixture.start_sidekick(instance)
    eventually(lambda: fixture.expect_all_on("1.0.0"), within_s=180, every_s=0.2)

    logs = {one.name: one.log.read_text() for one in (fixture.service, *fixture.sidekicks.values())}
    assert {} == {name: text for name, text in logs.items() if "permission denied" in text}
    keys, scope = fixture.keys, shared_scope(SCOPE)
    mallory = fixture.connect_as(fixture.user_of("web-a"))
    try:
        member = f"{APP_ID}/web-b"
        for key in (
            keys.slot(scope, 0, member),
            keys.waiter(scope, member),
            keys.ticket(scope, member),
            keys.verdict(APP_ID, "web-b", "1.0.0"),
            keys.grant(APP_ID, GROUP, "web-b"),
            keys.presence(APP_ID, GROUP, "web-b"),
        ):
            assert f"write of {key}" in refused(mallory, Delete(key=key))
            assert f"write of {key}" in refused(mallory, Put(key=key, value=b"{}"))
    finally:
        mallory.close()
    reader = fixture.connect_as("outrider-status")
    try:
        assert reader.list(keys.presences(APP_ID)).entries
        assert "write of" in refused(reader, Delete(key=keys.presence(APP_ID, GROUP, "web-b")))
        with pytest.raises(PermissionDenied):
            reader.list(keys.users())
    finally:
        reader.close()

    for user in ("outrider-service", "root", *map(fixture.user_of, fixture.instances)):
        fixture.issue(user)
    fixture.cluster.close()
    restart(fixture)
    fixture.cluster = fixture.connect_as("root")
    eventually(fixture.is_ready, within_s=120, every_s=0.5)
    fixture.publish("2.0.0")
    eventually(lambda: fixture.expect_all_on("2.0.0"), within_s=180, every_s=0.2)


def restart(fixture: CertifiedFixture) -> None:
    """End etcd and start it again on its data."""
    command = [word.decode() for word in Path(f"/proc/{fixture.etcd.pid}/cmdline").read_bytes().split(b"\0")[:-1]]
    fixture.etcd.kill()
    fixture._keep(Program("etcd", command, fixture.folder))
    eventually(fixture._serves, within_s=60)
