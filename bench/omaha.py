"""How many check-ins one update service answers, and what becomes of a crowd: ``make bench-omaha``, about a minute.

One etcd without fsync and one ``outrider serve``, both on this machine beside the clients, so the numbers are a lower
bound. Each client asks again as soon as it has its answer; every one is another instance of one group that has nothing
to update, the cheapest check there is. A refused client (503) waits 1 s here, not the time that it was asked to.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import requests
from tests.support.servers import EtcdServer

from outrider.core.omaha import AppRequest, OmahaRequest, render_request

APP = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"
CROWDS = (8, 32, 200, 1000, 3000)
SECONDS = 10.0
REFUSED_PAUSE_S = 1.0
HEADER = " clients  answers/s   p50 s   p99 s  come later  refused  p99 s  failed"


@dataclass(slots=True)
class Tally:
    """What one crowd was answered, and after how many seconds."""

    answered_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    asked_to_come_later: int = 0
    failed: int = 0


def main() -> None:
    """Measure every crowd, print one table."""
    with tempfile.TemporaryDirectory(prefix="outrider-bench-") as folder:
        etcd = EtcdServer(Path(folder) / "etcd").start().wait_ready()
        command = [sys.executable, "-m", "outrider", "serve", "--listen", "127.0.0.1:0", "--insecure-listen"]
        command += ["--max-requests-per-s=1000000", "--max-burst=1000000", "--max-connections=20000"]
        command += ["--max-strangers=100000", "--max-instances=100000", "--max-checkins-per-s=1000", "--etcd"]
        command += [f"127.0.0.1:{etcd.port}", "--payload-dir", f"{folder}/payloads"]
        environment = {**os.environ, "OUTRIDER_LOG_LEVEL": "error"}
        log = (Path(folder) / "log").open("wb")
        service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)
        try:
            assert service.stdout is not None
            url = service.stdout.readline().split()[-1]
            prepare(url)
            print(HEADER)
            for clients in CROWDS:
                tally = asyncio.run(crowd(url, clients))
                print_row(clients, tally)
        finally:
            service.terminate()
            service.wait(20)
            log.close()
            etcd.stop()


def prepare(url: str) -> None:
    """An app with a group whose channel offers nothing newer."""
    for path, body in (
        ("apps", {"id": APP}),
        (f"apps/{APP}/groups", {"id": "web", "channel": "stable"}),
        (
            f"apps/{APP}/packages",
            {"version": "1.0.0", "url": "http://files.example/web.tar", "size_bytes": 9, "sha256": "0" * 64},
        ),
        (f"apps/{APP}/channels/stable", {"version": "1.0.0"}),
    ):
        call = requests.put if "channels/" in path else requests.post
        call(f"{url}/api/v1/{path}", json=body, timeout=10).raise_for_status()


async def crowd(url: str, clients: int) -> Tally:
    """Let ``clients`` ask, all at once at first."""
    tally = Tally()
    end = time.monotonic() + SECONDS
    await asyncio.gather(*(client(url, number, end, tally) for number in range(clients)))
    return tally


async def client(url: str, number: int, end: float, tally: Tally) -> None:
    """Ask until ``end``."""
    host, port = url.removeprefix("http://").split(":")
    app = AppRequest(app_id=APP, version="1.0.0", track="web", machine_id=f"web-{number}", update_check=True)
    body = render_request(OmahaRequest(apps=(app,)))
    head = f"POST /v1/update HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while (asked := time.monotonic()) < end:
        try:
            streams = streams or await asyncio.open_connection(host, int(port))
            streams[1].write(head.encode() + body)
            status, answer = await read_answer(streams[0])
        except (OSError, asyncio.IncompleteReadError):
            streams = None
            tally.failed += 1
            await asyncio.sleep(REFUSED_PAUSE_S)
            continue
        if status == 200:
            tally.answered_s.append(time.monotonic() - asked)
            tally.asked_to_come_later += b"PollInterval" in answer
        else:
            tally.refused_s.append(time.monotonic() - asked)
            streams = None  # the service closes when it hasn't read the request
            await asyncio.sleep(REFUSED_PAUSE_S)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
    return int(lines[0].split()[1]), await reader.readexactly(length)


def print_row(clients: int, tally: Tally) -> None:
    answered, refused = tally.answered_s, tally.refused_s
    print(
        f"{clients:>8}{len(answered) / SECONDS:>11.0f}{percentile(answered, 50):>8.2f}{percentile(answered, 99):>8.2f}"
        f"{tally.asked_to_come_later:>12}{len(refused):>9}{percentile(refused, 99):>7.2f}{tally.failed:>8}"
    )


def percentile(seconds: list[float], percent: int) -> float:
    return statistics.quantiles(seconds, n=100)[percent - 1] if len(seconds) > 1 else 0.0


if __name__ == "__main__":
    main()
