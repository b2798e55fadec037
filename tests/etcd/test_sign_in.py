"""Signing in at an etcd that takes its time: a crowd after a restart, each with a password to hash."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from etcd3 import etcdrpc

from outrider.core.errors import Unknown
from outrider.etcd.client import connect
from outrider.etcd.seam import Endpoint, EtcdAddress
from tests.support.waiting import eventually


class SlowEtcd(etcdrpc.AuthServicer, etcdrpc.MaintenanceServicer, etcdrpc.KVServicer):  # type: ignore[misc]
    """As much of etcd as signing in needs. It answers a sign-in once ``may_answer`` is set."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.attempts = 0

    def Status(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        return etcdrpc.StatusResponse(version="3.5.16", leader=1)

    def Authenticate(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.attempts += 1
        self.may_answer.wait(60)
        return etcdrpc.AuthenticateResponse(token="the-token")

    def Range(self, request: Any, context: Any) -> Any:  # noqa: N802
        if ("token", "the-token") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
        return etcdrpc.RangeResponse(header=etcdrpc.ResponseHeader(revision=7))


@pytest.fixture
def slow() -> Iterator[tuple[SlowEtcd, int]]:
    etcd, server = SlowEtcd(), grpc.server(ThreadPoolExecutor(max_workers=8))
    etcdrpc.add_AuthServicer_to_server(etcd, server)
    etcdrpc.add_MaintenanceServicer_to_server(etcd, server)
    etcdrpc.add_KVServicer_to_server(etcd, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield etcd, port
    etcd.may_answer.set()
    server.stop(None).wait()


def test_a_sign_in_outlives_the_calls_that_wait_for_it(slow: tuple[SlowEtcd, int]) -> None:
    """
    1. etcd takes longer to sign somebody in than a call may take
    2. call after call ends in time, and all of them have waited for one attempt
    3. etcd answers: the next call has its token, and never began anew
    """
    etcd, port = slow
    address = EtcdAddress(endpoints=(Endpoint(host="127.0.0.1", port=port),), user="u", password="p", timeout_s=1.5)
    cluster = connect(address)
    try:
        eventually(lambda: not _answers(cluster) and etcd.attempts == 1)
        for _ in range(2):
            with pytest.raises(Unknown):
                cluster.get("/a")
        assert 1 == etcd.attempts

        etcd.may_answer.set()

        eventually(lambda: _answers(cluster))
        assert 1 == etcd.attempts
    finally:
        cluster.close()


def _answers(cluster: Any) -> bool:
    try:
        return cluster.get("/a") is None
    except Unknown:  # avoided for a moment, after it gave no answer
        return False
