"""A barrier that an app waits at, so that a test and not the machine's speed says when it goes on."""

import contextlib
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from outrider.runtimes import Workload
from tests.support.containers import docker_client

WAIT = """
import os, socket
if "BARRIER" in os.environ:
    socket.create_connection(("127.0.0.1", int(os.environ["BARRIER"]))).recv(1)
"""
"""What a Python app begins with that waits at ``SocketBarrier``."""
WAIT_SH = 'while [ -n "$BARRIER" ] && [ ! -e /barrier ]; do sleep 0.1; done\n'
"""What a container's script begins with that waits at ``ContainerBarrier``."""


class SocketBarrier:
    """A listener of this process; who waits at it is connected, and goes on once that is closed.

    Attributes:
        variables: What an app has to be given in its environment.
    """

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(60)
        self.variables: Mapping[str, str] = {"BARRIER": str(self._server.getsockname()[1])}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.close()

    def open(self, workload: Workload) -> None:
        """Wait until the app is there, and let it go on."""
        self._server.accept()[0].close()


class ContainerBarrier:
    """A file in the container, made by Docker from outside."""

    variables: Mapping[str, str] = {"BARRIER": "1"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def open(self, workload: Workload) -> None:
        """Let the app go on."""
        with contextlib.closing(docker_client()) as client:
            container = client.containers.get(workload.handle.removeprefix("container "))
            code, output = container.exec_run(["busybox", "touch", "/barrier"])
        assert code == 0, output


Barrier = SocketBarrier | ContainerBarrier
