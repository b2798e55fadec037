"""The things that most tests of the service begin with."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from outrider.etcd.seam import Cluster, Put
from outrider.model.documents import Block, Contender, Presence, Target, decode, encode
from outrider.model.keys import DEFAULT_PREFIX
from outrider.model.tasks import Task
from outrider.service.destinations import parse_allowed
from outrider.service.store.context import Clock
from outrider.service.store.packages import Payload
from outrider.service.store.store import Store, open_stores, utc_now

LOOPBACK = parse_allowed(("127.0.0.0/8", "::1"))
"""What webhooks may reach in tests, whose receivers are on this machine."""
APP = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"
SHA256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


def open_store(cluster: Cluster, prefix: str = DEFAULT_PREFIX, now: Clock = utc_now) -> Store:
    """A store in which a test prepares what it needs."""
    return open_stores(cluster, prefix, now).unaudited("a test prepares its documents")


def payload_of(version: str) -> Payload:
    """Some payload, another one for every version."""
    digest = f"{sum(map(ord, version)):064x}"
    return Payload(url=f"http://files.example/web-{version}.tar", size_bytes=1000, sha256=digest)


def make_app(
    store: Store, *, versions: Sequence[str] = ("1.0.0", "2.0.0"), channel: str = "beta", version: str | None = "1.0.0"
) -> None:
    """App, packages, a channel that points at ``version``, and a group ``beta`` on it."""
    store.apps.create(app=APP, label="Example")
    for each in versions:
        store.packages.create(APP, each, payload_of(each))
    store.channels.create(APP, channel, version=version)
    store.groups.create(APP, "beta", channel=channel)


def target_of(store: Store, group: str = "beta") -> Target:
    """The target key as it is stored."""
    key = store.context.keys.target(APP, group)
    entry = store.context.cluster.get(key)
    assert entry is not None, f"no target of {group}"
    return decode(Target, key, entry.value)


def block(store: Store, version: str, why: str, at: datetime, *, task: str = "") -> None:
    """Block a release, as a sidekick does; with ``task`` because that one failed."""
    document = Block(version=version, sha256=SHA256, instance="web-1", why=why, at=at, task=task)
    put(store.context.cluster, store.context.keys.block(APP, version), encode(document))


def be_alive(
    store: Store,
    instance: str,
    at: datetime,
    *,
    app: str = APP,
    group: str = "beta",
    serving: bool = True,
    labels: dict[str, str] | None = None,
    **facts: str,
) -> None:
    """Write a sidekick's presence."""
    words = {"state": "idle", "version": "1.0.0"} | facts
    document = Presence(
        instance=instance,
        app=app,
        group=group,
        since=at,
        serving=serving,
        labels=labels or {},
        **words,  # type: ignore[arg-type]
    )
    put(store.context.cluster, store.context.keys.presence(app, group, instance), encode(document))


def hold_turn(
    store: Store, instance: str, at: datetime, *, number: int = 0, app: str = APP, group: str = "beta", scope: str = ""
) -> None:
    """Write a slot key; ``scope``: of the scope with this name."""
    who = Contender(app=app, group=group, instance=instance, shared_scope=scope)
    document = who.slot(release="2.0.0", since=at, update=f"update-of-{instance}")
    put(store.context.cluster, store.context.keys.slot(who.scope, number, who.member), encode(document))


def stand_in_line(
    store: Store, instance: str, at: datetime, *, app: str = APP, group: str = "beta", scope: str = ""
) -> None:
    """Write a key of the queue; ``scope``: of the scope with this name."""
    who = Contender(app=app, group=group, instance=instance, shared_scope=scope)
    put(
        store.context.cluster,
        store.context.keys.waiter(who.scope, who.member),
        encode(who.waiter(release="2.0.0", since=at)),
    )


def put(cluster: Cluster, key: str, value: bytes) -> None:
    """Write one key, whatever is there."""
    assert cluster.txn((), (Put(key=key, value=value),)).succeeded


def lost_task(name: str, at: datetime, **facts: object) -> Task:
    """A task of 1.0.0 whose runner has ended."""
    task = Task(
        app=APP, group="beta", name=name, kind="pre", command=("bin/migrate",), version="1.0.0", release="1.0.0",
        key="1.0.0", sha256="1" * 64, state="unknown", instance="web-1", process="p1", claim="c1", limit_s=600.0,
        started=at, why="its runner web-1 has ended",
    )  # fmt: skip
    return msgspec.structs.replace(task, **facts)
