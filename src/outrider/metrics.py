"""What Prometheus reads of a sidekick or a balancer agent: its text format, an endpoint for this machine, a file.

Written by hand because every machine would carry a library for these few lines; a test reads the result with
Prometheus' own. Source of the format: prometheus/docs, instrumenting/exposition_formats.md, version 0.0.4.
"""

import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

from loguru import logger

from outrider.core.errors import ConfigError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
UNIX = "unix:"
_SOCKET_MODE = 0o660
_FILE_MODE = 0o644
"""node_exporter is another user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value of one metric."""

    name: str
    value: float
    labels: Mapping[str, str]


Collect = Callable[[], Iterable[Sample]]


def text_of(samples: Iterable[Sample], helps: Mapping[str, str]) -> str:
    """The samples as Prometheus reads them; a metric whose name ends with ``_total`` is a counter, any other a gauge.

    Args:
        helps: Name of each metric -> what it means.
    """
    by_name: dict[str, list[Sample]] = {name: [] for name in helps}
    for sample in samples:
        by_name[sample.name].append(sample)
    lines = []
    for name, found in by_name.items():
        if found:
            lines += [f"# HELP {name} {_escaped(helps[name])}", f"# TYPE {name} {_kind(name)}"]
            lines += [f"{name}{_labels(one.labels)} {one.value!r}" for one in found]
    return "".join(f"{line}\n" for line in lines)


def _kind(name: str) -> str:
    return "counter" if name.endswith("_total") else "gauge"


def _labels(labels: Mapping[str, str]) -> str:
    told = ",".join(f'{name}="{_escaped(text, quote=True)}"' for name, text in labels.items())
    return f"{{{told}}}" if told else ""


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def listen_problem(text: str) -> str:
    """Why nobody could listen at ``text``, or more than this machine could read it; empty: it can be used."""
    if text.startswith(UNIX):
        return "" if os.path.isabs(text.removeprefix(UNIX)) else "write unix: and the whole path, beginning with /"
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        return "write HOST:PORT or unix:/PATH"
    host = host.removeprefix("[").removesuffix("]")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return ""
    if host == "localhost":
        return ""
    return f"{host or 'every address'} is not of this machine alone: it tells names and versions to whoever asks"


class Endpoint:
    """Answers ``GET /metrics`` until it is closed."""

    def __init__(self, listen: str, text: Callable[[], str]) -> None:
        """Listen at ``HOST:PORT`` or ``unix:/PATH``; ``text`` is called for each answer, on a thread of its own.

        Raises:
            ConfigError: nobody may listen there, or somebody does.
        """
        if problem := listen_problem(listen):
            raise ConfigError(f"metrics.listen {listen!r}: {problem}")
        try:
            self._server, self.address = _server(listen, text)
        except OSError as error:
            raise ConfigError(f"metrics.listen {listen}: {error.strerror or error}") from error
        self._path = Path(listen.removeprefix(UNIX)) if listen.startswith(UNIX) else None
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _server(listen: str, text: Callable[[], str]):  # type: ignore[no-untyped-def]
    """The server, not serving yet, and its address."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Answer(BaseHTTPRequestHandler):
        timeout = 10.0
        server_version, sys_version = "outrider", ""

        def do_GET(self) -> None:
            found = self.path.partition("?")[0] == "/metrics"
            body = text().encode() if found else b"GET /metrics\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", CONTENT_TYPE if found else "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "local"

        def log_message(self, *_: object) -> None:
            """A scrape is no news."""

    class Tcp(ThreadingMixIn, HTTPServer):
        daemon_threads = True

        def server_bind(self) -> None:  # the original asks the resolver for a name
            self.socket.bind(self.server_address)

    class Unix(ThreadingMixIn, UnixStreamServer):
        daemon_threads = True

    if listen.startswith(UNIX):
        path = listen.removeprefix(UNIX)
        _remove_dead(path)
        made = Unix(path, Answer)
        os.chmod(path, _SOCKET_MODE)
        return made, listen
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if ":" in host:
        Tcp.address_family = socket.AF_INET6
    served = Tcp((host, int(port)), Answer)
    return served, f"{host}:{served.socket.getsockname()[1]}"


def _remove_dead(path: str) -> None:
    """Remove the socket that a killed process left; one at which somebody listens stays, and binding says so."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


class TextFile:
    """Writes the metrics to a file again and again, for node_exporter's textfile collector; removed at the end."""

    def __init__(self, path: Path, text: Callable[[], str], every_s: float) -> None:
        """Write to ``path``, whose name must end with ``.prom``, at once and every ``every_s`` seconds."""
        self._path, self._text, self._every_s = path, text, every_s
        self._closed = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="metrics-file", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """A file that stays would tell of a life that has ended."""
        self._closed.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while True:
            self._write()
            if self._closed.wait(self._every_s):
                return

    def _write(self) -> None:
        try:
            partial = self._path.with_name(f".{self._path.name}.partial")
            partial.write_text(self._text(), encoding="utf-8")
            partial.chmod(_FILE_MODE)
            partial.replace(self._path)  # node_exporter reads all or nothing
            self._trouble = ""
        except OSError as error:
            if self._trouble != str(error):
                logger.bind(path=str(self._path), cause=error.strerror or str(error)).error("metrics not written")
            self._trouble = str(error)


@contextlib.contextmanager
def exposed(
    collect: Collect, helps: Mapping[str, str], *, listen: str = "", textfile: Path | None = None, every_s: float = 15.0
) -> Iterator[str]:
    """Expose what ``collect`` tells while the ``with`` lasts; where it is, ``HOST:PORT`` or ``unix:/PATH``.

    Raises:
        ConfigError: nobody can listen there.
    """

    def text() -> str:
        return text_of(collect(), helps)

    with contextlib.ExitStack() as stack:
        address = ""
        if listen:
            endpoint = Endpoint(listen, text)
            stack.callback(endpoint.close)
            address = endpoint.address
            logger.bind(address=address).info("metrics are served")
        if textfile is not None:
            stack.callback(TextFile(textfile, text, every_s).close)
        yield address
