"""Where the processes of a workload listen, and which processes those are."""

from collections.abc import Iterable

from outrider.runtimes.process.holders import listening
from outrider.runtimes.process.identity import Process, processes
from outrider.runtimes.process.ports import address


def family(pid: int) -> tuple[Process, ...]:
    """The process and all that descend from it, oldest first."""
    table = {each.pid: each for each in processes()}
    children: dict[int, list[int]] = {}
    for each in table.values():
        children.setdefault(each.parent, []).append(each.pid)
    found: set[int] = set()
    left = [pid] if pid in table else []
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += children.get(one, [])
    return tuple(sorted((table[one] for one in found), key=lambda each: (each.started, each.pid)))


def listening_urls(pid: int, host: str) -> tuple[str, ...]:
    """Addresses at which the process or a descendant listens; ``host`` where it listens on all addresses."""
    return tuple(dict.fromkeys(_urls(listening(each.pid for each in family(pid)), host)))


def _urls(places: Iterable[tuple[str, int]], host: str) -> Iterable[str]:
    for where, port in sorted(places, key=lambda place: place[1]):
        yield address(where or host, port)
