"""A unix socket that leads to another one and can be cut: a daemon that goes away, while the real one stays."""

import contextlib
import os
import socket
import threading
from pathlib import Path


class SocketProxy:
    """Leads from ``path`` to ``target``. ``cut`` ends all connections and takes no more until ``mend``."""

    def __init__(self, path: Path, target: str) -> None:
        self.path, self._target = path, target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server: socket.socket | None = None
        self.mend()

    def mend(self) -> None:
        """Take connections."""
        if self._server is None:
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(self.path))
            server.listen(64)
            self._server = server
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def cut(self) -> None:
        """End all connections; nobody answers at ``path`` until ``mend``."""
        server, self._server = self._server, None
        if server is not None:
            os.unlink(self.path)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._target)
                with self._lock:
                    self._open |= {near, far}
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._lead, args=(source, sink), daemon=True).start()

    def _lead(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            self._open.discard(source)
