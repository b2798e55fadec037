"""Everything the service knows, in etcd and nowhere else: a process keeps nothing between two requests."""

from dataclasses import dataclass
from datetime import UTC, datetime

from outrider.etcd.seam import Cluster
from outrider.model.keys import DEFAULT_PREFIX, Keys
from outrider.service.store.apps import Apps
from outrider.service.store.channels import Channels
from outrider.service.store.context import Clock, StoreContext
from outrider.service.store.floors import Floors
from outrider.service.store.groups import Groups
from outrider.service.store.instances import Fleet
from outrider.service.store.packages import Packages
from outrider.service.store.rollouts import Rollouts
from outrider.service.store.users import Users


def utc_now() -> datetime:
    """The time, as documents hold it."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The nouns of one key prefix."""

    context: StoreContext
    apps: Apps
    channels: Channels
    floors: Floors
    groups: Groups
    rollouts: Rollouts
    packages: Packages
    fleet: Fleet
    users: Users


def open_store(cluster: Cluster, prefix: str = DEFAULT_PREFIX, now: Clock = utc_now) -> Store:
    """The store below ``prefix``; nothing is read or written yet."""
    context = StoreContext(cluster=cluster, keys=Keys(prefix), now=now)
    return Store(
        context=context,
        apps=Apps(context=context),
        channels=Channels(context=context),
        floors=Floors(context=context),
        groups=Groups(context=context),
        rollouts=Rollouts(context=context),
        packages=Packages(context=context),
        fleet=Fleet(context=context),
        users=Users(context=context),
    )
