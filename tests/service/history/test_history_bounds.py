"""How much room the history takes, measured on the bytes that are stored: no etcd, the recorder's own parts alone."""

import uuid

import pytest

from outrider.etcd.seam import Entry
from outrider.model.documents import Contender, Document, Presence, Target, encode
from outrider.model.history import LocalStep, LocalSteps, pack
from outrider.model.keys import Keys, group_scope
from outrider.service.history.chunks import Tail
from outrider.service.history.history_recorder import MAX_BYTES
from outrider.service.history.tracker import UPDATE_BYTES, Tracker
from tests.support.rings import mostly_long
from tests.support.wall_clock import NOON

KEYS = Keys()
APP, GROUP = "shop", "beta"
SWAP = (
    "downloading.fetching", "verifying", "swapping.queueing", "swapping.starting", "swapping.probing",
    "swapping.switching", "swapping.draining", "swapping.soaking", "swapping.committing", "swapping.retiring",
    "swapping.releasing", "reporting", "idle.waiting",
)  # fmt: skip
"""More than etcd hears of: a sidekick skips the states that are overtaken before they are written."""
LOCAL = [
    LocalStep(number=100 + at, state=state, began=1_795_000_000_000 + at, seen=1000 + at, took_ms=37 * at, text=text)
    for at, state in enumerate(SWAP)
    for text in (f"health check: /health: 503 ({at} of 25 answers)",)
]


class Recorded:
    """Chunks as they would be stored."""

    def __init__(self) -> None:
        self.tracker, self.tail = Tracker(KEYS), Tail()
        self.revision, self.at = 100, 1_795_000_000_000
        self.chunks: dict[str, int] = {}

    def put(self, key: str, document: Document | None) -> None:
        self.revision += 1
        self.at += 71
        value = encode(document) if document is not None else b""
        entry = Entry(key=key, value=value, create_revision=self.revision, mod_revision=self.revision)
        taken = entry if document is not None else None
        for _, step in self.tracker.take(key, taken, self.revision, self.at, wanted=lambda group: True):
            self.tail.add(self.revision, step)

    def flush(self) -> None:
        while (write := self.tail.next_write(KEYS, APP, GROUP, self.revision)) is not None:
            self.chunks[write.key] = len(write.key) + len(write.value)
            self.revision += 1
            self.tail.wrote(write, self.revision)

    def update(self, instance: str, before: str, after: str) -> None:
        """What one update of one instance writes."""
        us = Contender(app=APP, group=GROUP, instance=instance)
        slot = KEYS.slot(group_scope(APP, GROUP), 0, instance)
        for at, state in enumerate(SWAP):
            runs = after if at >= SWAP.index("swapping.committing") else before
            if state == "swapping.starting":
                self.put(slot, us.slot(release=after, since=NOON, update=uuid.uuid4().hex))
            why = f"waits for the turn: number {self.revision % 37 + 1} in the queue, {self.revision % 61} s"
            presence = Presence(
                instance=instance, app=APP, group=GROUP, state=state, version=runs, wanted=after, why=why,
                since=NOON, process=instance * 2, serving=at in (0, len(SWAP) - 1),
            )  # fmt: skip
            self.put(KEYS.presence(APP, GROUP, instance), presence)
            if state == "swapping.releasing":
                self.put(slot, None)
        told = LocalSteps(
            app=APP, group=GROUP, instance=instance, update=uuid.uuid4().hex, version_before=before, version=after,
            outcome="committed", packed=pack(LOCAL),
        )  # fmt: skip
        self.put(KEYS.steps(APP, GROUP, instance), told)


def run(instances: int, rollouts: int) -> int:
    """Bytes of all chunks."""
    recorded = Recorded()
    for number in range(rollouts):
        recorded.put(KEYS.target(APP, GROUP), Target(version=f"1.{number + 1}.0", sha256="0" * 64))
        for instance in range(instances):
            recorded.update(f"web-{instance:03}", f"1.{number}.0", f"1.{number + 1}.0")
            if instance % 5 == 4:
                recorded.flush()
    recorded.flush()
    return sum(recorded.chunks.values())


@pytest.mark.parametrize("fleet", mostly_long([(30, 2), (500, 50)], short=lambda one: one[0] < 100))
def test_a_fleet_stays_below_the_limits(fleet: tuple[int, int]) -> None:
    instances, rollouts = fleet
    stored = run(instances, rollouts)

    each = stored / (instances * rollouts)
    assert each <= UPDATE_BYTES
    assert each * 500 * 50 <= MAX_BYTES
