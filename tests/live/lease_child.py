"""A process that keeps a lease of 2 s and prints what it does: for tests that stop it."""

import sys
import threading
from typing import Any

from outrider.etcd.client import connect
from outrider.etcd.lease import LeaseKeeper
from outrider.etcd.seam import Endpoint, EtcdAddress


def say(line: str) -> None:
    print(line, flush=True)


def spoken(cluster: Any, name: str) -> None:
    """Print every call of ``name`` before it is sent and after it was answered."""
    call = getattr(cluster, name)

    def told(*arguments: Any) -> Any:
        say(f"call {name}")
        answer = call(*arguments)
        say(f"answered {name}")
        return answer

    setattr(cluster, name, told)


def main(host: str, port: str) -> None:
    cluster = connect(EtcdAddress(endpoints=(Endpoint(host=host, port=int(port)),)))
    for name in ("grant", "keep_alive", "revoke"):
        spoken(cluster, name)
    keeper = LeaseKeeper(
        cluster,
        2.0,
        on_granted=lambda lease: say(f"granted {lease}"),
        on_lost=lambda lease, why: say(f"lost {lease} {why}"),
    )
    keeper.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
