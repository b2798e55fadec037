"""Three nodes of etcd, each in a container of its own, with their data in folders of the run."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from outrider.etcd.seam import Endpoint, EtcdAddress
from outrider.http import ask
from tests.partitions.containers import Container, Network
from tests.scenarios.machine import WITHIN_S
from tests.support.servers import etcd_binary
from tests.support.waiting import eventually

NUMBERS = (11, 12, 13)
"""Host numbers on the network."""


class EtcdCluster:
    """The nodes, in the order of their numbers."""

    def __init__(self, folder: Path, network: Network) -> None:
        """Start all; return when each serves."""
        self._folder, self._network = folder, network
        self.nodes = [self._start(number) for number in NUMBERS]
        self.await_all()

    @property
    def endpoints(self) -> list[str]:
        """As ``[etcd] endpoints`` has them."""
        return [f"{node.address}:2379" for node in self.nodes]

    @property
    def address(self) -> EtcdAddress:
        """How the test itself reaches it."""
        endpoints = tuple(Endpoint(host=node.address, port=2379) for node in self.nodes)
        return EtcdAddress(endpoints=endpoints, timeout_s=10.0)

    def await_all(self) -> None:
        """Wait until every node serves."""
        for node in self.nodes:
            self.await_node(node)

    @staticmethod
    def await_node(node: Container) -> None:
        """Wait until a node serves."""

        def serves() -> bool:
            if (words := node.ended()) is not None:
                raise RuntimeError(f"{node.name} has ended: {words}")
            answer = ask(f"http://{node.address}:2379/health", timeout_s=2.0)
            return answer is not None and answer.status == 200

        eventually(serves, WITHIN_S, every_s=0.1)

    def leader(self) -> Container:
        """The node that leads."""

        def found() -> Container | None:
            by_id: dict[int, Container] = {}
            leader = 0
            for node in self.nodes:
                said = json.loads(self._etcdctl(node, "endpoint status --write-out=json"))[0]["Status"]
                by_id[said["header"]["member_id"]], leader = node, said["leader"]
            return by_id.get(leader)

        node = eventually(found, WITHIN_S, every_s=0.2)
        assert node is not None
        return node

    def save(self) -> Path:
        """A snapshot of what is stored now."""
        snapshot = self._data(NUMBERS[0]).with_name("snapshot.db")
        self._etcdctl(self.nodes[0], f"snapshot save {snapshot}")
        return snapshot

    def restore(self, snapshot: Path) -> None:
        """End all nodes and start new ones on the snapshot, as etcd's manual says; return when each serves."""
        for node in self.nodes:
            node.kill()
        peers = self._peers()
        for number in NUMBERS:
            name, data = f"etcd{number}", self._data(number)
            shutil.rmtree(data)
            command: list[str | Path] = [etcd_binary().resolve().with_name("etcdutl"), "snapshot", "restore", snapshot]
            command += ["--data-dir", data, "--name", name, "--initial-advertise-peer-urls", peers[name]]
            command += ["--initial-cluster", _joined(peers), "--initial-cluster-token", self._network.run]
            subprocess.run(command, check=True, capture_output=True)
        for node in self.nodes:
            node.start()
        self.await_all()

    def _start(self, number: int) -> Container:
        name, peers = f"etcd{number}", self._peers()
        folder, client = self._data(number).parent, f"http://{self._network.address(number)}:2379"
        folder.mkdir(parents=True)
        command: list[str | Path] = [
            *(etcd_binary().resolve(), "--name", name, "--data-dir", self._data(number)),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name]),
            *("--initial-cluster", _joined(peers), "--initial-cluster-token", self._network.run),
            # three members share few cores with all the rest: a slow moment is no reason for an election
            *("--heartbeat-interval", "100", "--election-timeout", "1500"),
            *("--log-level", "warn", "--unsafe-no-fsync"),
        ]
        return self._network.add(name, number, command, folders=[folder])

    def _data(self, number: int) -> Path:
        return self._folder / f"etcd{number}" / "data"

    def _peers(self) -> Mapping[str, str]:
        """Name of a node -> where the others reach it."""
        return {f"etcd{number}": f"http://{self._network.address(number)}:2380" for number in NUMBERS}

    @staticmethod
    def _etcdctl(node: Container, line: str) -> str:
        """What etcdctl prints on a node, which it asks alone."""
        program = etcd_binary().resolve().with_name("etcdctl")
        return node.run(f"ETCDCTL_API=3 {program} --endpoints=http://{node.address}:2379 {line}")


def _joined(peers: Mapping[str, str]) -> str:
    return ",".join(f"{name}={url}" for name, url in peers.items())
