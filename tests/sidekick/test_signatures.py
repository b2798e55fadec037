"""Unsigned, wrong key, below threshold, expired, rolled back, swapped, changed: refused before a turn, and why."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from outrider.config.sections import TrustSettings
from outrider.core.blame import judge
from outrider.core.omaha import FailureCode
from outrider.core.sidekick import events as ev
from outrider.core.sidekick.builders import EFFECTS
from outrider.core.sidekick.effects import VerifyRelease
from outrider.core.sidekick.memory import Release
from outrider.core.sidekick.words import why
from outrider.etcd.seam import Put
from outrider.model.documents import KeyLists, Signatures, encode
from outrider.model.keys import Keys
from outrider.sidekick.signatures import Known, SignatureCheck, Untrusted
from outrider.sidekick.workers.worker import failure
from tests.core.sidekick.test_sidekick import Sidekick
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.trust.minisigning import PAYLOAD
from tests.trust.signing import NOON, SHA, Signer, key_list, signed

KEYS = Keys("/outrider/v1")
RELEASE = Release(version="2.0.0", urls=("http://x/2",), sha256=SHA, size_bytes=9)
NEVER = Known()


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    etcd = FakeEtcd()
    connection = etcd.client("sidekick")
    yield connection
    connection.close()


@pytest.fixture
def ann(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "ann")


@pytest.fixture
def bob(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "bob")


class Machine:
    """A machine that asks for signatures."""

    def __init__(self, cluster: FakeCluster, *trusted: Signer, threshold: int = 1, folder: Path | None = None) -> None:
        settings = TrustSettings(keys=tuple(str(one.public) for one in trusted), threshold=threshold, folder=folder)
        self.cluster = cluster
        self._check = SignatureCheck(settings, cluster, KEYS, app="shop", clock=lambda: NOON)

    def finds(self, *envelopes: str, version: str = "2.0.0") -> "Machine":
        value = encode(Signatures(envelopes=envelopes))
        self.cluster.txn((), (Put(key=KEYS.signatures("shop", version), value=value),))
        return self

    def finds_keys(self, *envelopes: str) -> "Machine":
        self.cluster.txn((), (Put(key=KEYS.key_lists("shop"), value=encode(KeyLists(envelopes=envelopes))),))
        return self

    def takes(self, release: Release = RELEASE, known: Known = NEVER) -> Known:
        return self._check.check(release, known, PAYLOAD)

    def refuses(self, release: Release = RELEASE, known: Known = NEVER) -> str:
        with pytest.raises(Untrusted) as refused:
            self._check.check(release, known, PAYLOAD)
        return str(refused.value).removeprefix(f"{release.label} refused: ")


def test_a_signed_release_is_taken(cluster: FakeCluster, ann: Signer) -> None:
    machine = Machine(cluster, ann).finds(signed(ann))

    assert machine.takes().keys


def test_an_unsigned_one_is_refused_and_the_command_is_named(cluster: FakeCluster, ann: Signer) -> None:
    assert "it isn't signed" in Machine(cluster, ann).refuses()
    assert "`outrider package sign --app-id shop --version 2.0.0`" in Machine(cluster, ann).refuses()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"app": "pay"}, "is for app pay"),
        ({"version": "2.0.1"}, "is for version 2.0.1"),
        ({"sha256": "3" * 64}, "is for a payload with SHA-256 333"),
        ({"size": 8}, "is for a payload of 8 bytes"),
        ({"expires": NOON}, "expired on 2026-06-01 12:00 UTC; sign it again"),
        ({"environments": ("e" * 64,)}, "does not cover no environment"),
    ],
    ids=["swapped between apps", "another version", "another payload", "another size", "expired", "with environment"],
)
def test_what_is_signed_must_be_what_is_run(
    cluster: FakeCluster, ann: Signer, changes: dict[str, Any], words: str
) -> None:
    machine = Machine(cluster, ann).finds(signed(ann, **changes))

    assert f"its signature {words}" in machine.refuses()


def test_a_changed_environment_is_refused(cluster: FakeCluster, ann: Signer) -> None:
    machine = Machine(cluster, ann).finds(signed(ann, environments=("", "e" * 64)))
    given = replace(RELEASE, environment=1, environment_digest="e" * 64)

    machine.takes(given)

    changed = replace(given, environment=2, environment_digest="f" * 64)
    assert "does not cover environment ffffffffffff" in machine.refuses(changed)
    machine.finds(signed(ann, environments=("*",))).takes(changed)


def test_another_key_is_no_signature(cluster: FakeCluster, ann: Signer, bob: Signer) -> None:
    machine = Machine(cluster, ann).finds(signed(bob))

    assert "is by 0 of the keys that count here, and 1 are needed" in machine.refuses()


def test_a_signature_of_another_key_in_its_name_is_none(cluster: FakeCluster, ann: Signer, bob: Signer) -> None:
    machine = Machine(cluster, ann).finds(signed(bob).replace(bob.id, ann.id))

    assert "is by 0 of the keys" in machine.refuses()


def test_a_changed_payload_is_not_signed(cluster: FakeCluster, ann: Signer) -> None:
    envelope = signed(ann)
    other = signed(ann, minimum="1.0.0")
    mine, theirs = (text.split('"payload":"')[1].split('"')[0] for text in (envelope, other))
    forged = envelope.replace(mine, theirs)

    assert "is by 0 of the keys" in Machine(cluster, ann).finds(forged).refuses()


def test_below_the_threshold_it_waits_for_the_next_signature(cluster: FakeCluster, ann: Signer, bob: Signer) -> None:
    machine = Machine(cluster, ann, bob, threshold=2).finds(signed(ann))

    assert "is by 1 of the keys that count here, and 2 are needed" in machine.refuses()
    machine.finds(signed(ann), signed(bob)).takes()
    machine.finds(signed(ann, bob)).takes()


def test_signatures_over_different_statements_do_not_add_up(cluster: FakeCluster, ann: Signer, bob: Signer) -> None:
    machine = Machine(cluster, ann, bob, threshold=2).finds(signed(ann), signed(bob, minimum="1.0.0"))

    assert "is by 1 of the keys" in machine.refuses()


def test_damaged_envelopes_hide_no_good_one(cluster: FakeCluster, ann: Signer) -> None:
    Machine(cluster, ann).finds("{", "[]", signed(ann)).takes()


def test_a_signed_minimum_stops_the_way_back(cluster: FakeCluster, ann: Signer) -> None:
    machine = Machine(cluster, ann).finds(signed(ann, minimum="2.0.0"))
    machine.finds(signed(ann, version="1.0.0"), version="1.0.0")
    old = replace(RELEASE, version="1.0.0")
    machine.takes(old)

    known = machine.takes(RELEASE)

    assert "2.0.0" == known.minimum
    assert "older than 2.0.0, and a signature says that no older version may run" in machine.refuses(old, known)
    assert "2.0.0" == machine.finds(signed(ann)).takes(RELEASE, known).minimum, "a later signature lifts it not"


def test_a_folder_of_this_machine_holds_signatures_too(cluster: FakeCluster, ann: Signer, tmp_path: Path) -> None:
    folder = tmp_path / "envelopes"
    folder.mkdir()
    (folder / "two.json").write_text(signed(ann))

    Machine(cluster, ann, folder=folder).takes()


def test_new_keys_count_when_enough_old_ones_signed_them(cluster: FakeCluster, ann: Signer, bob: Signer) -> None:
    machine = Machine(cluster, ann).finds(signed(bob)).finds_keys(key_list(1, [bob], by=[ann]))

    machine.takes()

    assert "is by 0 of the keys" in machine.finds(signed(ann)).refuses(), "the old key counts no more"


def test_new_keys_that_old_ones_did_not_sign_do_not_count(cluster: FakeCluster, ann: Signer, bob: Signer) -> None:
    machine = Machine(cluster, ann).finds(signed(bob)).finds_keys(key_list(1, [bob], by=[bob]))

    assert "is by 0 of the keys" in machine.refuses()
    machine.finds(signed(ann)).takes()


def test_a_threshold_holds_for_new_keys_too(cluster: FakeCluster, ann: Signer, bob: Signer, tmp_path: Path) -> None:
    eve = Signer(tmp_path, "eve")
    machine = Machine(cluster, ann, bob, threshold=2).finds(signed(eve))

    assert "and 2 are needed" in machine.finds_keys(key_list(1, [eve], by=[ann])).refuses()
    machine.finds_keys(key_list(1, [eve], by=[ann, bob])).takes()


def test_keys_that_were_replaced_do_not_come_back(cluster: FakeCluster, ann: Signer, bob: Signer) -> None:
    machine = Machine(cluster, ann).finds(signed(bob)).finds_keys(key_list(1, [bob], by=[ann]))
    known = machine.takes()
    machine.finds(signed(ann))

    for lists in ((), (key_list(1, [ann], by=[ann]),), (key_list(1, [bob], by=[ann]), key_list(2, [ann], by=[ann]))):
        machine.finds_keys(*lists)
        assert machine.refuses(known=known)
    assert "other keys have counted here before" in machine.finds_keys().refuses(known=known)


def test_settings_that_name_the_newest_keys_need_no_lists(cluster: FakeCluster, ann: Signer, bob: Signer) -> None:
    first = Machine(cluster, ann).finds(signed(bob)).finds_keys(key_list(1, [bob], by=[ann]))
    known = first.takes()

    Machine(cluster, bob).finds_keys().takes(known=known)
    Machine(cluster, bob).finds_keys(key_list(1, [bob], by=[ann])).takes(known=known)


def test_it_is_refused_before_a_turn_and_the_reason_is_shown(cluster: FakeCluster, ann: Signer) -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote()
    offer = {"version": "2.0.0", "urls": ("http://x/2",), "sha256": SHA, "size_bytes": 9, "update": "u1"}
    sidekick.answer("release.check", ev.ReleaseFound, **offer)
    sidekick.answer("release.download", ev.ReleaseDownloaded)
    with pytest.raises(Untrusted) as refused:
        Machine(cluster, ann).takes()
    failed = failure("release.verify", refused.value, sidekick.asked["release.verify"])
    assert isinstance(failed, ev.ReleaseFailed)

    sidekick.machine.step(failed)

    memory = sidekick.memory
    assert "reporting" == sidekick.machine.state
    assert ("machine", {}, None) == (judge(failed.evidence), memory.blocked, memory.turn)
    assert FailureCode.UNSUPPORTED == failed.error_code
    assert "it isn't signed" in why(memory, "{trouble}")


def test_what_it_has_learnt_is_in_the_journal_and_asked_of_the_next_one() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote()
    offer = {"version": "2.0.0", "urls": ("http://x/2",), "sha256": SHA, "size_bytes": 9, "update": "u1"}
    sidekick.answer("release.check", ev.ReleaseFound, **offer)
    sidekick.answer("release.download", ev.ReleaseDownloaded)

    sidekick.answer("release.verify", ev.ReleaseVerified, minimum="1.5.0", keys="a" * 64)

    assert ("1.5.0", "a" * 64) == (sidekick.memory.minimum, sidekick.memory.keys)
    asked = EFFECTS["release.verify"](replace(sidekick.memory, candidate=sidekick.memory.running))
    assert isinstance(asked, VerifyRelease)
    assert ("1.5.0", "a" * 64) == (asked.minimum, asked.keys)
