"""What a sidekick lets the fleet see of itself, from its settings on."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from outrider.config.load import load_settings
from outrider.core.errors import Unknown
from outrider.core.sidekick.memory import Memory
from outrider.demo.programs import free_ports
from outrider.etcd.seam import Delete, Put
from outrider.journal.journal import Record
from outrider.model.documents import Contender, Gone, Presence, decode, encode
from outrider.model.keys import Keys
from outrider.sidekick import identity
from outrider.sidekick.assemble import Assembly
from outrider.sidekick.identity import KEPT_PREDECESSORS, Identity, identity_of
from outrider.sidekick.presence import PresenceWriter
from tests.sim.fake_etcd import FakeEtcd
from tests.support.waiting import eventually
from tests.support.wall_clock import NOON

KEY = Keys().presence("shop", "web", "a")


@pytest.mark.parametrize("scope", ["", "eu"])
def test_a_sidekick_says_in_which_scope_it_takes_turns(tmp_path: Path, scope: str) -> None:
    (port,) = free_ports(1)
    path = tmp_path / "site.toml"
    path.write_text(
        f"""
        instance = {{id = "a", app = "SHOP", group = "web", state_dir = "{tmp_path}/state", balancer = "none"}}
        process = {{command = ["./server"]}}
        service = {{urls = ["http://127.0.0.1:{port}"]}}
        lock = {{scope = "{scope}"}}
        """
    )
    etcd, key = FakeEtcd(), Keys().presence("shop", "web", "a")
    sidekick = Assembly(load_settings((path,), {}).settings, cluster=etcd.client())
    running = threading.Thread(target=sidekick.run)
    running.start()
    try:
        entry = eventually(lambda: etcd.entries.get(key))
    finally:
        sidekick.stop()
        running.join(60)

    assert entry is not None
    assert scope == decode(Presence, key, entry.value).shared_scope


class Twins:
    """Several processes that say that they are one instance, on one etcd."""

    def __init__(self) -> None:
        self.etcd = FakeEtcd()
        self.heard: dict[str, list[str]] = {}
        self._open: list[PresenceWriter] = []

    def begin(self, process: str, *predecessors: str) -> tuple[PresenceWriter, int]:
        """One more process, under a lease of its own."""
        client = self.etcd.client()
        lease = client.grant(60)
        heard = self.heard.setdefault(process, [])
        writer = PresenceWriter(
            client,
            Keys(),
            Contender(app="shop", group="web", instance="a"),
            Identity(process=process, machine=f"host-{process}", home="", predecessors=predecessors),
            lambda: lease,
            lambda event: heard.append(event.name),
        )
        self._open.append(writer)
        writer.start()
        writer.show(Presence(instance="a", app="shop", group="web", state="idle.waiting", version="1", since=NOON))
        return writer, lease

    def end(self, writer: PresenceWriter, lease: int) -> None:
        writer.close()
        self.etcd.client().revoke(lease)

    def presence(self) -> Presence | None:
        entry = self.etcd.entries.get(KEY)
        return decode(Presence, KEY, entry.value) if entry is not None else None

    def strangers(self) -> list[str]:
        return [key.rpartition("/")[2] for key in self.etcd.entries if key.startswith(Keys().strangers_of("shop", "a"))]

    def close(self) -> None:
        for writer in self._open:
            writer.close()


@pytest.fixture
def twins() -> Iterator[Twins]:
    made = Twins()
    yield made
    made.close()


def test_two_processes_of_one_instance_are_both_told_and_shown(twins: Twins) -> None:
    """
    1. one is the instance; another comes, on another machine
    2. the first keeps the presence, and its notice names the other; the other is refused, and is shown as a stranger
    3. the first ends: the other is the instance now, and no stranger is left
    """
    first = twins.begin("p1")
    eventually(lambda: twins.heard["p1"] == ["identity.accepted"])
    twins.begin("p2")

    eventually(lambda: twins.heard["p2"] == ["identity.refused"])
    eventually(lambda: twins.presence() is not None and "host-p2" in twins.presence().notice)  # type: ignore[union-attr]
    assert (twins.strangers(), twins.heard["p1"]) == (["p2"], ["identity.accepted"])
    assert twins.presence().process == "p1"  # type: ignore[union-attr]

    twins.end(*first)

    eventually(lambda: twins.heard["p2"] == ["identity.refused", "identity.accepted"])
    eventually(lambda: twins.presence() is not None and twins.presence().process == "p2")  # type: ignore[union-attr]
    assert [] == twins.strangers()


def test_of_three_the_first_is_the_instance_and_one_of_the_others_follows_it(twins: Twins) -> None:
    first = twins.begin("p1")
    eventually(lambda: twins.heard["p1"])
    twins.begin("p2")
    twins.begin("p3")
    eventually(lambda: sorted(twins.strangers()) == ["p2", "p3"])

    twins.end(*first)

    eventually(lambda: len(twins.strangers()) == 1 and twins.presence() is not None)
    assert twins.presence().process not in ("p1", *twins.strangers())  # type: ignore[union-attr]


def test_a_restarted_sidekick_is_not_its_own_twin(twins: Twins) -> None:
    """Killed, so that its presence stays until its lease ends; the next process knows it by its journal."""
    first, _ = twins.begin("p1")
    eventually(lambda: twins.heard["p1"])
    first.close()

    twins.begin("p2", "p1")

    eventually(lambda: twins.heard["p2"] == ["identity.accepted"])
    assert [] == twins.strangers()


def test_whoever_has_its_presence_overwritten_is_told(twins: Twins) -> None:
    """By a clone that holds it for its predecessor, or by an older outrider's way to write."""
    twins.begin("p1")
    eventually(lambda: twins.heard["p1"] == ["identity.accepted"])

    twins.begin("p2", "p1")

    eventually(lambda: twins.heard["p1"] == ["identity.accepted", "identity.refused"])
    assert ["p1"] == twins.strangers()


def test_a_presence_that_was_deleted_is_written_again(twins: Twins) -> None:
    twins.begin("p1")
    eventually(lambda: twins.presence() is not None)

    twins.etcd.client().txn((), (Delete(key=KEY),))

    eventually(lambda: twins.presence() is not None)


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff"])
def test_what_is_no_presence_is_overwritten(twins: Twins, value: bytes) -> None:
    twins.etcd.client().txn((), (Put(key=KEY, value=value),))

    twins.begin("p1")

    eventually(lambda: twins.heard["p1"] == ["identity.accepted"])


def record_of(memory: Memory) -> Record:
    return Record(number=1, at=NOON, event={}, source="", target="", refused=(), effects=(), machine={},
                  memory=msgspec.to_builtins(memory))  # fmt: skip


class TestIdentity:
    def memory(self, identity: Identity) -> Memory:
        return Memory(
            instance="a", app="shop", group="web", scope="s", strategy="start-first", at=NOON, process=identity.process,
            home=identity.home, predecessors=identity.predecessors,
        )  # fmt: skip

    def test_processes_with_one_journal_are_each_others_predecessors(self, tmp_path: Path) -> None:
        first = identity_of(tmp_path, None)
        second = identity_of(tmp_path, record_of(self.memory(first)))
        third = identity_of(tmp_path, record_of(self.memory(second)))

        assert ((), (first.process,), (first.process, second.process)) == (
            first.predecessors, second.predecessors, third.predecessors,
        )  # fmt: skip
        assert 3 == len({first.process, second.process, third.process})

    def test_a_copied_folder_makes_no_predecessor(self, tmp_path: Path) -> None:
        original, copy = tmp_path / "a", tmp_path / "b"
        original.mkdir()
        copy.mkdir()
        first = identity_of(original, None)

        assert () == identity_of(copy, record_of(self.memory(first))).predecessors

    def test_a_cloned_machine_makes_no_predecessor(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = identity_of(tmp_path, None)
        monkeypatch.setattr(identity, "boot_id", lambda: "another boot")

        assert () == identity_of(tmp_path, record_of(self.memory(first))).predecessors

    def test_only_so_many_are_kept(self, tmp_path: Path) -> None:
        one = identity_of(tmp_path, None)
        for _ in range(20):
            one = identity_of(tmp_path, record_of(self.memory(one)))

        assert KEPT_PREDECESSORS == len(one.predecessors)


def test_who_was_removed_for_good_is_told_and_comes_back_when_it_is_admitted(twins: Twins) -> None:
    gone = Gone(app="shop", group="web", instance="a", how="deleted", by="ann", at=NOON)
    key, client = Keys().gone("shop", "a"), twins.etcd.client()
    client.txn((), (Put(key=key, value=encode(gone)),))
    twins.begin("p1")

    eventually(lambda: twins.heard["p1"] == ["identity.refused"])
    assert (None, ["p1"]) == (twins.presence(), twins.strangers())
    (stranger,) = [entry.value for key, entry in twins.etcd.entries.items() if "/strangers/" in key]
    assert (
        b"a was deleted by ann on "
        + NOON.date().isoformat().encode()
        + b"; `outrider instance admit shop a` lets it back"
        in stranger
    )

    client.txn((), (Delete(key=key),))

    eventually(lambda: twins.heard["p1"] == ["identity.refused", "identity.accepted"])
    assert twins.presence() is not None


def test_what_is_noted_is_added_to_the_reason_until_another_note_comes() -> None:
    """The answers so far to a probe, while the machine rests in its state."""
    etcd = FakeEtcd()
    client = etcd.client()
    lease = client.grant(30)
    us, process = Contender(app="shop", group="web", instance="a"), Identity(process="p1", machine="host", home="")
    writer = PresenceWriter(client, Keys(), us, process, lambda: lease, lambda event: None)

    def why() -> str:
        entry = etcd.entries.get(KEY)
        return decode(Presence, KEY, entry.value).why if entry is not None else ""

    shown = Presence(
        instance="a", app="shop", group="web", state="swapping.probing", version="2.0.0", wanted="3.0.0",
        why="3.0.0 must prove healthy", since=NOON,
    )  # fmt: skip
    try:
        writer.note("noted before there is anything to show")
        writer.show(shown)
        for note in ("47 of 47 answers were 500 (/health)", "48 of 48 answers were 500 (/health)"):
            writer.note(note)
            eventually(lambda note=note: f"3.0.0 must prove healthy: {note}" == why())  # type: ignore[misc]
        writer.note("")
        eventually(lambda: "3.0.0 must prove healthy" == why())
    finally:
        writer.close()
        client.close()


def test_who_has_removed_itself_and_is_let_back_at_once_is_told_so(twins: Twins) -> None:
    """Found by the kill matrix: the marker came and went between two writes of the presence, and it waited for good."""
    writer, _ = twins.begin("p1")
    eventually(lambda: twins.heard["p1"] == ["identity.accepted"])

    writer.doubt()

    eventually(lambda: twins.heard["p1"] == ["identity.accepted", "identity.accepted"])


def test_a_process_gives_its_proof_once_etcd_has_acknowledged_it_under_the_present_lease() -> None:
    """
    1. nothing is written yet: there is no proof
    2. the presence is written, with the secret's digest: there is
    3. the lease is lost, and another comes: there is none until the presence is written under that one
    """
    etcd = FakeEtcd()
    client = etcd.client()
    lease: list[int | None] = [client.grant(60)]
    us = Identity(process="p1", machine="host", home="")
    contender = Contender(app="shop", group="web", instance="a")
    writer = PresenceWriter(client, Keys(), contender, us, lambda: lease[0], lambda event: None)
    try:
        with pytest.raises(Unknown, match="etcd hasn't acknowledged yet that this sidekick is shop/a"):
            writer.proof(0.01)
        writer.show(Presence(instance="a", app="shop", group="web", state="idle.waiting", version="1", since=NOON))
        first = writer.proof(10.0)
        presence = decode(Presence, KEY, etcd.entries[KEY].value)
        lease[0] = None
        with pytest.raises(Unknown):
            writer.proof(0.01)
        lease[0] = client.grant(60)
        with pytest.raises(Unknown):
            writer.proof(0.01)
        writer.refresh()
        again = writer.proof(10.0)
    finally:
        writer.close()

    assert us.secret == first == again
    assert hashlib.sha256(first.encode()).hexdigest() == presence.secret_sha256 == us.secret_sha256
    assert (43, False) == (len(first), first in repr(us) or first.encode() in etcd.entries[KEY].value)
    assert Identity(process="p1", machine="host", home="").secret != first
    with pytest.raises(Unknown):
        writer.proof(0.01)


def test_a_twin_never_gets_a_proof(twins: Twins) -> None:
    first, _ = twins.begin("p1")
    first.proof(10.0)
    second, _ = twins.begin("p2")
    eventually(lambda: twins.heard["p2"] == ["identity.refused"])

    with pytest.raises(Unknown):
        second.proof(0.01)
