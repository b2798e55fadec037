"""How each node of etcd is: its version, the size of its database, its alarms, and whether history is compacted."""

from dataclasses import dataclass, replace

from etcd3 import etcdrpc

from outrider.core.errors import DriverError
from outrider.etcd.channel import LOSES_CHANGES, Nodes, loses_changes, version_of
from outrider.etcd.errors import Compacted
from outrider.etcd.seam import EtcdAddress

__all__ = ["LOSES_CHANGES", "NodeHealth", "keeps_all_history", "loses_changes", "node_health"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """One node, as it answers.

    Attributes:
        problem: Why it does not answer; empty when it does.
        size_bytes: Of its database file.
        alarms: ``NOSPACE``, ``CORRUPT``.
    """

    name: str
    problem: str = ""
    version: tuple[int, int, int] = (0, 0, 0)
    size_bytes: int = 0
    alarms: tuple[str, ...] = ()


def node_health(address: EtcdAddress) -> tuple[NodeHealth, ...]:
    """Ask each node by itself."""
    return tuple(_of(replace(address, endpoints=(one,)), f"{one.host}:{one.port}") for one in address.endpoints)


def _of(address: EtcdAddress, name: str) -> NodeHealth:
    nodes = Nodes(address)
    try:
        status = nodes.call(
            "status",
            lambda c, limit_s, md: c.maintenance.Status(etcdrpc.StatusRequest(), timeout=limit_s, metadata=md),
            repeatable=True,
        )
        alarms = nodes.call(
            "alarm",
            lambda c, limit_s, md: c.maintenance.Alarm(etcdrpc.AlarmRequest(), timeout=limit_s, metadata=md),
            repeatable=True,
        )
    except DriverError as error:
        return NodeHealth(name=name, problem=str(error))
    finally:
        nodes.close()
    names = tuple(sorted({etcdrpc.AlarmType.Name(one.alarm) for one in alarms.alarms}))
    return NodeHealth(name=name, version=version_of(status.version), size_bytes=status.dbSize, alarms=names)


def keeps_all_history(address: EtcdAddress, key: str, *, revisions: int) -> bool:
    """Whether etcd still has what was so many revisions ago: then nothing compacts it.

    Raises:
        DriverError: it doesn't say.
    """
    nodes = Nodes(address)
    try:

        def ask(revision: int) -> int:
            request = etcdrpc.RangeRequest(key=key.encode(), revision=revision, count_only=True)
            answer = nodes.call(
                "get", lambda c, limit_s, md: c.kv.Range(request, timeout=limit_s, metadata=md), repeatable=True
            )
            return int(answer.header.revision)

        now = ask(0)
        if now <= revisions:
            return False
        try:
            ask(now - revisions)
        except Compacted:
            return False
        return True
    finally:
        nodes.close()
