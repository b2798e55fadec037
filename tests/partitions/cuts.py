"""What is taken away, for real: packets vanish in the kernel of a container's network, or a disk turns read-only."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

from tests.partitions.containers import Container
from tests.partitions.world import World

Thing = Literal[
    "etcd", "etcd's answers", "update service", "payload server", "balancer", "balancer's etcd", "runtime", "network"
]
"""What is down, as seen from the machine.

``etcd's answers``: what the machine sends arrives, what it is told does not. ``balancer's etcd``: the balancer is cut
from etcd and goes on with what it knew. ``network``: the machine is unplugged; interface and address are gone.
"""
THINGS: tuple[Thing, ...] = (
    "etcd", "etcd's answers", "update service", "payload server", "balancer", "balancer's etcd", "runtime", "network",
)  # fmt: skip


@contextmanager
def cut(world: World, thing: Thing, machine: str) -> Iterator[None]:
    """Take ``thing`` away from ``machine``, and give it back at the end."""
    host = world.machines[machine]
    with ExitStack() as healing:
        match thing:
            case "etcd":
                healing.enter_context(severed(host, world.etcds))
            case "etcd's answers":
                healing.enter_context(severed(host, world.etcds, answers_only=True))
            case "update service":
                healing.enter_context(severed(host, [world.service]))
            case "payload server":
                healing.enter_context(severed(host, [world.payloads]))
            case "balancer":
                healing.enter_context(severed(host, [world.balancer]))
            case "balancer's etcd":
                healing.enter_context(severed(world.balancer, world.etcds))
            case "runtime":
                healing.enter_context(read_only(world, machine))
            case "network":
                host.unplug()
                healing.callback(host.plug_in)
        yield


@contextmanager
def severed(host: Container, others: Sequence[Container], *, answers_only: bool = False) -> Iterator[None]:
    """Let packets between ``host`` and ``others`` vanish, without a word to either; or only those to ``host``."""
    rules = [f"INPUT -s {other.address} -j DROP" for other in others]
    if not answers_only:
        rules += [f"OUTPUT -d {other.address} -j DROP" for other in others]
    host.run("; ".join(f"iptables -w -I {rule}" for rule in rules))
    try:
        yield
    finally:
        host.run("; ".join(f"iptables -w -D {rule}" for rule in rules))


@contextmanager
def read_only(world: World, machine: str) -> Iterator[None]:
    """Let the folders of all workloads of ``machine`` be read but not written, as on a disk that has had an error."""
    folders = sorted((world.machine_folder(machine) / "state").glob("*/workloads"))
    assert folders, f"{machine} has no workloads yet"
    host = world.machines[machine]
    host.run("; ".join(f"mount --bind '{each}' '{each}'; mount -o remount,ro,bind '{each}'" for each in folders))
    try:
        yield
    finally:
        host.run("; ".join(f"umount -l '{each}'" for each in folders))
