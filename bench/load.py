"""A closed loop of keep-alive clients, as cheap as Python allows: ``python -m bench.load URL CLIENTS SECONDS [KIND]``.

One thread over epoll, no HTTP library: on two cores the clients must take as little as possible from what is measured.
Each client is another instance; KIND ``check`` asks for an update that isn't there. Prints one line of JSON.
"""

import json
import select
import socket
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

from outrider.core.omaha import AppRequest, OmahaRequest, render_request

APP = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"
GROUP = "web"
END = b"\r\n\r\n"


@dataclass(slots=True)
class Tally:
    """What was answered in ``seconds``; latencies in milliseconds."""

    clients: int
    seconds: float = 0.0
    answers: int = 0
    refused: int = 0
    failed: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0

    @property
    def per_s(self) -> float:
        return self.answers / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Client:
    """One connection with one request under way."""

    stream: socket.socket
    request: bytes
    asked: float = 0.0
    answer: bytearray = field(default_factory=bytearray)

    def ask(self) -> None:
        self.asked = time.perf_counter()
        self.stream.sendall(self.request)

    def read(self) -> int | None:
        """The status of the whole answer; None: there is more to come.

        Raises:
            ConnectionError: the service has hung up.
        """
        part = self.stream.recv(65536)
        if not part:
            raise ConnectionError
        self.answer += part
        head = self.answer.find(END)
        if head < 0:
            return None
        at = self.answer.lower().find(b"content-length:", 0, head)
        length = int(self.answer[at + 15 : self.answer.index(b"\r", at)])
        if len(self.answer) < head + len(END) + length:
            return None
        status = int(self.answer[9:12])
        self.answer.clear()
        return status


def request_of(number: int, host: str) -> bytes:
    """The update check of instance ``number``, which runs what its group serves."""
    app = AppRequest(app_id=APP, version="1.0.0", track=GROUP, machine_id=f"web-{number}", update_check=True)
    body = render_request(OmahaRequest(apps=(app,)))
    head = f"POST /v1/update HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def load(url: str, clients: int, seconds: float) -> Tally:
    """Ask with ``clients`` at the same time, each again as soon as it has its answer."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    tally, latencies, poll, everyone = Tally(clients=clients), [], select.epoll(), {}
    for number in range(clients):
        stream = socket.create_connection((host, port), timeout=10)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        everyone[stream.fileno()] = Client(stream=stream, request=request_of(number, host))
        poll.register(stream, select.EPOLLIN)
    begun = time.perf_counter()
    end = begun + seconds
    for client in everyone.values():
        client.ask()
    while (now := time.perf_counter()) < end and everyone:
        for number, _ in poll.poll(max(end - now, 0.001)):
            client = everyone[number]
            try:
                status = client.read()
                if status is None:
                    continue
                latencies.append(time.perf_counter() - client.asked)
                tally.answers += status == 200
                tally.refused += status != 200
                client.ask()
            except OSError:
                tally.failed += 1
                poll.unregister(client.stream)
                client.stream.close()
                del everyone[number]
    tally.seconds = time.perf_counter() - begun
    for client in everyone.values():
        client.stream.close()
    if len(latencies) > 1:
        hundredths = statistics.quantiles(latencies, n=100)
        tally.p50_ms, tally.p99_ms = hundredths[49] * 1000, hundredths[98] * 1000
    return tally


if __name__ == "__main__":
    print(json.dumps(asdict(load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))))
