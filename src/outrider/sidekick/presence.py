"""Presence: this sidekick's live state in etcd, under its lease.

For people and the web page; the service counts by it who serves (``min_healthy``), and sidekicks decide nothing by it.

It also says which process the instance is. A presence of another process isn't overwritten: either that one lives,
and then two sidekicks are the same instance, or its lease ends soon. Until then this one is a *stranger*: it says so in
etcd under a key of its own, which ``outrider status`` shows, and the chart waits. Whoever has the presence sees the
stranger, too, and says so in its notice.
"""

import threading
from collections.abc import Callable

from loguru import logger
from msgspec.structs import replace

from outrider.core.errors import Conflict, DriverError, Unknown
from outrider.core.sidekick.events import IdentityAccepted, IdentityRefused
from outrider.etcd.seam import (
    DENIED_RETRY_S,
    Cluster,
    CreatedAt,
    Delete,
    Entry,
    ModifiedAt,
    PermissionDenied,
    Put,
)
from outrider.etcd.subject import Subject
from outrider.failpoints import failpoint, for_same_instance
from outrider.model.documents import Contender, Gone, Presence, Stranger, decode, encode
from outrider.model.keys import Keys
from outrider.pool import ElasticPool, Rounds
from outrider.sidekick.identity import Identity
from outrider.sidekick.workers.worker import Post, now

RETRY_S = 2.0


class PresenceWriter:
    """Writes the newest state, on a thread of the pool; states that are overtaken meanwhile are skipped."""

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        contender: Contender,
        identity: Identity,
        lease: Callable[[], int | None],
        post: Post,
        accepted: Callable[[], None] = lambda: None,
        *,
        caution: str = "",
        pool: ElasticPool | None = None,
    ) -> None:
        """Begin; nothing is written before ``show``.

        Args:
            cluster: Where the presence is.
            keys: Under which keys.
            contender: The instance, and the scope in which it takes turns.
            identity: This process.
            lease: The sidekick's lease while it can be trusted.
            post: Hears whether this process is the instance.
            accepted: Called when it is, before that is posted; when it raises a ``DriverError``, soon again.
            caution: A part of the notice as long as this process lives.
            pool: Lends the thread that writes; None: one of its own.
        """
        self._tell_accepted, self._caution = accepted, caution
        self._cluster, self._us, self._identity, self._lease, self._post = cluster, contender, identity, lease, post
        self._key = keys.presence(contender.app, contender.group, contender.instance)
        self._gone = keys.gone(contender.app, contender.instance)
        self._strangers = keys.strangers_of(contender.app, contender.instance)
        self._stranger = keys.stranger(contender.app, contender.instance, identity.process)
        self._subjects: list[Subject] = []
        self._written = 0
        self._refused: tuple[str, int] | None = None
        self._is_accepted = False
        self._others = self._warning = self._hint = self._denied = ""
        self._changed = threading.Condition()
        self._newest: Presence | None = None
        self._note = ""
        self._stale = False
        self._closed = False
        self._acknowledged: int | None = None
        self._rounds = Rounds(pool, for_same_instance(self._round), "presence")

    def start(self) -> None:
        """Look out for others who are this instance, too."""
        self._subjects = [
            Subject(self._cluster, self._key, self.saw_presence, exact=True),
            Subject(self._cluster, self._strangers, self.saw_strangers, exact=False),
        ]

    def show(self, presence: Presence) -> None:
        """Let the fleet see this from now on."""
        with self._changed:
            self._newest, self._stale = replace(presence, shared_scope=self._us.shared_scope), True
            self._wake()

    def note(self, text: str) -> None:
        """Add ``text`` to the reason that is shown, until another one comes; empty: nothing is added.

        For what happens within a state, such as the answers so far to a probe: the machine needs no event of it.
        """
        with self._changed:
            if text != self._note:
                self._note, self._stale = text, self._newest is not None
                self._wake()

    def warn(self, text: str) -> None:
        """Show ``text`` as the notice, until another one comes; empty: nothing is shown."""
        with self._changed:
            if text != self._warning:
                self._warning, self._stale = text, self._newest is not None
                self._wake()

    def hint(self, text: str) -> None:
        """Add ``text`` to the notice, until another one comes; empty: nothing is added."""
        with self._changed:
            if text != self._hint:
                self._hint, self._stale = text, self._newest is not None
                self._wake()

    def proof(self, within_s: float) -> str:
        """The secret of this process, once etcd has acknowledged the presence under the present lease.

        Raises:
            Unknown: it hasn't within ``within_s`` seconds; nothing may be asked in the instance's name yet.
        """

        def is_known() -> bool:
            lease = self._lease()
            return self._closed or (lease is not None and lease == self._acknowledged)

        with self._changed:
            if self._changed.wait_for(is_known, timeout=within_s) and not self._closed:
                return self._identity.secret
        raise Unknown(
            "the update service wasn't asked: etcd hasn't acknowledged yet that this sidekick is"
            f" {self._us.app}/{self._us.instance}"
        )

    def deny(self, text: str) -> None:
        """Add what etcd doesn't permit to the notice; empty: it permits all."""
        with self._changed:
            if text != self._denied:
                self._denied, self._stale = text, self._newest is not None
                self._wake()

    def doubt(self) -> None:
        """Say anew whether this process is the instance: it has just removed itself for good.

        An operator may let it back before any write of ours has met the marker.
        """
        with self._changed:
            self._is_accepted, self._acknowledged = False, None
            self._stale = self._newest is not None
            self._wake()

    def refresh(self) -> None:
        """Write again: there is a new lease, and the key went with the old one; or it isn't as we wrote it."""
        with self._changed:
            self._stale = self._newest is not None
            self._wake()

    def look_again(self) -> None:
        """etcd was restored: what was written may be gone."""
        for subject in self._subjects:
            subject.begin_again()
        self.refresh()

    def saw_presence(self, entries: dict[str, Entry], revision: int) -> None:
        """The presence is this now; anything but our own must be looked at."""
        entry = entries.get(self._key)
        if entry is None or self._process_of(entry) != self._identity.process:
            self.refresh()

    def saw_strangers(self, entries: dict[str, Entry], revision: int) -> None:
        """These say that they are this instance, too."""
        machines = []
        for key, entry in entries.items():
            if key != self._stranger:
                try:
                    machines.append(decode(Stranger, key, entry.value).machine or "an unknown machine")
                except Conflict:
                    machines.append("an unknown machine")
        text = ""
        if machines:
            text = (
                f"another sidekick is this instance, too, on {', '.join(sorted(machines))}: give each machine an"
                " instance.id of its own"
            )
            logger.bind(machines=sorted(machines)).error("duplicate identity")
        with self._changed:
            changed, self._others = text != self._others, text
        if changed:
            self.refresh()

    def _wake(self) -> None:
        self._changed.notify_all()
        self._rounds.ask()

    def close(self, *, remove: bool = False) -> None:
        """End; with ``remove`` the keys go now, where the lease that they hang on lives on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._rounds.close(10.0)
        for subject in self._subjects:
            subject.close()
        if not remove:
            return
        try:
            with failpoint("presence.write"):
                self._cluster.txn(
                    (ModifiedAt(key=self._key, revision=self._written),),
                    (Delete(key=self._key), Delete(key=self._stranger)),
                )
        except DriverError as error:
            logger.bind(error_kind=error.kind, cause=str(error), retry=False).warning("presence left to its lease")

    def _round(self) -> float | None:
        with self._changed:
            # who is refused asks again: whatever stands in its way may be gone
            if self._closed or not (self._stale or self._refused):
                return None
            presence, self._stale, others = self._newest, False, self._others or self._warning
            hint = "; ".join(filter(None, (self._denied, self._hint)))
            if presence is not None and self._note:
                presence = replace(presence, why=f"{presence.why}: {self._note}" if presence.why else self._note)
        lease = self._lease()
        if presence is None or lease is None:
            return RETRY_S if self._refused else None  # refresh() comes with the next lease
        try:
            notice = "; ".join(filter(None, (others or presence.notice, hint, self._caution)))
            self._write(replace(presence, notice=notice), lease)
        except DriverError as error:
            denied = isinstance(error, PermissionDenied)
            log = logger.bind(error_kind=error.kind, cause=str(error))
            log.log("ERROR" if denied else "DEBUG", "presence not written")
            with self._changed:
                self._stale = True
            return self._rounds.hold(DENIED_RETRY_S if denied else RETRY_S)
        return RETRY_S if self._refused else None

    def _write(self, presence: Presence, lease: int) -> None:
        """Write the presence, unless it is another process's."""
        us = self._identity
        value = encode(replace(presence, process=us.process, machine=us.machine, secret_sha256=us.secret_sha256))
        for _ in range(3):
            ops = (Put(key=self._key, value=value, lease=lease), Delete(key=self._stranger))
            with failpoint("presence.write"):
                done = self._cluster.txn(
                    (ModifiedAt(key=self._key, revision=self._written), CreatedAt(key=self._gone, revision=0)), ops
                )
            if done.succeeded:
                self._written = done.revision
                self._accept()
                with self._changed:
                    self._acknowledged = lease
                    self._changed.notify_all()
                return
            gone = next((entry for entry in done.found if entry.key == self._gone), None)
            if gone is not None:
                self._refuse(self._words_of(gone), lease)
                return
            found = next((entry for entry in done.found if entry.key == self._key), None)
            process = "" if found is None else self._process_of(found)
            if found is not None and process not in ("", self._identity.process, *self._identity.predecessors):
                other = decode(Presence, found.key, found.value)
                self._refuse(
                    f"another sidekick is {self._us.app}/{self._us.instance}, too, on"
                    f" {other.machine or 'an unknown machine'} (process {process[:8]}); give each machine an"
                    " instance.id of its own. If it has ended, its presence ends with its lease",
                    lease,
                )
                return
            self._written = 0 if found is None else found.mod_revision
        raise DriverError(f"{self._key}: was changed three times while it was written; try again")

    def _refuse(self, cause: str, lease: int) -> None:
        """Say in etcd and to the chart that this process isn't the instance."""
        stranger = Stranger(
            app=self._us.app,
            group=self._us.group,
            instance=self._us.instance,
            process=self._identity.process,
            machine=self._identity.machine,
            why=cause,
            since=now(),
        )
        if (cause, lease) == self._refused:
            return
        with failpoint("presence.write"):
            self._cluster.txn((), (Put(key=self._stranger, value=encode(stranger), lease=lease),))
        logger.bind(cause=cause).error("identity refused")
        self._refused, self._is_accepted = (cause, lease), False
        with self._changed:
            self._acknowledged = None
        self._post(IdentityRefused(at=now(), cause=cause))

    def _accept(self) -> None:
        if not self._is_accepted:
            self._tell_accepted()
            self._refused, self._is_accepted = None, True
            self._post(IdentityAccepted(at=now()))

    @staticmethod
    def _words_of(gone: Entry) -> str:
        try:
            return decode(Gone, gone.key, gone.value).words
        except Conflict:
            return f"{gone.key}: the instance was removed for good; `outrider instance admit` lets it back"

    @staticmethod
    def _process_of(entry: Entry) -> str:
        """Whose presence it is; empty when it doesn't say."""
        try:
            return decode(Presence, entry.key, entry.value).process
        except Conflict:
            return ""
