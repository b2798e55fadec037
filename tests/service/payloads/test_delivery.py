"""A payload comes whole or in parts, from the kernel or from Starlette alike, and keeps no thread meanwhile."""

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from outrider.service.api import delivery
from outrider.service.sending import SENDERS
from outrider.service.store.packages import Payload
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster
from tests.support.service import RunningServer
from tests.support.service_examples import APP, make_app
from tests.support.waiting import eventually

CONTENT = os.urandom(1024) * 8192
"""8 MiB: more than the kernel buffers of one connection that nobody reads."""
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def running(client: FakeCluster, store: Store, tmp_path: Path) -> Iterator[RunningServer]:
    make_app(store)
    with RunningServer(client, tmp_path / "payloads", "/outrider/v1") as running:
        running.context.payloads.store(CONTENT)
        store.packages.create(APP, "9.0.0", Payload(size_bytes=len(CONTENT), sha256=SHA256, sha1="", name="app.tar"))
        yield running


def url_of(running: RunningServer) -> str:
    return f"{running.url}/packages/{APP}/9.0.0/app.tar"


RANGES = {
    "whole": {},
    "a part": {"Range": "bytes=100-199"},
    "the rest": {"Range": f"bytes={len(CONTENT) - 10}-"},
    "beyond the end": {"Range": f"bytes=5-{2**60}"},
    "the last bytes": {"Range": "bytes=-7"},
    "two parts": {"Range": "bytes=0-1,5-6"},
    "behind the end": {"Range": f"bytes={len(CONTENT)}-"},
    "backwards": {"Range": "bytes=9-3"},
    "nonsense": {"Range": "lines=1-2"},
    "a part of this file": {"Range": "bytes=1-2", "If-Range": f'"{SHA256}"'},
    "a part of another file": {"Range": "bytes=1-2", "If-Range": '"another"'},
    "known already": {"If-None-Match": f'"{SHA256}"'},
}


@pytest.mark.parametrize("headers", RANGES.values(), ids=RANGES)
def test_the_kernel_sends_what_starlette_would_send(
    running: RunningServer, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_kernel = requests.get(url_of(running), headers=headers, timeout=30)
    monkeypatch.setattr(delivery, "ZERO_COPY", "nobody has this")
    plain = requests.get(url_of(running), headers=headers, timeout=30)

    assert plain.status_code == by_kernel.status_code
    if "multipart" not in plain.headers.get("content-type", ""):  # its boundary is random
        assert plain.content == by_kernel.content
        assert {**plain.headers, "date": ""} == {**by_kernel.headers, "date": ""}


def test_downloads_that_nobody_reads_keep_no_thread_and_stop_nobody(running: RunningServer) -> None:
    """
    1. sixty clients ask for the file and read nothing: more than there are threads
    2. others are served at once, a whole download too
    3. who reads on gets every byte; whoever goes leaves no descriptor behind
    """
    before = len(os.listdir("/proc/self/fd"))
    with ExitStack() as stack:
        held = [
            stack.enter_context(socket.create_connection((running.host, running.port), timeout=30)) for _ in range(60)
        ]
        for one in held:
            one.sendall(f"GET /packages/{APP}/9.0.0/app.tar HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for one in held:
            assert one.recv(15) == b"HTTP/1.1 200 OK"

        assert requests.get(f"{running.url}/healthz", timeout=30).ok
        assert requests.get(url_of(running), timeout=30).content == CONTENT
        senders = [each for each in threading.enumerate() if each.name.startswith("download")]
        assert 1 <= len(senders) <= SENDERS
        received = b""
        while len(received) < len(CONTENT):
            received += held[0].recv(1 << 20)
            received = received[received.index(b"\r\n\r\n") + 4 :] if b"etag" in received[:600] else received
        assert received == CONTENT
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)
