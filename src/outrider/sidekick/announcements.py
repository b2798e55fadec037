"""What the fleet tells this instance through etcd: target, block, wake-up, commands. Watches, never polls (P8).

Each subject is read once, then watched from the revision after that; while etcd is away, both are tried again with
back-off. An announcement is handed to the loop as an event; what it means is the chart's business.
"""

import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace

from loguru import logger

from outrider.core.errors import DriverError
from outrider.core.sidekick.events import (
    BlockChanged,
    Commanded,
    GrantEnded,
    OperatorDecommissioned,
    OperatorDrained,
    OperatorPaused,
    OperatorResumed,
    OperatorRetried,
    OperatorRolledBack,
    OperatorUndrained,
    TargetChanged,
    WakeupReceived,
)
from outrider.etcd.seam import Cluster, Entry, ModifiedAt
from outrider.etcd.seam import Delete as DeleteKey
from outrider.etcd.seen import SeenRevision
from outrider.etcd.subject import RETRY_MAX_S, RETRY_MIN_S, Subject
from outrider.failpoints import failpoint, for_same_instance
from outrider.model.damage import read_or_none
from outrider.model.documents import Block, Command, D, Target, Wakeup
from outrider.model.keys import Keys
from outrider.sidekick.workers.worker import Post, now

AnyCommanded = (
    OperatorDecommissioned
    | OperatorDrained
    | OperatorPaused
    | OperatorResumed
    | OperatorRetried
    | OperatorRolledBack
    | OperatorUndrained
)
KEPT_BLOCKS = 20
"""The newest blocks are told; all of them would be in every record of the journal, and they become more for years. An
older one still holds: the update service offers no such release, and etcd grants no turn for it."""


class Announcements:
    """Follows everything that this instance must hear of."""

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        *,
        app: str,
        group: str,
        instance: str,
        post: Post,
        seen: SeenRevision | None = None,
    ) -> None:
        """``seen``: notes what this instance knows of; the update service answers from nothing older."""
        self._seen = seen or SeenRevision()
        self._cluster, self._post, self._group = cluster, post, group
        self._target, self._blocks = keys.target(app, group), keys.blocks(app)
        self._wakeup, self._command = keys.wakeup(app, instance), keys.command(app, instance)
        self._grant, self._had_grant = f"{keys.grants(app, group)}{instance}", False
        self._taken = self._told = 0
        self._closed = threading.Event()
        self._subjects: list[Subject] = []
        self._taken_ids: set[str] = set()

    def look_again(self) -> None:
        """etcd was restored: read everything anew, and let no revision of before count."""
        self._taken = self._told = 0
        self._seen.forget()
        for subject in self._subjects:
            subject.begin_again()

    def start(self, *, command_revision: int, default_slots: int, commands: Iterable[str] = ()) -> None:
        """Begin; these ``commands``, and those without an id up to ``command_revision``, were taken before the restart.

        They are only removed. A revision alone doesn't tell: a restored etcd counts from an earlier one.
        """
        self._taken, self._default_slots = command_revision, default_slots
        self._taken_ids.update(commands)
        for prefix, tell, exact in (
            (self._target, self._tell_target, True),
            (self._blocks, self._tell_blocks, False),
            (self._grant, self._tell_grant, True),
            (self._wakeup, self._tell_wakeup, True),
            (self._command, self._tell_command, True),
        ):
            self._subjects.append(Subject(self._cluster, prefix, self._noting(tell), exact=exact))

    def close(self) -> None:
        self._closed.set()
        for subject in self._subjects:
            subject.close()

    def _noting(self, tell: Callable[[dict[str, Entry], int], None]) -> Callable[[dict[str, Entry], int], None]:
        """``tell``, after the revision is noted: the check-in that follows must know of it."""

        def noted(entries: dict[str, Entry], revision: int) -> None:
            self._seen.note(revision)
            tell(entries, revision)

        return noted

    def consumed(self, event: Commanded) -> None:
        """The command is in the journal: remove it from etcd."""
        self._taken = max(self._taken, event.revision)
        if event.command:
            self._taken_ids.add(event.command)
        self._remove_soon(event.revision)

    def _tell_target(self, entries: dict[str, Entry], revision: int) -> None:
        entry = entries.get(self._target)
        target = self._read(Target, entry) if entry is not None else None
        if entry is None or target is None:
            event = TargetChanged(at=now(), version=None, paused=False, slots=self._default_slots, revision=0)
        else:
            event = TargetChanged(
                at=now(),
                version=target.version,
                release=(target.label or "") if target.label != target.version else "",
                recorded={one.label: one.sha256 for one in target.releases if one.sha256},
                paused=target.paused,
                slots=target.slots,
                revision=entry.mod_revision,
            )
        self._post(event)

    def _tell_blocks(self, entries: dict[str, Entry], revision: int) -> None:
        releases = {}
        newest = sorted(entries.items(), key=lambda item: item[1].mod_revision)[-KEPT_BLOCKS:]
        for key, entry in newest:
            block = self._read(Block, entry)
            if block is None:
                releases[key.removeprefix(self._blocks)] = "no reason kept"
            elif block.group in ("", self._group):  # the environments of other groups are none of ours
                releases[block.release.label] = f"{block.instance}: {block.why}"
        self._post(BlockChanged(at=now(), versions=releases))

    def _tell_grant(self, entries: dict[str, Entry], revision: int) -> None:
        """Only its end is news. One that ends before it was seen is found by the transaction that takes the turn."""
        has, had = self._grant in entries, self._had_grant
        self._had_grant = has
        if had and not has:
            self._post(GrantEnded(at=now()))

    def _tell_wakeup(self, entries: dict[str, Entry], revision: int) -> None:
        entry = entries.get(self._wakeup)
        wakeup = self._read(Wakeup, entry) if entry is not None else None
        if wakeup is not None:
            self._post(WakeupReceived(at=now(), why=wakeup.why))

    def _tell_command(self, entries: dict[str, Entry], revision: int) -> None:
        entry = entries.get(self._command)
        command = self._read(Command, entry) if entry is not None else None
        if entry is None or command is None:
            return
        known = command.id in self._taken_ids if command.id else entry.mod_revision <= self._taken
        if known:
            self._remove_soon(entry.mod_revision)
            return
        if entry.mod_revision == self._told:  # listed once more after a broken stream, and not in the journal yet
            return
        self._told = entry.mod_revision
        logger.bind(verb=command.verb, by=command.by).info("command received")

        def tell(event: AnyCommanded) -> None:
            self._post(replace(event, command=command.id))

        match command.verb:
            case "pause":
                tell(OperatorPaused(at=now(), revision=entry.mod_revision))
            case "resume":
                tell(OperatorResumed(at=now(), revision=entry.mod_revision))
            case "retry":
                tell(OperatorRetried(at=now(), revision=entry.mod_revision))
            case "drain":
                tell(
                    OperatorDrained(
                        at=now(),
                        revision=entry.mod_revision,
                        update=uuid.uuid4().hex,
                        for_s=command.for_s,
                        until_reboot=command.until_reboot,
                    )
                )
            case "undrain":
                tell(OperatorUndrained(at=now(), revision=entry.mod_revision))
            case "decommission":
                tell(
                    OperatorDecommissioned(
                        at=now(), revision=entry.mod_revision, update=uuid.uuid4().hex, by=command.by
                    )
                )
            case "rollback":
                tell(
                    OperatorRolledBack(
                        at=now(), revision=entry.mod_revision, update=uuid.uuid4().hex, version=command.version
                    )
                )

    def _remove_soon(self, revision: int) -> None:
        remove = for_same_instance(lambda: self._remove_until_gone(revision))
        threading.Thread(target=remove, name="command", daemon=True).start()

    def _remove_until_gone(self, revision: int) -> None:
        delay_s = RETRY_MIN_S
        while not self._remove_command(revision) and not self._closed.wait(delay_s):
            delay_s = min(RETRY_MAX_S, delay_s * 2)

    def _remove_command(self, revision: int) -> bool:
        """Whether etcd has answered; what isn't removed now is remembered as taken, and removed after a restart."""
        try:
            with failpoint("command.remove"):
                self._cluster.txn((ModifiedAt(key=self._command, revision=revision),), (DeleteKey(key=self._command),))
        except DriverError as error:
            logger.bind(error_kind=error.kind, cause=str(error)).warning("command not removed")
            return False
        return True

    @staticmethod
    def _read(kind: type[D], entry: Entry) -> D | None:
        """A document that can't be read is as good as absent, and a person must look."""
        return read_or_none(kind, entry.key, entry.value)
