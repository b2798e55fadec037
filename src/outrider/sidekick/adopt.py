"""``outrider adopt``: find a workload that something else started, check it, and make it this instance's own.

It is written down first (``adopted.json``), and then its entry in the balancer is taken over. Both may be repeated:
whoever was interrupted in between types the command again, or starts the sidekick, which puts the entry right.
"""

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass

import msgspec

from outrider.balancers.drivers import BALANCERS, BalancerContext
from outrider.balancers.entry import EtcdEntry
from outrider.balancers.takeover import Pool, TakeOver
from outrider.config.sections import Settings
from outrider.core.errors import ConfigError
from outrider.core.omaha import app_key
from outrider.core.sidekick.memory import Memory
from outrider.core.sidekick.remember import workload_id
from outrider.core.versions import parse
from outrider.etcd.client import connect
from outrider.etcd.seam import Cluster
from outrider.journal.journal import Journal
from outrider.model.documents import Owner
from outrider.model.keys import Keys
from outrider.runtimes.adopted import AdoptedRecord, Candidate, adopter, keep_record, read_record
from outrider.sidekick import probes
from outrider.sidekick.assemble import etcd_address

_LOOKS = 3
"""How often it is asked before it counts as not well: what serves already has no start to wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would be adopted, checked.

    Attributes:
        record: What is written down.
        candidate: What was found.
        told_by: What told the version.
        probed: What it answers well, in words.
        entry: Its server in the balancer; None when the balancer has none that can be seen from here.
        entry_words: What becomes of that.
    """

    record: AdoptedRecord
    candidate: Candidate
    told_by: str
    probed: str
    entry: TakeOver | None
    entry_words: str


class Adoption:
    """Adopts one workload for the instance of ``settings``."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], *, cluster: Cluster | None = None) -> None:
        """Nothing is asked yet. ``cluster``: the connection to use; None: one as the settings say."""
        self._settings, self._environment, self._given = settings, environment, cluster
        self._state_dir = settings.instance.state_dir

    def plan(self, kind: str, name: str, *, version: str = "", url: str = "") -> Plan:
        """Check everything, and change nothing.

        Args:
            kind, name: As ``runtimes.adopted`` has them.
            version, url: What the operator says of it; empty: what can be found out.

        Raises:
            ConfigError: it can't be adopted, and why.
            DriverError: Docker, systemd or etcd doesn't do what it should.
        """
        self._check_folder()
        used = (self._state_dir / "journal.jsonl").exists()
        with closing(self._journal()) if used else nullcontext():
            candidate = adopter(kind).look(name, self._settings, self._environment, url=url)
            record = self._record(candidate, version)
            self._check_restart(record)
            self._check_health(record)
            with self._connected() as cluster:
                pool = self._pool(cluster)
                found = pool.look(record.url) if pool is not None else None
                if pool is not None and found is not None:
                    pool.check(found, record.url)
        return Plan(
            record=record,
            candidate=candidate,
            told_by="--version" if version else candidate.told_by,
            probed=probes.name_of(self._settings.probe),
            entry=found,
            entry_words=self._entry_words(found),
        )

    def carry_out(self, plan: Plan) -> str:
        """Adopt it. Returns the id that its server had in the balancer; empty when there was none.

        Raises:
            ConfigError, DriverError: as ``plan``; what was written down stays, and the command may be repeated.
        """
        with closing(self._journal()):
            keep_record(self._state_dir, plan.record)
            with self._connected() as cluster:
                pool = self._pool(cluster)
                if pool is None:
                    return ""
                return pool.take_over(plan.record.url, workload=plan.record.workload_id)

    @contextmanager
    def _connected(self) -> Iterator[Cluster]:
        if self._given is not None:
            yield self._given
            return
        with closing(connect(etcd_address(self._settings.etcd))) as cluster:
            yield cluster

    def _journal(self) -> Journal:
        """Keep the sidekick from running meanwhile, and see that nothing runs as this instance already.

        Raises:
            JournalError: a sidekick runs.
            ConfigError: the instance has a version.
        """
        journal = Journal(self._state_dir)
        if journal.last is not None:
            memory = msgspec.convert(journal.last.memory, type=Memory)
            if memory.running is not None or memory.candidate is not None:
                journal.close()
                has = memory.running or memory.candidate
                assert has is not None
                raise ConfigError(
                    f"instance {self._settings.instance.id} has a version already, {has.release.version}: only one that"
                    " has none yet can adopt"
                )
        return journal

    def _check_folder(self) -> None:
        """What is written there must be the sidekick's to write.

        Raises:
            ConfigError: the folder is another user's.
        """
        try:
            owner = self._state_dir.stat().st_uid
        except (FileNotFoundError, NotADirectoryError):
            return
        if owner != os.geteuid():
            raise ConfigError(
                f"{self._state_dir} belongs to uid {owner}, and this is uid {os.geteuid()}: run it as the sidekick's"
                " user"
            )

    def _record(self, candidate: Candidate, version: str) -> AdoptedRecord:
        version = version or candidate.version
        if not version:
            raise ConfigError(f"{candidate.handle}: nothing tells its version; say it with --version")
        parse(version)
        if len(candidate.urls) != 1:
            where = (
                f"answers at {', '.join(candidate.urls)}: say which with --url"
                if candidate.urls
                else "has no port that can be seen from here: say where it answers with --url"
            )
            raise ConfigError(f"{candidate.handle}: {where}")
        ((url, published),) = candidate.urls.items()
        before = read_record(self._state_dir)
        same = before is not None and (before.kind, before.id) == (candidate.kind, candidate.id)
        if before is not None and not same:
            raise ConfigError(
                f"instance {self._settings.instance.id} has adopted {before.name} already; remove"
                f" {self._state_dir / 'adopted.json'} if it should be another one"
            )
        return AdoptedRecord(
            kind=candidate.kind,
            id=candidate.id,
            name=candidate.name,
            workload_id=workload_id(self._settings.instance.id, version, "adopted"),
            version=version,
            url=url,
            published=published,
            policy=candidate.policy,
            program=candidate.program,
            no_restart=candidate.no_restart,
        )

    def _check_restart(self, record: AdoptedRecord) -> None:
        if record.no_restart and self._settings.instance.strategy == "stop-first":
            raise ConfigError(
                f"{record.name}: stop-first would stop it before its successor is proved, and a rollback could not"
                f" start it again: {record.no_restart}; set instance.strategy to start-first"
            )

    def _check_health(self, record: AdoptedRecord) -> None:
        settings = self._settings.probe
        foreign = adopter(record.kind).foreign(record, self._settings, self._environment)
        with closing(foreign):
            for look in range(_LOOKS):
                if look:
                    time.sleep(settings.interval_s)
                said = probes.ask(record.url, settings, lambda _: foreign.health())
                if not said:
                    return
        raise ConfigError(
            f"{record.name}: its health check fails at {record.url} ({probes.name_of(settings)}): {said}"
            f"{probes.hint(said)}"
        )

    def _pool(self, cluster: Cluster) -> Pool | None:
        """The servers of the balancer's service; None without a balancer."""
        instance, shared = self._settings.instance, self._settings.balancer
        owner = Owner(
            app=app_key(instance.app), group=instance.group, instance=instance.id, process=uuid.uuid4().hex
        )  # fmt: skip
        keys = Keys(self._settings.etcd.prefix)
        balancer = BALANCERS.load(instance.balancer).make(
            self._settings, BalancerContext(cluster=cluster, keys=keys, owner=owner)
        )
        if not isinstance(balancer.entry, EtcdEntry):
            return None
        return Pool(cluster, balancer.entry, service=shared.service, server_id=shared.server_id, keys=keys, owner=owner)

    def _entry_words(self, found: TakeOver | None) -> str:
        shared = self._settings.balancer
        where = f"service {shared.service}"
        if found is None:
            return "there is no balancer (instance.balancer is none)"
        if found.others:
            return f"server {found.others[0].id} of {where} becomes {shared.server_id}"
        if found.own is not None:
            return f"server {shared.server_id} of {where}, as it is"
        if not found.searched:
            return f"server {shared.server_id} is missing in {where}; others can't be looked for with these templates"
        return f"missing in {where}: the sidekick puts in server {shared.server_id}"
