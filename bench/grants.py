"""What grants cost, in one run: ``make bench-grants``, about half a minute.

Every request is the first update check of another instance, in a group that has an update for all. Clients, service
and an etcd without fsync share this machine, as in ``bench.performance``; so the ratios say more than the numbers. The
ceiling is an ASGI application that only reads and writes the XML.
"""

import argparse
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import requests

from bench.load import APP, END, Client
from bench.performance import bare, cpu_s, machine, serving_on, store
from outrider.core.omaha import AppRequest, OmahaRequest, render_request

CLIENTS, GRANTS, BURST, LIMIT, OPEN = 8, 2000, 500, 100, 1586
OFFER = b"<urls>"
METRICS = (
    "etcd_mvcc_put_total",
    "etcd_debugging_mvcc_total_put_size_in_bytes",
    "etcd_mvcc_db_total_size_in_use_in_bytes",
)


@dataclass(slots=True)
class Crowd:
    """What first checks were answered.

    Attributes:
        answers: Of these, ``offers`` were granted, and ``refused`` had another status than 200.
        p99_ms: From the request to its answer.
    """

    seconds: float = 0.0
    answers: int = 0
    offers: int = 0
    refused: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0

    @property
    def per_s(self) -> float:
        return self.answers / self.seconds if self.seconds else 0.0


def main() -> None:
    """Measure each row, print one table."""
    parser = argparse.ArgumentParser(prog="bench.grants")
    parser.add_argument("--grants", type=int, default=GRANTS, help="with eight clients")
    given = parser.parse_args()
    print(f"load before it {os.getloadavg()[0]:.1f}; {machine()}", flush=True)
    with bare("h11 asyncio") as (bare_url, _), store() as etcd, serving_on(etcd) as (url, pid):
        ceiling = crowd(bare_url, "bare", CLIENTS, given.grants)
        print(f"ceiling, {CLIENTS} clients: {ceiling.per_s:.0f}/s", flush=True)
        for name, policy in (("load", {}), ("limited", {"max_in_progress": 1000})):
            group(url, name, policy)
            crowd(url, name, CLIENTS, 50, first=1_000_000)
            before, store_before = cpu_s(pid), cpu_s(etcd.pid)
            ours = crowd(url, name, CLIENTS, given.grants)
            cpu, etcd_cpu = cpu_s(pid) - before, cpu_s(etcd.pid) - store_before
            print(
                f"grants, {CLIENTS} clients, {name}: {ours.per_s:.0f}/s ({ours.per_s / ceiling.per_s:.0%} of the"
                f" ceiling), p50 {ours.p50_ms:.1f} ms, p99 {ours.p99_ms:.1f} ms, {ours.offers} of {ours.answers}"
                f" granted, CPU us per grant {cpu / ours.answers * 1e6:.0f}, etcd {etcd_cpu / ours.answers * 1e6:.0f}",
                flush=True,
            )
        for name, limit in (("burst", None), ("limit", LIMIT)):
            group(url, name, {} if limit is None else {"max_in_progress": limit})
            ours = crowd(url, name, BURST, BURST)
            print(
                f"{BURST} at once, limit {limit}: {ours.answers} answered in {ours.seconds:.2f} s, {ours.offers}"
                f" granted, {ours.refused} refused; p50 {ours.p50_ms:.0f} ms",
                flush=True,
            )
        group(url, "open", {})
        before_puts = counters(etcd.url)
        ours = crowd(url, "open", CLIENTS, OPEN)
        settle(etcd.url)
        puts = [after - was for after, was in zip(counters(etcd.url), before_puts, strict=True)]
        print(
            f"{ours.offers} open grants: {puts[1] / ours.offers:.0f} bytes and {puts[0] / ours.offers:.2f} keys written"
            f" for each, database {puts[2] / 1e6:.1f} MB larger",
            flush=True,
        )


def counters(etcd_url: str) -> list[float]:
    """etcd's own counts: writes, bytes written, size of the database in use."""
    found = dict.fromkeys(METRICS, 0.0)
    for line in requests.get(f"{etcd_url}/metrics", timeout=10).text.splitlines():
        name, _, value = line.partition(" ")
        if name in found:
            found[name] = float(value)
    return [found[name] for name in METRICS]


def settle(etcd_url: str) -> None:
    """Wait until the records that are written in the background are there."""
    last = -1.0
    while (now := counters(etcd_url)[0]) != last:
        last = now
        time.sleep(1.0)


def group(url: str, name: str, policy: Mapping[str, object]) -> None:
    """A group of its own, with a policy."""
    requests.post(
        f"{url}/api/v1/apps/{APP}/groups", json={"id": name, "channel": "stable"}, timeout=10
    ).raise_for_status()
    if policy:
        place = f"{url}/api/v1/apps/{APP}/groups/{name}/policy"
        requests.put(place, json=policy, timeout=10).raise_for_status()


def crowd(url: str, name: str, clients: int, number: int, *, first: int = 0) -> Crowd:
    """``number`` first checks by ``clients`` at the same time, from a process of their own."""
    command = [sys.executable, "-m", "bench.grants", "--crowd", url, name, str(clients), str(number), str(first)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return Crowd(**json.loads(done.stdout))


def ask_all(url: str, name: str, clients: int, number: int, first: int) -> Crowd:
    """All connections are made, and all requests rendered, before the first is sent."""
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    todo = [request_of(f"{name}-{one}", name, host) for one in range(first + number - 1, first - 1, -1)]
    told, latencies, poll, everyone = Crowd(), [], select.epoll(), {}
    for _ in range(clients):
        stream = socket.create_connection((host, port), timeout=30)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        everyone[stream.fileno()] = Client(stream=stream, request=b"")
        poll.register(stream, select.EPOLLIN)
    begun = time.perf_counter()
    for client in everyone.values():
        client.request = todo.pop()
        client.ask()
    while told.answers + told.refused < number:
        for fileno, _ in poll.poll(60):
            client = everyone[fileno]
            status, body = read(client)
            if status is None:
                continue
            latencies.append(time.perf_counter() - client.asked)
            told.answers += status == 200
            told.refused += status != 200
            told.offers += OFFER in body
            if todo:
                client.request = todo.pop()
                client.ask()
    told.seconds = time.perf_counter() - begun
    for client in everyone.values():
        client.stream.close()
    hundredths = statistics.quantiles(latencies, n=100)
    told.p50_ms, told.p99_ms = hundredths[49] * 1000, hundredths[98] * 1000
    return told


def read(client: Client) -> tuple[int | None, bytes]:
    """Status and body of a whole answer; None: there is more to come."""
    part = client.stream.recv(65536)
    if not part:
        raise ConnectionError("the service has hung up")
    client.answer += part
    head, end, body = bytes(client.answer).partition(END)
    at = head.lower().find(b"content-length:")
    if not end or len(body) < int(head[at + 15 :].partition(b"\r")[0]):
        return None, b""
    client.answer.clear()
    return int(head[9:12]), body


def request_of(instance: str, name: str, host: str) -> bytes:
    """The first update check of an instance that runs an older version."""
    app = AppRequest(app_id=APP, version="0.9.0", track=name, machine_id=instance, update_check=True)
    body = render_request(OmahaRequest(apps=(app,)))
    head = f"POST /v1/update HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


if __name__ == "__main__":
    if sys.argv[1:2] == ["--crowd"]:
        given_url, given_name, *numbers = sys.argv[2:]
        print(json.dumps(asdict(ask_all(given_url, given_name, *map(int, numbers)))))
    else:
        main()
