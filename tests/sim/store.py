"""The fleet's etcd: the fake one in simulated time, with connections that fail as real ones do."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal, NoReturn

from outrider.core.errors import Refused, Unknown
from outrider.etcd.seam import Compare, Delete, Entry, Op, Put, TxnResult, WatchEvent
from outrider.model.keys import Keys
from tests.sim.agenda import Agenda, AgendaClock
from tests.sim.fake_etcd import FakeCluster, FakeEtcd, FakeWatch, Moment

KEYS = Keys()
TIMEOUT_S = 3.0  # of one call, as [etcd] has it
KEPT_REVISIONS = 500
WRITES = frozenset({"txn", "grant", "keep_alive", "revoke"})

Changes = Mapping[str, tuple[Entry | None, Entry | None]]
"""Key -> entry before and after."""
Cut = Literal["", "deaf", "mute"]
"""``deaf``: nothing gets through to etcd. ``mute``: all is done, and no answer comes back."""


@dataclass(slots=True)
class FaultProfile:
    """How likely each trouble is, per call or question.

    Attributes:
        lost_answers: It is done, and the answer doesn't come.
        lost_calls: It isn't done, and no answer comes.
        late: No answer, and it is done up to ``late_s`` later.
        unmoved: The balancer doesn't follow.
        downloads: The payload doesn't come.
        runtime: The runtime can't start anything just now.
        service_down: The update service doesn't answer at all.
        forged_answers: Somebody on the way to the update service changes what it offers.
    """

    lost_answers: float = 0.0
    lost_calls: float = 0.0
    late: float = 0.0
    late_s: float = 40.0
    unmoved: float = 0.0
    downloads: float = 0.0
    runtime: float = 0.0
    service_down: bool = False
    forged_answers: float = 0.0


class SimEtcd(FakeEtcd):
    """Tells of every change, delivers to watches a little later, and forgets its history as it goes."""

    def __init__(self, agenda: Agenda, random: Random, noted: Callable[[Changes], None]) -> None:
        super().__init__(AgendaClock(agenda), threaded=False)
        self._agenda, self._random, self._noted = agenda, random, noted
        self._due: set[FakeWatch] = set()
        self._hand = self.client("the network")
        self.on_their_way = 0

    def apply(self, ops: list[Put | Delete]) -> None:
        before = {op.key: self.entries.get(op.key) for op in ops}
        super().apply(ops)
        changes = {key: (old, self.entries.get(key)) for key, old in before.items()}
        changes = {key: (old, new) for key, (old, new) in changes.items() if old is not new}
        if not changes:
            return
        if self.revision - self.compacted > KEPT_REVISIONS:
            self.compact()
        for watch in self.watches:
            if any(watch.covers(key) for key in changes):
                self.deliver(watch)
        self._noted(changes)

    def new_lease(self, ttl_s: float) -> int:
        lease = super().new_lease(ttl_s)
        self._agenda.at(ttl_s + 0.001, partial(self._end_in_time, lease))
        return lease

    def _end_in_time(self, lease: int) -> None:
        held = self.leases.get(lease)
        if held is None:
            return
        if held.ends_at <= self.clock():
            self.end_lease(lease)
        else:
            self._agenda.at(held.ends_at - self.clock() + 0.001, partial(self._end_in_time, lease))

    def deliver(self, watch: FakeWatch) -> None:
        """Let a watch deliver what there is for it, soon."""
        if watch in self._due:
            return
        self._due.add(watch)
        client = watch.client
        assert isinstance(client, Stream)
        client.at(self._random.uniform(0.001, 0.2), partial(self._deliver, watch))

    def _deliver(self, watch: FakeWatch) -> None:
        self._due.discard(watch)
        while watch.deliver_one():
            pass
        assert isinstance(watch.client, Stream)
        watch.client.noticed()

    def forget(self, stream: "Stream") -> None:
        """Nothing is due any more on a stream whose process has ended."""
        self._due = {watch for watch in self._due if watch.client is not stream}

    def later(self, compares: tuple[Compare, ...], ops: tuple[Op, ...], within_s: float) -> None:
        """Carry a transaction out when nobody waits for it any more."""
        self.on_their_way += 1
        self._agenda.at(self._random.uniform(0.1, within_s), partial(self._arrive, compares, ops))

    def _arrive(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> None:
        self.on_their_way -= 1
        self._hand.calls.clear()
        with suppress(Refused):
            self._hand.txn(compares, ops)


At = Callable[[float, Callable[[], None]], object]
"""Does something later in the life of one process, if that still lives."""


class Stream(FakeCluster):
    """The connection on which one sidekick's watches come in."""

    def __init__(self, store: SimEtcd, name: str, at: At, noticed: Callable[[], None]) -> None:
        super().__init__(store, name, TIMEOUT_S)
        self.at, self.noticed = at, noticed


class SimClient(FakeCluster):
    """One sidekick's connections: calls take time, get lost, or are carried out late.

    Attributes:
        spent_s: How long calls have taken since somebody set it to 0.
        cut: How the sidekick is cut off now.
        late_next: The next transaction is still on its way when its sender ends.
    """

    def __init__(
        self, store: SimEtcd, name: str, faults: FaultProfile, random: Random, at: At, noticed: Callable[[], None]
    ) -> None:
        super().__init__(store, name, TIMEOUT_S)
        self._etcd, self._faults, self._random = store, faults, random
        self.stream = Stream(store, name, at, noticed)
        self.spent_s = 0.0
        self.cut: Cut = ""
        self.late_next = False
        self.trouble = self._meet_trouble

    def set_cut(self, cut: Cut) -> None:
        """Cut the sidekick off, or mend that."""
        self.cut = cut
        if cut:
            self.stream.cut_off()
        else:
            self.stream.mend()
            for watch in self.store.watches:
                if watch.client is self.stream:
                    self._etcd.deliver(watch)

    def txn(self, compares: tuple[Compare, ...], ops: tuple[Op, ...]) -> TxnResult:
        late = self._faults.late
        if self.late_next or (late and self._random.random() < late):
            self.late_next = False
            self._etcd.later(compares, ops, self._faults.late_s)
            self._fail("txn")
        return super().txn(compares, ops)

    def watch(
        self, prefix: str, from_revision: int, deliver: Callable[[WatchEvent], None], *, exact: bool = False
    ) -> FakeWatch:
        watch = self.stream.watch(prefix, from_revision, deliver, exact=exact)
        self.stream.calls.clear()
        self._etcd.deliver(watch)
        return watch

    def close(self) -> None:
        super().close()
        self.stream.close()
        self._etcd.forget(self.stream)

    def _meet_trouble(self, name: str, moment: Moment) -> None:
        self.calls.clear()
        faults = self._faults
        if moment == "before":
            if self.cut == "deaf" or (faults.lost_calls and self._random.random() < faults.lost_calls):
                self._fail(name)
        elif self.cut == "mute" or (
            name in WRITES and faults.lost_answers and self._random.random() < faults.lost_answers
        ):
            self._fail(name)

    def _fail(self, name: str) -> NoReturn:
        # a broken connection is known at once, a silent one at the time limit
        self.spent_s += TIMEOUT_S if self.cut or self._random.random() < 0.5 else 0.0
        raise Unknown(f"etcd (simulated) doesn't answer ({name})")
