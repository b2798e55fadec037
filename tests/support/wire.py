"""A TCP wire between a client and a server, to be cut, muted, frozen and mended."""

import contextlib
import socket
import threading
from typing import Literal

State = Literal["whole", "cut", "muted", "frozen"]


class Wire:
    """Forwards connections from ``port`` to ``target`` on 127.0.0.1.

    ``cut``: connections break and new ones are refused. ``mute``: requests pass, answers are swallowed. ``freeze``:
    connections stay and nothing passes. ``mend``: new connections pass; the ones that lost bytes are broken.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Condition()
        self._state: State = "whole"
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="wire", daemon=True).start()

    def cut(self) -> None:
        self._become("cut", break_all=True)

    def mute(self) -> None:
        self._become("muted", break_all=False)

    def freeze(self) -> None:
        self._become("frozen", break_all=False)

    def mend(self) -> None:
        self._become("whole", break_all=True)

    def close(self) -> None:
        self._become("cut", break_all=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _become(self, state: State, *, break_all: bool) -> None:
        with self._lock:
            self._state = state
            broken = list(self._pairs) if break_all else []
            self._pairs.difference_update(broken)  # what they hold back is lost, never sent late
            self._lock.notify_all()
        for pair in broken:
            self._break(pair)

    def _break(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._state == "cut":
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            pair = (client, server)
            for end in pair:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.add(pair)
            for source, sink, answers in ((client, server, False), (server, client, True)):
                arguments = (pair, source, sink, answers)
                threading.Thread(target=self._pump, args=arguments, name="wire", daemon=True).start()

    def _pump(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket, sink: socket.socket, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while passing := source.recv(65536):
                with self._lock:
                    self._lock.wait_for(lambda: self._state != "frozen" or pair not in self._pairs)
                    if pair not in self._pairs:
                        break
                    swallowed = answers and self._state == "muted"
                if not swallowed:
                    sink.sendall(passing)
        self._break(pair)
        source.close()
