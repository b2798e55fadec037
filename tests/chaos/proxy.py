"""A TCP proxy that can be cut: what stands between a sidekick and etcd."""

import contextlib
import select
import socket
import threading
from typing import Literal

from outrider.demo.programs import free_ports

Cut = Literal["refuse", "swallow"]
_PIECE = 65536


class Proxy:
    """Forwards ``127.0.0.1:port`` to another port of this machine, until it is cut and after it is healed.

    ``refuse`` resets what is open and refuses what is new, as a router that knows would; ``swallow`` lets everything
    open be and forwards nothing, as a cable that is pulled: new connections are accepted by nobody that answers.
    """

    def __init__(self, target: int) -> None:
        self.port = free_ports(1)[0]
        self._target = target
        self._cut: Cut | None = None
        self._mutex = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._mute: list[socket.socket] = []
        self._closed = False
        self._listener = self._listen()
        threading.Thread(target=self._accept, args=(self._listener,), name="proxy-accept", daemon=True).start()

    def cut(self, how: Cut) -> None:
        """Let nothing through from now on."""
        with self._mutex:
            self._cut = how
            if how == "refuse":
                self._listener.close()
                self._reset()

    def heal(self) -> None:
        """Let everything through again; what was swallowed meanwhile is reset, as its retransmissions would be late."""
        with self._mutex:
            if self._cut is None:
                return
            how, self._cut = self._cut, None
            self._reset()
            if how == "refuse":
                self._listener = self._listen()
                threading.Thread(target=self._accept, args=(self._listener,), name="proxy-accept", daemon=True).start()

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            self._listener.close()
            self._reset()

    def _listen(self) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        listener.settimeout(0.2)  # closing alone doesn't wake an accept
        return listener

    def _reset(self) -> None:
        for one in [end for pair in self._pairs for end in pair] + self._mute:
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._pairs.clear()
        self._mute.clear()

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            with self._mutex:
                if self._cut == "swallow":
                    self._mute.append(client)
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._target), timeout=2.0)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                client.settimeout(None)
                pair = (client, server)
                self._pairs.add(pair)
            threading.Thread(target=self._forward, args=(pair,), name="proxy-forward", daemon=True).start()

    def _forward(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        other = {client: server, server: client}
        try:
            while True:
                ready, _, _ = select.select(pair, [], [], 0.05)
                if self._cut is not None:
                    if pair not in self._pairs:
                        return
                    if ready:
                        threading.Event().wait(0.02)  # the bytes stay where they are: nobody reads them
                    continue
                for one in ready:
                    piece = one.recv(_PIECE)
                    if not piece:
                        return
                    other[one].sendall(piece)
        except (OSError, ValueError):
            return
        finally:
            with self._mutex:
                self._pairs.discard(pair)
            for one in pair:
                one.close()
