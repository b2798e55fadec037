"""How quick the etcd seam is, beside ``etcdctl lock`` in the same run: ``make bench-etcd``, about half a minute.

One etcd on this machine, without fsync, so that the disk is not what is measured. Every number is in milliseconds.
The hand-off is a plain queue (a key under a lease, wait for the one before me): what any lock on etcd has to do.
"""

import itertools
import multiprocessing
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import grpc
from etcd3 import etcdrpc
from tests.support.servers import EtcdServer, etcdctl_binary

from outrider.etcd.client import EtcdCluster, connect
from outrider.etcd.seam import CreatedAt, Delete, Endpoint, EtcdAddress, KeyChanged, Put, WatchEvent

CALLS = 1500
DELIVERIES = 1000
DELIVERY_PAUSE_S = 0.004
TURNS = 80  # of each of the two workers
CONTROL_TURNS = 30

# p50 and tail (p99 of the delivery, p90 of the hand-off), measured for a prototype on two quiet cores; calls are
# held to what gRPC itself takes in the same run (docs/decisions/0002-etcd-client.md)
TARGETS = {
    "watch delivery": (2.0, 6.0),
    "hand-off, held 30 ms": (4.5, 6.5),
    "hand-off, held 2 ms": (4.5, 7.4),
}

Row = tuple[str, list[float], str]


def main() -> None:
    """Measure everything, print one table."""
    multiprocessing.set_start_method("spawn")  # gRPC and fork don't go together
    with tempfile.TemporaryDirectory(prefix="outrider-bench-") as folder:
        server = EtcdServer(Path(folder)).start().wait_ready()
        try:
            rows = [*measure_calls(server), measure_delivery(server)]
            for held_ms in (30, 2):
                rows.append(measure_hand_off(server, f"hand-off, held {held_ms} ms", held_ms, True))
            rows.append(measure_hand_off(server, "same, without the re-check", 2, False))
            control = measure_etcdctl(server, 30)
        finally:
            server.stop()
    print_table(rows, control)


def measure_calls(server: EtcdServer) -> list[Row]:
    cluster = connect(server.address())
    channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
    bare = etcdrpc.KVStub(channel)
    try:
        put = (Put(key="/calls/a", value=bytes(200)),)
        cluster.txn((), put)
        guarded = (CreatedAt(key="/calls/a", revision=cluster.list("/calls/").entries[0].create_revision),)
        bare_get = etcdrpc.RangeRequest(key=b"/calls/a")
        bare_put = etcdrpc.PutRequest(key=b"/calls/a", value=bytes(200))
        return [
            ("get", timed(lambda: cluster.get("/calls/a")), ""),
            ("bare get", timed(lambda: bare.Range(bare_get, timeout=3)), "the generated stub alone"),
            ("put", timed(lambda: cluster.txn((), put)), "a transaction without a guard"),
            ("bare put", timed(lambda: bare.Put(bare_put, timeout=3)), "the generated stub alone"),
            ("txn", timed(lambda: cluster.txn(guarded, put)), "one guard, one write"),
        ]
    finally:
        channel.close()
        cluster.close()


def timed(call: Callable[[], object]) -> list[float]:
    """Milliseconds of each of ``CALLS`` calls, after some that don't count."""
    for _ in range(CALLS // 10):
        call()
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        took.append((time.perf_counter() - began) * 1000)
    return took


def measure_delivery(server: EtcdServer) -> Row:
    """From before the write in another process to the delivery here; the monotonic clock is the machine's."""
    cluster, took, done = connect(server.address()), [], threading.Event()

    def deliver(event: WatchEvent) -> None:
        now = time.monotonic()
        assert isinstance(event, KeyChanged)
        assert event.entry is not None
        took.append((now - float(event.entry.value)) * 1000)
        if len(took) == DELIVERIES:
            done.set()

    watch = cluster.watch("/delivery/", 1, deliver)
    writer = multiprocessing.Process(target=write_times, args=(server.port,))
    writer.start()
    assert done.wait(60), f"{len(took)} of {DELIVERIES} deliveries"
    writer.join()
    watch.close()
    cluster.close()
    return "watch delivery", took, f"{DELIVERIES} writes of another process, write included"


def write_times(port: int) -> None:
    cluster = local(port)
    for _ in range(DELIVERIES):
        cluster.txn((), (Put(key="/delivery/a", value=repr(time.monotonic()).encode()),))
        time.sleep(DELIVERY_PAUSE_S)  # a pace, so that deliveries are not measured in a jam
    cluster.close()


def measure_hand_off(server: EtcdServer, name: str, held_ms: int, recheck: bool) -> Row:
    """From the holder's release to the next one's turn, with two workers that want it all the time."""
    turns: list[tuple[float, float]] = []
    pipes, workers = [], []
    for number in range(2):
        here, there = multiprocessing.Pipe(duplex=False)
        worker = multiprocessing.Process(target=take_turns, args=(server.port, number, held_ms, recheck, there))
        worker.start()
        pipes.append(here)
        workers.append(worker)
    for pipe, worker in zip(pipes, workers, strict=True):
        assert pipe.poll(60), "a worker is stuck"
        turns += pipe.recv()
        worker.join()
    turns.sort()
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(turns)), "two held it at once"
    waited = [(after[0] - before[1]) * 1000 for before, after in itertools.pairwise(turns)]
    return name, waited, "two processes, in turn"


def take_turns(port: int, number: int, held_ms: int, recheck: bool, result: Connection) -> None:
    cluster = local(port)
    lease = cluster.grant(30)
    turns = []
    for turn in range(TURNS):
        mine = f"/turns/{number}-{turn}"
        cluster.txn((CreatedAt(key=mine, revision=0),), (Put(key=mine, value=b"", lease=lease),))
        while not await_predecessor(cluster, mine, recheck):
            pass
        began = time.monotonic()
        time.sleep(held_ms / 1000)
        ended = time.monotonic()
        cluster.txn((), (Delete(key=mine),))
        turns.append((began, ended))
    cluster.revoke(lease)
    cluster.close()
    result.send(turns)


def await_predecessor(cluster: EtcdCluster, mine: str, recheck: bool) -> bool:
    """True when it is our turn; else False, after the one before us has gone."""
    listing = cluster.list("/turns/")
    queue = sorted(listing.entries, key=lambda entry: entry.create_revision)
    place = [entry.key for entry in queue].index(mine)
    if place == 0:
        return True
    before, gone = queue[place - 1], threading.Event()
    watch = cluster.watch(before.key, listing.revision + 1, lambda event: gone.set(), exact=True)
    if recheck:
        # a removal between the listing and the watch would be told up to 100 ms late (etcd-io/etcd#16839)
        again = cluster.get(before.key)
        if again is None or again.create_revision != before.create_revision:
            gone.set()
    assert gone.wait(30), "the one before us has not gone"
    watch.close()
    return False


def measure_etcdctl(server: EtcdServer, held_ms: int) -> Row:
    """The same with ``etcdctl lock``: from the end of one command to the start of the next."""
    command = [
        *(str(etcdctl_binary()), "--endpoints", server.url, "lock", "/control", "--"),
        *("bash", "-c", f"echo $EPOCHREALTIME; sleep {held_ms / 1000}; echo $EPOCHREALTIME"),
    ]
    turns: list[tuple[float, float]] = []

    def work() -> None:
        env = os.environ | {"ETCDCTL_API": "3", "LC_ALL": "C"}
        for _ in range(CONTROL_TURNS):
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=30)
            began, ended = done.stdout.split()
            turns.append((float(began), float(ended)))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    turns.sort()
    waited = [(after[0] - before[1]) * 1000 for before, after in itertools.pairwise(turns)]
    return "etcdctl lock, held 30 ms", waited, "two processes; starting its command included"


def local(port: int) -> EtcdCluster:
    return connect(EtcdAddress(endpoints=(Endpoint(host="127.0.0.1", port=port),)))


def quantile(values: list[float], part: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[part - 1]


def print_table(rows: list[Row], control: Row) -> None:
    middles = {name: quantile(values, 50) for name, values, _ in rows}
    print(f"{'ms':<28}{'p50':>8}{'p90':>8}{'p99':>8}   {'held to':<18}{'etcdctl / ours':<16}remark")
    for name, values, remark in [*rows, control]:
        p50, p90, p99 = (quantile(values, part) for part in (50, 90, 99))
        held_to = ""
        if name in TARGETS:
            middle, tail = TARGETS[name]
            met = p50 <= middle and (p99 if name == "watch delivery" else p90) <= tail
            held_to = f"{middle:g}, {tail:g} {'met' if met else 'MISSED'}"
        elif f"bare {name}" in middles:
            held_to = f"{p50 / middles[f'bare {name}']:.2f} x bare"
        ratio = ""
        if name.startswith("hand-off"):
            ratio = f"{quantile(control[1], 50) / p50:.1f}x, {quantile(control[1], 90) / p90:.1f}x"
        print(f"{name:<28}{p50:>8.2f}{p90:>8.2f}{p99:>8.2f}   {held_to:<18}{ratio:<16}{remark}")


if __name__ == "__main__":
    main()
