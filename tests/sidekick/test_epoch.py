"""A restored etcd is noticed by its epoch or its revision, and then everything is looked over again."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from outrider.core.sidekick.events import Commanded
from outrider.etcd.epoch_watch import EpochWatch
from outrider.etcd.seam import Put
from outrider.model.documents import Command, encode
from outrider.model.epoch import KEPT_TOKENS, Epoch, SeenEpochs
from outrider.model.keys import Keys
from outrider.service.rollouts.epoch import renew
from outrider.service.store.context import StoreContext
from outrider.sidekick.announcements import Announcements
from tests.sim.fake_etcd import FakeEtcd
from tests.support.waiting import eventually

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KEYS = Keys()


def chain(*tokens: str) -> Epoch:
    return Epoch(token=tokens[-1], earlier=tokens[:-1], at=NOON)


def test_renewals_follow_each_other() -> None:
    seen, epoch = SeenEpochs(), chain("t0")
    reasons = [seen.saw(epoch, 1)]
    for number in range(1, 300):
        epoch = epoch.followed_by(f"t{number}", NOON)
        if number % 7 == 0:  # some are missed while the process is cut off
            reasons.append(seen.saw(epoch, number + 1))

    assert {""} == set(reasons)
    assert KEPT_TOKENS == len(epoch.earlier)


@pytest.mark.parametrize(
    ("epoch", "revision", "why"),
    [
        pytest.param(chain("t0", "t1"), 50, "revision went back from 90 to 50", id="an older copy"),
        pytest.param(chain("t0", "t1", "x1"), 95, "doesn't follow", id="an older copy that has overtaken us"),
        pytest.param(chain("x0"), 95, "doesn't follow", id="another cluster"),
        pytest.param(None, 95, "doesn't follow", id="from before the first epoch"),
    ],
)
def test_what_does_not_follow_was_restored(epoch: Epoch | None, revision: int, why: str) -> None:
    seen = SeenEpochs()
    seen.saw(chain("t0", "t1", "t2"), 90)

    assert why in seen.saw(epoch, revision)
    assert "" == seen.saw(epoch, revision + 1), "it is told once"


def test_before_anything_was_seen_nothing_is_told() -> None:
    assert ["", "", ""] == [SeenEpochs().saw(epoch, 7) for epoch in (None, chain("t0"), chain("t0", "t1"))]


def test_the_epoch_is_renewed_once_a_minute_by_whichever_process_is_first() -> None:
    etcd, at = FakeEtcd(), [NOON]
    contexts = [StoreContext(cluster=etcd.client(name), keys=KEYS, now=lambda: at[0]) for name in ("one", "other")]
    wrote = []
    for _ in range(4):
        wrote += [renew(context) for context in contexts]
        at[0] += timedelta(seconds=60)

    assert [True, False] * 4 == wrote


def test_a_sidekick_that_watches_hears_of_an_older_copy() -> None:
    etcd, told = FakeEtcd(), list[str]()
    client = etcd.client()
    client.txn((), (Put(key=KEYS.epoch(), value=encode(chain("t0", "t1", "t2"))),))
    watch = EpochWatch(client, KEYS, told.append)
    watch.start()
    try:
        client.txn((), (Put(key=KEYS.epoch(), value=encode(chain("t0", "t1", "t2", "t3"))),))
        client.txn((), (Put(key=KEYS.epoch(), value=encode(chain("t0", "x1"))),))
        eventually(lambda: told)
    finally:
        watch.close()

    assert ["its epoch doesn't follow the one that was seen before"] == told


class Heard:
    """What one sidekick hears of commands, and what it has taken before."""

    def __init__(self) -> None:
        self.etcd, self.events = FakeEtcd(), list[Commanded]()
        self.announcements = Announcements(
            self.etcd.client(), KEYS, app="shop", group="web", instance="a", post=self._note
        )

    def _note(self, event: object) -> None:
        if isinstance(event, Commanded):
            self.events.append(event)
            self.announcements.consumed(event)

    def say(self, command: str, verb: str = "pause") -> None:
        document = Command(verb=verb, by="ann", at=NOON, id=command)  # type: ignore[arg-type]
        self.etcd.client("operator").txn((), (Put(key=KEYS.command("shop", "a"), value=encode(document)),))

    @property
    def waiting(self) -> bool:
        return KEYS.command("shop", "a") in self.etcd.entries


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    yield made
    made.announcements.close()


@pytest.mark.parametrize("verb", ["pause", "retry", "drain", "rollback"])
def test_a_command_of_a_restored_etcd_is_taken_though_its_revision_is_small(heard: Heard, verb: str) -> None:
    """The sidekick has taken commands up to revision 1000; the restored etcd counts from far below."""
    heard.announcements.start(command_revision=1000, default_slots=1, commands=("c1",))

    heard.say("c2", verb)

    eventually(lambda: [event.command for event in heard.events] == ["c2"])
    eventually(lambda: not heard.waiting)


def test_a_command_that_a_restore_brings_back_is_not_obeyed_again(heard: Heard) -> None:
    heard.announcements.start(command_revision=0, default_slots=1, commands=("c1",))

    heard.say("c1")

    eventually(lambda: not heard.waiting)
    assert [] == heard.events


def test_one_without_an_id_is_told_by_its_revision_as_before(heard: Heard) -> None:
    heard.announcements.start(command_revision=1000, default_slots=1)

    heard.say("")

    eventually(lambda: not heard.waiting)
    assert [] == heard.events


def test_after_a_restore_everything_is_read_anew(heard: Heard) -> None:
    heard.announcements.start(command_revision=0, default_slots=1)
    heard.say("c1")
    eventually(lambda: len(heard.events) == 1)
    heard.say("c2", "resume")
    eventually(lambda: len(heard.events) == 2)

    heard.announcements.look_again()
    heard.say("c3")

    eventually(lambda: [event.command for event in heard.events] == ["c1", "c2", "c3"])
