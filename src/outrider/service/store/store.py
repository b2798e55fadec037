"""Everything the service knows, in etcd and nowhere else: a process keeps nothing between two requests."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from outrider.etcd.seam import Cluster
from outrider.model.keys import DEFAULT_PREFIX, Keys
from outrider.service.store.apps import Apps
from outrider.service.store.audit import KEPT_DAYS, AuditLog
from outrider.service.store.changes import Audited, Auditing, Unaudited
from outrider.service.store.channels import Channels
from outrider.service.store.client_tokens import ClientTokens
from outrider.service.store.context import Clock, StoreContext
from outrider.service.store.environments import Environments
from outrider.service.store.floors import Floors
from outrider.service.store.frames import FramesOfRollouts
from outrider.service.store.groups import Groups
from outrider.service.store.instances import Fleet
from outrider.service.store.packages import Packages
from outrider.service.store.request import RequestContext
from outrider.service.store.rollouts import Rollouts
from outrider.service.store.sessions import Sessions
from outrider.service.store.signing import Signing
from outrider.service.store.tasks import Tasks
from outrider.service.store.users import Users


def utc_now() -> datetime:
    """The time, as documents hold it."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The resource stores of one key prefix, bound to one request or to a reason why nothing is audited."""

    context: StoreContext
    auditing: Auditing

    @property
    def apps(self) -> Apps:
        return Apps(context=self.context, auditing=self.auditing)

    @property
    def channels(self) -> Channels:
        return Channels(context=self.context, auditing=self.auditing)

    @property
    def floors(self) -> Floors:
        return Floors(context=self.context, auditing=self.auditing)

    @property
    def groups(self) -> Groups:
        return Groups(context=self.context, auditing=self.auditing)

    @property
    def environments(self) -> Environments:
        return Environments(context=self.context, auditing=self.auditing)

    @property
    def rollouts(self) -> Rollouts:
        return Rollouts(context=self.context, auditing=self.auditing)

    @property
    def frames(self) -> FramesOfRollouts:
        return FramesOfRollouts(context=self.context, auditing=self.auditing)

    @property
    def packages(self) -> Packages:
        return Packages(context=self.context, auditing=self.auditing)

    @property
    def tasks(self) -> Tasks:
        return Tasks(context=self.context, auditing=self.auditing)

    @property
    def signing(self) -> Signing:
        return Signing(context=self.context, auditing=self.auditing)

    @property
    def fleet(self) -> Fleet:
        return Fleet(context=self.context, auditing=self.auditing)

    @property
    def client_tokens(self) -> ClientTokens:
        return ClientTokens(context=self.context, auditing=self.auditing)

    @property
    def users(self) -> Users:
        return Users(context=self.context, auditing=self.auditing)

    @property
    def sessions(self) -> Sessions:
        return Sessions(context=self.context, auditing=self.auditing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """One key prefix. It has no resource stores of its own: say first on whose behalf they work."""

    context: StoreContext
    audit_log: AuditLog

    def audited(self, request: RequestContext) -> Audited:
        """Changes that are recorded as those of ``request``."""
        return Audited(request=request, log=self.audit_log)

    def on_behalf_of(self, request: RequestContext) -> Store:
        """The store for one request: it obeys the request's condition, and its changes are in the audit log."""
        return Store(context=replace(self.context, seen=request.seen), auditing=self.audited(request))

    def unaudited(self, reason: str) -> Store:
        """A store whose changes leave no entry in the audit log; ``reason`` says why, for the log."""
        return Store(context=self.context, auditing=Unaudited(reason))


def open_stores(
    cluster: Cluster, prefix: str = DEFAULT_PREFIX, now: Clock = utc_now, *, audit_days: int = KEPT_DAYS
) -> Stores:
    """The stores below ``prefix``; nothing is read or written yet."""
    context = StoreContext(cluster=cluster, keys=Keys(prefix), now=now)
    return Stores(context=context, audit_log=AuditLog(context=context, kept_days=audit_days))
