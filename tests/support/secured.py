"""A fleet with all that docs/use/security.md offers: users and TLS in etcd, https, required identity, signatures."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import requests

from outrider.balancers.entry import ensure_static
from outrider.balancers.traefik import TraefikKeys, TraefikSettings
from outrider.cli.rest_client import ServiceClient
from outrider.demo.fleet import APP_ID, GROUP, HOST, OUTRIDER, SERVICE
from outrider.demo.programs import Etcd, Program, find_etcd, free_ports, start_traefik
from outrider.etcd.client import EtcdCluster, connect
from outrider.etcd.seam import Endpoint, EtcdAddress
from outrider.etcd.users import EtcdUsers
from tests.live.live_fixture import LiveFixture
from tests.support.servers import TlsFiles, etcdctl_binary, make_tls_files

ROOT = "rootpw"


class SecuredFixture(LiveFixture):
    """Put before a class of fixtures: the same fleet, secured. Operators have a token, sidekicks users of their own."""

    slots: ClassVar[int] = 2
    """Turns for which sidekicks get a role."""

    tls: TlsFiles
    token = ""
    is_guarded = False
    """etcd asks for users already."""

    def start(self) -> None:
        self.tls = make_tls_files(self.folder / "tls")
        self.etcd = self._keep(self._start_etcd())
        self.etcd.wait_ready()
        self._make_users()
        self.cluster = connect(self.address_of("root", ROOT))
        ensure_static(self.cluster, TraefikKeys(TraefikSettings(rule=f"Host(`{HOST}`)"), service=SERVICE))
        self.traefik = self._keep(
            start_traefik(
                self.folder,
                self.etcd.endpoint,
                ca_file=self.tls.ca,
                user="balancer-traefik",
                password=self.password_of("balancer-traefik"),
            )
        )
        self.key_file = self.folder / "release.key"
        self.outrider("key", "create", str(self.key_file))
        self.start_service()
        self.token = json.loads(self.outrider("database", "init", "--name=ann", "--json"))["token"]
        self.traefik.wait_ready()
        self.web_url = self.traefik.web_url

    def _start_etcd(self) -> Etcd:
        client, peer = free_ports(2)
        url, peer_url = f"https://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        command: list[str | Path] = [
            *(find_etcd(), "--name", "demo", "--data-dir", self.folder / "etcd"),
            *("--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
            *("--initial-cluster", f"demo={peer_url}", "--log-level", "warn", "--unsafe-no-fsync"),
            *("--cert-file", self.tls.cert, "--key-file", self.tls.key),
        ]

        def healthy() -> bool:
            try:
                return requests.get(f"{url}/health", verify=str(self.tls.ca), timeout=5).ok
            except requests.RequestException:
                return False

        etcd = Etcd("etcd", command, self.folder, ready=healthy)
        etcd.endpoint = Endpoint(host="127.0.0.1", port=client)
        return etcd

    def _make_users(self) -> None:
        self.passwords = self.folder / "passwords"
        common = self.folder / "common.toml"
        common.write_text(
            f'[service]\nurls = ["http://127.0.0.1:1"]\n[process]\ncommand = ["x"]\n[balancer]\nservice = "{SERVICE}"\n'
            f"[traefik]\nrule = 'Host(`{HOST}`)'\n"
        )
        self.outrider(
            *("database", "roles", "--create", f"--password-dir={self.passwords}", f"--config={common}"),
            *("--balancer-keys=traefik/", f"--slots={self.slots}"),
            *(f"--sidekick={APP_ID}/{GROUP}/{instance}" for instance in self.instances),
        )
        users = EtcdUsers(self.address_of())
        users.make_user("root", ROOT)
        users.give_role("root", "root")
        users.enable()
        users.close()
        root = self.passwords / "root"
        root.write_text(ROOT)
        root.chmod(0o600)
        self.is_guarded = True

    def password_of(self, user: str) -> str:
        return (self.passwords / user).read_text().strip()

    def user_of(self, instance: str) -> str:
        return f"sidekick-{APP_ID}-{instance}"

    def address_of(self, user: str | None = None, password: str | None = None) -> EtcdAddress:
        return EtcdAddress(endpoints=(self.etcd.endpoint,), ca_file=str(self.tls.ca), user=user, password=password)

    def connect_as(self, user: str) -> EtcdCluster:
        """As the holder of a user's password alone."""
        return connect(replace(self.address_of(), user=user, password=self.password_of(user)))

    def connect_service(self) -> ServiceClient:
        return ServiceClient(self.operators_url, token=self.token)

    def command_environment(self) -> Mapping[str, str]:
        found = {**super().command_environment(), "OUTRIDER_TOKEN": self.token}
        found["OUTRIDER_ETCD_CA_FILE"] = str(self.tls.ca)
        if self.is_guarded:
            found["OUTRIDER_ETCD_USER"] = "root"
            found["OUTRIDER_ETCD_PASSWORD_FILE"] = str(self.passwords / "root")
        return found

    def start_service(self) -> None:
        if not self.service_url:
            self.service_url = f"https://127.0.0.1:{free_ports(1)[0]}"
        command: list[str | Path] = [*OUTRIDER, "serve", "--listen", self.service_url.removeprefix("https://")]
        command += ["--etcd", self.endpoint, "--etcd-ca-file", self.tls.ca, "--socket", self.socket]
        command += ["--payload-dir", self.folder / "payloads", "--tls-cert", self.tls.cert, "--tls-key", self.tls.key]
        command += ["--etcd-user=outrider-service", f"--etcd-password-file={self.passwords / 'outrider-service'}"]

        def answers() -> bool:
            try:
                return requests.get(f"{self.service_url}/readyz", verify=str(self.tls.ca), timeout=5).ok
            except requests.RequestException:
                return False

        self.service = self._keep(Program("service", command, self.folder, ready=answers))
        self.service.wait_ready()

    def create(self, slots: int = 1) -> None:
        super().create(slots)
        self.outrider("group", "update", f"--app-id={APP_ID}", f"--group-id={GROUP}", "--identity=required")

    def sign(self, version: str) -> None:
        self.outrider(
            *("package", "sign", f"--app-id={APP_ID}", f"--version={version}"),
            *(f"--private-key={self.key_file}", "--any-environment"),
        )

    def etcd_control(self, *arguments: str) -> None:
        """Run ``etcdctl`` as root."""
        command = [str(etcdctl_binary()), "--endpoints", f"https://{self.endpoint}", "--cacert", str(self.tls.ca)]
        command += ["--user", f"root:{ROOT}", *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=60, env=os.environ | {"ETCDCTL_API": "3"})

    def refusals(self) -> dict[str, str]:
        """What etcd did not permit, by program: each line of a log that says so."""
        found = {}
        for log in sorted(self.folder.glob("*.log")):
            lines = [line for line in log.read_text(errors="replace").splitlines() if "permission denied" in line]
            if lines:
                found[log.name] = lines[0][:600]
        return found

    def _config(self, instance: str) -> str:
        user, kept = self.user_of(instance), self._settings
        mine: dict[str, dict[str, object]] = {
            "etcd": {"ca_file": self.tls.ca, "user": user, "password_file": self.passwords / user},
            "service": {"ca_file": self.tls.ca},
            "trust": {"keys": [f"{self.key_file}.pub"]},
        }
        self._settings = {
            **kept, **{section: {**kept.get(section, {}), **values} for section, values in mine.items()}
        }  # fmt: skip
        try:
            return super()._config(instance)
        finally:
            self._settings = kept


__all__ = ["SecuredFixture"]
