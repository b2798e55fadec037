"""The balancer agent: applies the entries of its services to the balancer beside it, and says what it has applied.

Rules:

- Level-triggered. Each round reads the entries anew, looks at the balancer, and does what is missing: watches only say
  that there is something to read. A round that changes nothing writes nothing.
- It acts only under its lease, and within ``STALE_S`` of the reading. An agent that stood still renews its lease and
  reads again before it applies anything, so that what was taken back meanwhile isn't done late (P2).
- Its ``applied`` keys are its claim to its name (``agent/claim.py``): whoever finds another process there ends.
- Nothing stored at all says nothing: an etcd that was emptied takes no server out of the balancer.
- What a restored etcd says of addresses was so once: the sidekicks have ``RESTORED_S`` to put their entries right.
"""

import socket
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from loguru import logger

from outrider import __version__
from outrider.balancers.agent.claim import NameTaken, ProcessId
from outrider.balancers.agent.driver import AgentDriver, AgentServer, Away, Report
from outrider.balancers.agent.entries import wanted_in
from outrider.balancers.agent.gauges import AgentGauges
from outrider.clocks import seconds_since_boot
from outrider.core.errors import Conflict, DriverError
from outrider.etcd.lease import LeaseKeeper
from outrider.etcd.seam import Cluster, Compare, CreatedAt, Entry, ModifiedAt, PermissionDenied, Put, Watch
from outrider.failpoints import failpoint
from outrider.model.balancer_agents import Agent, Applied
from outrider.model.damage import read_or_none
from outrider.model.documents import decode, encode
from outrider.model.epoch import Epoch, SeenEpochs
from outrider.model.keys import Keys
from outrider.sd_notify import Notifier

LOOK_S = 1.0
"""Time between two rounds when nothing is announced: so open requests are told at most once a second."""
STALE_S = 2.0
"""What was read is applied within this time, or read again."""
RESTORED_S = 10.0
"""A sidekick that reaches etcd writes its entry anew within a second or two."""
ROUNDS = 5
"""Plans in a row after which the balancer must do what was wanted."""
RETRY_S = 0.2


class BalancerAgent:
    """Looks after some services of one balancer, from one thread."""

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        drivers: Mapping[str, AgentDriver[Any, Any]],
        *,
        name: str,
        ttl_s: float,
        notifier: Notifier | None = None,
        clock: Callable[[], float] = seconds_since_boot,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            drivers: Service -> the balancer's driver for it.
            name: Unique among the agents of a service.
            ttl_s: Lifetime of the lease: how long a dead agent still counts as one that is heard.
            clock: Seconds that nobody sets and that go on while the machine sleeps.
        """
        self._wake, self._stopped = threading.Event(), False
        self._keeper = LeaseKeeper(
            cluster, ttl_s, on_granted=lambda _: self._wake.set(), on_lost=lambda *_: self._wake.set(), clock=clock
        )
        process = ProcessId.own()
        self._services = [
            ServiceRound(
                cluster,
                keys,
                driver,
                self._keeper,
                service=service,
                name=name,
                process=process,
                clock=clock,
                ttl_s=ttl_s,
            )
            for service, driver in drivers.items()
        ]
        self._cluster, self._keys, self._notifier = cluster, keys, notifier or Notifier()
        self._watches: list[Watch] = []
        self._died: BaseException | None = None

    def run(self) -> None:
        """Work until ``stop``. The balancer stays as it is then.

        Raises:
            NameTaken: another process is this agent.
        """
        self._keeper.start()
        is_ready = False
        try:
            while not self._stopped:
                if self._died is not None:
                    raise self._died
                self._watch()
                settled = [self._tend(one) for one in self._services]
                self._notifier.alive()
                if not is_ready and all(one.is_held for one in self._services):
                    is_ready = True
                    self._notifier.ready("applies " + ", ".join(one.service for one in self._services))
                    logger.bind(services=[one.service for one in self._services]).info("balancer agent runs")
                self._wake.wait(LOOK_S if all(settled) else RETRY_S)
                self._wake.clear()
        finally:
            self._notifier.stopping()
            for watch in self._watches:
                watch.close()
            self._keeper.close(revoke=True)

    def gauges(self) -> tuple[AgentGauges, ...]:
        """What is measured of its services now; for any thread."""
        return tuple(one.gauges(is_connected=self._keeper.lease is not None) for one in self._services)

    def stop(self) -> None:
        """Let ``run`` end; safe in a signal handler's thread."""
        self._stopped = True
        self._wake.set()

    def crash(self, error: BaseException) -> None:
        """Let ``run`` raise what another thread died of."""
        self._died = error
        self._wake.set()

    def _tend(self, one: "ServiceRound") -> bool:
        """Whether there is nothing more to do before something changes."""
        lease = self._keeper.lease
        if lease is None:
            return True  # the next lease wakes us
        try:
            return one.tend(lease)
        except DriverError as error:
            denied = isinstance(error, PermissionDenied)
            log = logger.bind(service=one.service, error_kind=error.kind, cause=str(error))
            log.log("ERROR" if denied else "WARNING", "etcd does not permit it" if denied else "etcd away")
            return True

    def _watch(self) -> None:
        """Be woken by every change of what is read; without a watch the rounds find it a second later."""
        if self._watches:
            return
        try:
            revision = self._cluster.list(self._keys.epoch(), exact=True).revision + 1
            prefixes = [(self._keys.epoch(), True), *((self._keys.servers(s.service), False) for s in self._services)]
            for prefix, exact in prefixes:
                self._watches.append(self._cluster.watch(prefix, revision, lambda _: self._wake.set(), exact=exact))
        except DriverError:
            return


class ServiceRound:
    """What the agent knows of one service."""

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        driver: AgentDriver[Any, Any],
        keeper: LeaseKeeper,
        *,
        service: str,
        name: str,
        process: ProcessId,
        clock: Callable[[], float],
        ttl_s: float,
    ) -> None:
        self.service = service
        self._cluster, self._driver, self._keeper, self._clock, self._ttl_s = cluster, driver, keeper, clock, ttl_s
        self._name, self._process, self._machine = name, process, socket.gethostname()
        self._prefix, self._epoch_key = keys.servers(service), keys.epoch()
        self._agent_key, self._applied_key = keys.agent(service, name), keys.applied(service, name)
        self._known: dict[str, AgentServer] = {}
        self._lease = self._revision = 0
        self._told: Applied | None = None
        self._told_at = 0.0
        self._looked_at: float | None = None
        self._waits_since: float | None = None
        self._epochs, self._applies_from = SeenEpochs(), clock()
        self._complaints: tuple[str, ...] = ()

    @property
    def is_held(self) -> bool:
        """Whether the name is ours."""
        return self._lease != 0

    def gauges(self, *, is_connected: bool) -> AgentGauges:
        """What is measured of the service now; for any thread."""
        return AgentGauges(
            service=self.service,
            name=self._name,
            balancer=self._driver.name,
            machine=self._machine,
            is_held=self.is_held,
            is_connected=is_connected,
            told=self._told,
            looked_s=None if self._looked_at is None else max(0.0, self._clock() - self._looked_at),
        )

    def tend(self, lease: int) -> bool:
        """One round. Whether nothing is left to do for now.

        Raises:
            NameTaken: another process is this agent.
            DriverError: etcd didn't answer, or the claim was lost; the next round begins anew.
        """
        if self._lease != lease and not self._claim(lease):
            return False
        read_at = self._clock()
        with failpoint("agent.read"):
            listing = self._cluster.list(self._prefix)
            epoch = self._cluster.get(self._epoch_key)
        had_servers = self._register(bool(listing.entries))
        wanted = wanted_in(listing.entries, self._prefix, self._known)
        self._complain(wanted.strange)
        self._known = {server.id: server for server in wanted.servers}
        seen = _epoch_in(epoch)
        token = seen.token if seen is not None else ""
        if why := self._epochs.saw(seen, listing.revision):
            logger.bind(service=self.service, why=why).warning("etcd was restored")
            self._applies_from = read_at + RESTORED_S
        if read_at < self._applies_from:
            waits = f"etcd was restored: within {RESTORED_S:g} s the sidekicks put their entries right"
            return self._tell(token, 0, None, problem=waits, away=True)
        # not the listing's own revision, which any write anywhere moves; each change of a server writes its guard
        revision = max((entry.mod_revision for entry in listing.entries), default=0)
        if not had_servers:
            return self._tell(token, revision, None, problem="")
        try:
            report = self._apply(wanted.servers, lease, read_at)
        except DriverError as error:
            assert self._told is not None, "applied without a claim"
            if str(error) != self._told.problem:  # not again with every round
                logger.bind(service=self.service, error_kind=error.kind, cause=str(error)).error("entries not applied")
            self._tell(token, self._told.revision, None, problem=str(error), away=isinstance(error, Away))
            return True
        if report is None:
            return False
        missing = [one.url for one in wanted.servers if one.url not in report.serving]
        problem = f"{self._driver.name} does not serve {', '.join(missing)}" if missing else ""
        return self._tell(token, revision, report, problem=problem)

    def _apply(self, servers: tuple[AgentServer, ...], lease: int, read_at: float) -> Report | None:
        """Make the balancer do what ``servers`` say; None when what was read has become too old on the way."""
        for _ in range(ROUNDS):
            state = self._driver.look()
            commands = self._driver.plan(servers, state)
            if not commands:
                return self._driver.report(servers, state)
            for command in commands:
                if self._keeper.lease != lease or self._clock() - read_at > STALE_S:
                    logger.bind(service=self.service).warning("stood still: reading again before anything is applied")
                    return None
                with failpoint("agent.apply"):
                    self._driver.perform(command)
                logger.bind(service=self.service, command=str(command)).info("applied")
            # a command may take seconds, as a reload does: what comes next must fit what is stored then
            read_at = self._clock() if self._is_unchanged(servers) else read_at - 2 * STALE_S
        raise DriverError(f"{self._driver.name} is changed by somebody else at the same time; trying again")

    def _is_unchanged(self, servers: tuple[AgentServer, ...]) -> bool:
        """Whether the entries are still as they were read."""
        listing = self._cluster.list(self._prefix)
        return wanted_in(listing.entries, self._prefix, self._known).servers == servers

    def _claim(self, lease: int) -> bool:
        """Take the name under a new lease; whether it is ours.

        Raises:
            NameTaken: another process has it.
        """
        found = self._cluster.get(self._applied_key)
        other = _other_in(found, self._process)
        if other is not None and not self._may_take_over(other):
            return False
        before = self._told or Applied(
            service=self.service,
            name=self._name,
            process=str(self._process),
            machine=self._machine,
            revision=0,
            at=_now(),
            outrider=__version__,
        )
        first = msgspec.structs.replace(before, revision=0, problem="is starting", away=False, at=_now())
        compare: Compare = (
            ModifiedAt(key=self._applied_key, revision=found.mod_revision)
            if found is not None
            else CreatedAt(key=self._applied_key, revision=0)
        )
        with failpoint("agent.claim"):
            done = self._cluster.txn((compare,), (Put(key=self._applied_key, value=encode(first), lease=lease),))
        if done.succeeded:
            self._lease, self._revision, self._told, self._waits_since = lease, done.revision, first, None
        return done.succeeded

    def _may_take_over(self, other: Applied) -> bool:
        """Whether the name's holder has surely ended. One that lives longer than a lease is another process."""
        process = ProcessId.parse(other.process)
        if process is not None and process.surely_ended(self._process):
            return True
        now = self._clock()
        if self._lease or (self._waits_since is not None and now - self._waits_since > self._ttl_s * 1.5 + 1.0):
            raise NameTaken.by(other)
        if self._waits_since is None:
            self._waits_since = now
            logger.bind(service=self.service, machine=other.machine).warning(
                "an earlier process of this agent has the name until its lease ends"
            )
        return False

    def _register(self, has_servers: bool) -> bool:
        """Be known to the sidekicks, until an operator removes the registration.

        Args:
            has_servers: Something is stored of the service's servers.

        Returns:
            Whether there was, since the registration was made: only then is an empty listing meant so.
        """
        found = self._cluster.get(self._agent_key)
        before = read_or_none(Agent, found.key, found.value) if found is not None else None
        had_servers = has_servers or (before is not None and before.had_servers)
        mine = Agent(
            service=self.service,
            name=self._name,
            balancer=self._driver.name,
            machine=self._machine,
            had_servers=had_servers,
            since=before.since if before is not None else _now(),
        )
        if mine == before:
            return had_servers
        compare = ModifiedAt(key=self._agent_key, revision=found.mod_revision if found is not None else 0)
        with failpoint("agent.register"):
            self._cluster.txn((compare,), (Put(key=self._agent_key, value=encode(mine)),))
        return had_servers

    def _tell(self, token: str, revision: int, report: Report | None, *, problem: str, away: bool = False) -> bool:
        """Write what is so now, if it isn't written yet. Open requests alone are told once a second."""
        assert self._told is not None, "told without a claim"
        before = self._told
        after = msgspec.structs.replace(
            before,
            epoch=token,
            revision=max(revision, before.revision) if token == before.epoch and revision else revision,
            problem=problem,
            away=away,
        )
        if report is not None:
            after = msgspec.structs.replace(
                after,
                serving=tuple(sorted(report.serving)),
                draining=dict(sorted(report.draining.items())),
                version=report.version,
            )
        now = self._looked_at = self._clock()
        if after == before:
            return True
        counts_alone = msgspec.structs.replace(after, draining=before.draining) == before
        if counts_alone and set(after.draining) == set(before.draining) and now - self._told_at < LOOK_S:
            return True
        after = msgspec.structs.replace(after, at=_now())
        with failpoint("agent.tell"):
            done = self._cluster.txn(
                (ModifiedAt(key=self._applied_key, revision=self._revision),),
                (Put(key=self._applied_key, value=encode(after), lease=self._lease),),
            )
        if not done.succeeded:
            if done.found and (other := _other_in(done.found[0], self._process)) is not None:
                raise NameTaken.by(other)
            self._lease = 0  # it ended with the lease, or etcd was restored: the name is taken anew
            return False
        self._told, self._told_at, self._revision = after, now, done.revision
        return True

    def _complain(self, strange: tuple[str, ...]) -> None:
        for key in strange:
            if key not in self._complaints:
                logger.bind(key=key).error("entry not understood; its server stays as it was")
        self._complaints = strange


def _other_in(found: Entry | None, process: ProcessId) -> Applied | None:
    """What another process has written there; None when nobody has, or we."""
    if found is None:
        return None
    try:
        applied = decode(Applied, found.key, found.value)
    except Conflict:
        return None
    return applied if applied.process != str(process) else None


def _epoch_in(epoch: Entry | None) -> Epoch | None:
    try:
        return decode(Epoch, epoch.key, epoch.value) if epoch is not None else None
    except Conflict:
        return None


def _now() -> datetime:
    return datetime.now(UTC)
