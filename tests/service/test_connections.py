"""What a connection of the service is set to, whichever HTTP server is below it."""

import http.client
import socket
from pathlib import Path

from tests.sim.fake_etcd import FakeCluster
from tests.support.service import RunningServer


def test_an_answer_never_waits_for_the_acknowledgement_of_its_header(client: FakeCluster, tmp_path: Path) -> None:
    with RunningServer(client, tmp_path / "payloads", "/outrider/v1") as running:
        caller = http.client.HTTPConnection(running.host, running.port, timeout=10)
        caller.request("GET", "/healthz")
        caller.getresponse().read()
        (connection,) = running.connections
        accepted = connection.transport.get_extra_info("socket")

        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        caller.close()
