"""Each sentence of ``outrider why`` that a sidekick, a signature, the lock, a budget or a task says is reached here.

The list of sentences is read from the code, as for the page; a new one without a run that leads to it fails. What a
state's own words are is checked on that state: the template is the chart's.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outrider.config.sections import TrustSettings
from outrider.core.rollout.budgets import Budget, Contending, Room
from outrider.core.sidekick.guards import may_take
from outrider.core.sidekick.memory import (
    NO_PAYLOAD,
    Drain,
    Installed,
    Memory,
    QueuePosition,
    Release,
    Setback,
    Turn,
)
from outrider.core.sidekick.words import given_up, not_kept, refusal, unfit, unfit_again, why
from outrider.etcd.seam import Delete, Put
from outrider.model.documents import OpenGrant, Signatures, encode
from outrider.model.keys import Keys
from outrider.model.tasks import Task
from outrider.sidekick.signatures import Known, SignatureCheck, Untrusted
from outrider.statechart import load_sidekick_chart
from outrider.turns.permission import Permission, permitted
from tests.docs.test_why_page import SPEAKERS, sentences
from tests.sim.fake_etcd import FakeEtcd
from tests.trust.minisigning import PAYLOAD
from tests.trust.signing import SHA, Signer, signed

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
KEYS = Keys()
STATES = {leaf.id: leaf.why for leaf in load_sidekick_chart().leaves}
TURN = Turn(scope="turns/shop/web", number=0, slot_revision=7, waiter_revision=6, update="u1")


def installed(version: str, **facts: Any) -> Installed:
    release = Release(version=version, urls=("http://x/p",), sha256="0" * 64, size_bytes=1)
    return Installed(release=replace(release, **facts), workload_id=f"a-{version}", url="http://127.0.0.1:1")


SERVES = Memory(
    instance="a",
    app="shop",
    group="web",
    scope="shop/web",
    strategy="start-first",
    at=NOON,
    running=installed("2.0.0"),
    runtime="process",
    kinds=("archive",),
)


def offered(version: str, **known: Any) -> str:
    """What is said of an offer that the chart's own guard doesn't let the sidekick take."""
    memory = replace(SERVES, **known)
    assert not may_take(replace(memory, candidate=installed(version)))
    return refusal(memory, version)


def in_state(state: str, **known: Any) -> str:
    """What a sidekick says in that state of the chart."""
    return why(replace(SERVES, **known), STATES[state])


def failed(blame: Any) -> dict[str, Any]:
    return {"setback": Setback(version="3.0.0", blame=blame, cause="exit status 1", final=True)}


def queued(rank: int, ahead: str | None, held: str = "") -> str:
    return in_state(
        "swapping.queueing", queue_position=QueuePosition(rank=rank, ahead=ahead, holders=("b",), held=held)
    )


def image(version: str) -> Release:
    return installed(version, kind="image").release


def permission(**changes: Any) -> str:
    """What the transaction that takes a turn finds of a grant, with ``changes`` after it was made."""
    cluster = FakeEtcd().client()
    wanted = Permission(grant="/g", brake="/b", version="3.0.0")
    grant = OpenGrant(version=changes.pop("version", "3.0.0"), at=NOON, begin_before=changes.pop("begin_before", None))
    cluster.txn((), (Put(key="/g", value=encode(grant)),))
    assert not isinstance(permitted(cluster, replace(wanted, version=grant.version), NOON - timedelta(hours=9)), str)
    if changes.pop("taken_back", False):
        cluster.txn((), (Delete(key="/g"),))
    if changes.pop("halted", False):
        cluster.txn((), (Put(key="/b", value=b"{}"),))
    assert not changes
    told = permitted(cluster, wanted, NOON)
    assert isinstance(told, str)
    return told


@dataclass
class Trust:
    """A machine that asks for signatures, and what lies in etcd."""

    folder: Path

    def refuses(self, known: Known, *envelopes: str, version: str = "2.0.0") -> str:
        ann = Signer(self.folder, "trusted")
        cluster = FakeEtcd().client()
        made = [signed(ann, **facts) for facts in self._facts] or list(envelopes)
        cluster.txn((), (Put(key=KEYS.signatures("shop", version), value=encode(Signatures(envelopes=tuple(made)))),))
        check = SignatureCheck(TrustSettings(keys=(str(ann.public),)), cluster, KEYS, app="shop", clock=lambda: NOON)
        release = Release(version=version, urls=("http://x/2",), sha256=SHA, size_bytes=9)
        with pytest.raises(Untrusted) as refused:
            check.check(release, known, PAYLOAD)
        return str(refused.value)

    _facts: tuple[dict[str, Any], ...] = ()

    def with_signed(self, **facts: Any) -> "Trust":
        return Trust(self.folder, (facts,))


def task(**facts: Any) -> str:
    known: dict[str, Any] = {
        "app": "shop", "group": "web", "name": "migrate", "kind": "post", "command": ("./m",), "version": "3.0.0",
        "release": "3.0.0", "key": "3.0.0", "sha256": "0" * 64, "state": "due", "instance": "a", "process": "p",
        "claim": "c", "limit_s": 60.0, "started": NOON,
    }  # fmt: skip
    return Task(**(known | facts)).words


def contending(budget: Budget, **room: Any) -> str:
    one = Contending(instance="a", labels={"rack": "7"}, budgets=(budget,), rooms={("rack", "7"): Room(**room)})
    return one.held


RUNS: dict[str, Callable[[Trust], str]] = {
    "… waits: this instance is paused": lambda _: offered("3.0.0", paused=True),
    "… waits: this instance still holds the turn under which it was drained": lambda _: offered("3.0.0", turn=TURN),
    "… waits: the group is paused": lambda _: offered("3.0.0", group_paused=True),
    "… is blocked: …": lambda _: offered("3.0.0", blocked={"3.0.0": "b: bad"}),
    "an operator rolled … back here; a new target or 'retry' takes it up again": lambda _: offered(
        "3.0.0", undone="3.0.0"
    ),
    "… was offered, and runs already": lambda _: offered("2.0.0"),
    "… refused: older than …; this machine forbids going back (instance.allow_downgrade)": lambda _: offered(
        "1.0.0", allow_downgrade=False
    ),
    "… failed here: …; …": lambda _: given_up(replace(SERVES, **failed("release")), "3.0.0"),
    "this machine cannot take …: …; …, and so does a restart of the sidekick": lambda _: given_up(
        replace(SERVES, **failed("machine")), "3.0.0"
    ),
    "… is …; this machine's runtime (…) runs … only: serve this group …, or set instance.runtime to one that runs …": (
        lambda _: unfit(SERVES, image("3.0.0"))
    ),
    "no payload of … was ever here, for something else started it: let the channel name a package of that version": (
        lambda _: unfit_again(SERVES, installed("1.0.0", sha256=NO_PAYLOAD, urls=()).release)
    ),
    "can't go back to …: this machine has kept …": lambda _: not_kept(
        replace(SERVES, previous=installed("1.0.0")), "0.9.0"
    ),
    "asks for a turn": lambda _: in_state("swapping.queueing"),
    "waits for a turn: …": lambda _: queued(0, None, "budget rack=7: 1 of 1 out (b)"),
    "waits for a turn: next in the queue, …": lambda _: queued(0, None),
    "waits for a turn: number … in the queue behind …, …": lambda _: queued(2, "c"),
    "paused by an operator": lambda _: in_state("idle.paused", paused=True),
    "paused: the analysis of … is undecided: …; …": lambda _: in_state("idle.paused", paused=True, undecided="3.0.0"),
    "drained since … UTC, ……": lambda _: in_state("idle.drained", drain=Drain(id="u", kind="reboot", since=NOON)),
    "… is gone: the update service took its permission back": lambda _: permission(taken_back=True),
    "… is for …, not for …": lambda _: permission(version="2.9.0"),
    "… changed: the grant is from before a pause or a halt": lambda _: permission(halted=True),
    "…: the update had to begin before … UTC": lambda _: permission(begin_before=NOON),
    "… refused: other keys have counted here before (…), and nothing leads from there to those of trust.keys…; name the"
    " newest keys in trust.keys, or put the lists of keys back ('outrider key list')": lambda trust: trust.refuses(
        Known(keys="f" * 64)
    ),
    "… refused: older than …, and a signature says that no older version may run; 'outrider package sign' without"
    " --minimum doesn't lift that": lambda trust: trust.refuses(Known(minimum="2.1.0")),
    "… refused: its signature …": lambda trust: trust.with_signed(sha256="3" * 64).refuses(Known()),
    "… refused: it isn't signed, and this machine asks for it (trust.keys); 'outrider package sign --app-id … --version"
    " …'": lambda trust: trust.refuses(Known()),
    "budget …=…: … of … out (…)": lambda _: contending(Budget(label="rack", max_out=1), out=("b",)),
    "budget …=…: … others serve, and … must while one is out": lambda _: contending(
        Budget(label="rack", min_serving=2), serving=("a", "b")
    ),
    "task … of … is due, and no instance has claimed it…": lambda _: task(),
    "task … of … runs on … since … UTC": lambda _: task(state="running"),
    "task … of … is done": lambda _: task(state="done"),
    "…; 'outrider task retry' runs it again, 'done' ends it, with …": lambda _: task(
        state="failed", why="exit status 1"
    ),
    "task … of …: …; look what it has done, then 'outrider task done', 'failed' or 'retry' with …": lambda _: task(
        state="unknown", why="its runner has ended"
    ),
}
"""Sentence, with dots for what is filled in -> a run that leads to it."""


SAID = sorted({one for function in SPEAKERS for one in sentences(function)})


def test_no_run_is_for_a_sentence_that_nothing_says() -> None:
    assert set(RUNS) <= set(SAID)


@pytest.mark.parametrize("sentence", SAID)
def test_every_sentence_is_reached_by_a_run(sentence: str, tmp_path: Path) -> None:
    assert sentence in RUNS, f"a new sentence: write a run in {Path(__file__).name} that leads to it"

    told = RUNS[sentence](Trust(tmp_path)).replace("`", "'")

    fixed = [re.escape(part) for part in sentence.split("…")]
    assert re.fullmatch(".*".join(fixed), told), told
    assert "…" not in told
    others = {one for one in SAID if one != sentence and len(one) > len(sentence)}
    assert not [one for one in others if re.fullmatch(".*".join(re.escape(part) for part in one.split("…")), told)], (
        f"{told!r} is another sentence"
    )
