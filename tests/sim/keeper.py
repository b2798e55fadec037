"""A lease kept in simulated time, by the rules of ``LeaseKeeper``, and watches without threads."""

from collections.abc import Callable, Iterable
from functools import partial
from random import Random

from outrider.core.errors import DriverError, Refused
from outrider.etcd.lease import FIRST_RETRY_S, LAST_RETRY_S
from outrider.etcd.seam import Cluster, Entry
from outrider.etcd.subject import RETRY_MAX_S, RETRY_MIN_S, Subject
from outrider.model.keys import Keys
from outrider.sidekick.announcements import Announcements
from outrider.sidekick.workers.worker import Post
from tests.sim.agenda import Agenda
from tests.sim.store import At, SimClient

TRUST = 0.6


class SimKeeper:
    """``LeaseKeeper`` without its two threads: the caller's calls are appointments, and so is the look at the clock."""

    def __init__(
        self,
        client: SimClient,
        ttl_s: float,
        *,
        on_granted: Callable[[], None],
        on_lost: Callable[[str], None],
        agenda: Agenda,
        random: Random,
        at: At,
    ) -> None:
        self._client, self._ttl_s, self._agenda, self._random, self._at = client, ttl_s, agenda, random, at
        self._on_granted, self._on_lost = on_granted, on_lost
        self._lease: int | None = None
        self._old: int | None = None
        self._trusted_until_s = 0.0
        self._retry_s = FIRST_RETRY_S

    @property
    def lease(self) -> int | None:
        """The lease while it can be trusted."""
        return self._lease if self._agenda.now_s < self._trusted_until_s else None

    @property
    def known(self) -> int | None:
        """The lease, trusted or not."""
        return self._lease

    def start(self) -> None:
        self._at(self._random.uniform(0.01, 1.0), self._call)

    def _call(self) -> None:
        """The caller's next call, and the appointment for the one after it."""
        self._look()
        client, sent_s = self._client, self._agenda.now_s
        client.spent_s, next_s = 0.0, 0.0
        try:
            if self._lease is not None:
                lives_s = client.keep_alive(self._lease)
                if lives_s <= 0:
                    self._lose("etcd has ended it")
                else:
                    self._rely(sent_s, client.spent_s)
                    next_s = self._ttl_s / 5
            elif self._old is not None:
                client.revoke(self._old)
                self._old = None
            else:
                fresh = client.grant(self._ttl_s)
                self._lease = fresh
                self._rely(sent_s, client.spent_s)
                self._on_granted()
                next_s = self._ttl_s / 5
        except Refused:
            self._old = None
        except DriverError:
            next_s = min(self._retry_s, self._ttl_s / 10) * self._random.uniform(0.5, 1.0)
            self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)
        else:
            self._retry_s = FIRST_RETRY_S
        self._at(client.spent_s + next_s + 0.001, self._call)

    def _rely(self, sent_s: float, spent_s: float) -> None:
        self._trusted_until_s = sent_s + TRUST * self._ttl_s
        self._at(TRUST * self._ttl_s + 0.001, self._look)

    def _look(self) -> None:
        if self._lease is not None and self._agenda.now_s >= self._trusted_until_s:
            self._lose(f"no keep-alive was answered for {TRUST * self._ttl_s:g} s")

    def _lose(self, why: str) -> None:
        self._old, self._lease, self._trusted_until_s = self._lease, None, 0.0
        self._on_lost(why)


class SimSubject(Subject):
    """A ``Subject`` that begins by appointment."""

    def __init__(
        self,
        cluster: Cluster,
        prefix: str,
        tell: Callable[[dict[str, Entry], int], None],
        *,
        exact: bool,
        at: At,
        random: Random,
    ) -> None:
        self._cluster, self._prefix, self._tell, self._exact = cluster, prefix, tell, exact
        self._entries = {}
        self._watch = None
        self._at, self._random = at, random
        self._delay_s = RETRY_MIN_S
        at(random.uniform(0.001, 0.2), self._try)

    def _try(self) -> None:
        try:
            listing = self._cluster.list(self._prefix)
        except DriverError:
            self._at(self._delay_s, self._try)
            self._delay_s = min(RETRY_MAX_S, self._delay_s * 2)
            return
        self._replace(listing)
        self._watch = self._cluster.watch(self._prefix, listing.revision + 1, self._deliver, exact=self._exact)


class SimAnnouncements(Announcements):
    """``Announcements`` without threads."""

    def __init__(
        self, client: SimClient, keys: Keys, *, app: str, group: str, instance: str, post: Post, at: At, random: Random
    ) -> None:
        super().__init__(client, keys, app=app, group=group, instance=instance, post=post)
        self._at, self._random = at, random

    def start(self, *, command_revision: int, default_slots: int, commands: Iterable[str] = ()) -> None:
        self._taken, self._default_slots = command_revision, default_slots
        self._taken_ids.update(commands)
        for prefix, tell, exact in (
            (self._target, self._tell_target, True),
            (self._blocks, self._tell_blocks, False),
            (self._grant, self._tell_grant, True),
            (self._wakeup, self._tell_wakeup, True),
            (self._command, self._tell_command, True),
        ):
            self._subjects.append(
                SimSubject(self._cluster, prefix, tell, exact=exact, at=self._at, random=self._random)
            )

    def _remove_soon(self, revision: int) -> None:
        self._at(self._random.uniform(0.001, 0.1), partial(self._remove_by_and_by, revision))

    def _remove_by_and_by(self, revision: int) -> None:
        if not self._remove_command(revision):
            self._at(self._random.uniform(RETRY_MIN_S, RETRY_MAX_S), partial(self._remove_by_and_by, revision))
