"""Signatures of minisign on a machine: what counts, what is refused before a turn, and why."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outrider.config.sections import TrustSettings
from outrider.core.blame import judge
from outrider.core.sidekick.memory import Release
from outrider.etcd.seam import Put
from outrider.model.documents import KeyLists, Signatures, encode
from outrider.model.keys import Keys
from outrider.payloads.transfer import WriteFailed
from outrider.sidekick.signatures import Known, SignatureCheck, Untrusted
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.trust.minisigning import BOUND, PAYLOAD, VECTORS, MinisignSigner, vector
from tests.trust.signing import NOON, SHA, Signer, key_list, signed

KEYS = Keys("/outrider/v1")
RELEASE = Release(version="2.0.0", urls=("http://x/2",), sha256=SHA, size_bytes=9)
NEVER = Known()
ANN, BOB = VECTORS / "ann.pub", VECTORS / "bob.pub"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    connection = FakeEtcd().client("sidekick")
    yield connection
    connection.close()


class Machine:
    """A machine that asks for signatures, and what it finds in etcd."""

    def __init__(
        self,
        cluster: FakeCluster,
        *trusted: Path,
        threshold: int = 1,
        folder: Path | None = None,
        unbound: bool = False,
    ) -> None:
        settings = TrustSettings(
            keys=tuple(map(str, trusted)), threshold=threshold, folder=folder, allow_unbound_minisign=unbound
        )
        self.cluster = cluster
        self._check = SignatureCheck(settings, cluster, KEYS, app="shop", clock=lambda: NOON)

    def finds(self, *minisign: str, envelopes: tuple[str, ...] = (), version: str = "2.0.0") -> "Machine":
        value = encode(Signatures(envelopes=envelopes, minisign=minisign))
        self.cluster.txn((), (Put(key=KEYS.signatures("shop", version), value=value),))
        return self

    def takes(self, release: Release = RELEASE, known: Known = NEVER, payload: Path = PAYLOAD) -> Known:
        return self._check.check(release, known, payload)

    def refuses(self, release: Release = RELEASE, known: Known = NEVER) -> str:
        with pytest.raises(Untrusted) as refused:
            self._check.check(release, known, PAYLOAD)
        assert "machine" == judge(refused.value.evidence), "what this machine asks for blocks no release"
        return str(refused.value).removeprefix(f"{release.label} refused: ")


@pytest.mark.parametrize("name", ["bound", "legacy", "whole", "any-environment", "minimum"])
def test_what_minisign_signed_is_taken(cluster: FakeCluster, name: str) -> None:
    assert Machine(cluster, ANN).finds(vector(name)).takes().keys


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("other-app", "its signature is for app pay"),
        ("other-version", "its signature is for version 2.0.1"),
        ("other-payload", "its signature by minisign key D41A3697CB1EEF34 is not over this payload"),
        ("other-payload-legacy", "its signature by minisign key D41A3697CB1EEF34 is not over this payload"),
        ("expired", "its signature expired on 2026-06-01 12:00 UTC; sign it again"),
        ("bob", "its signature is by minisign key ADAE221DE29B6C28, which does not count here"),
        ("without-version", "its signature has a bad trusted comment: version= is missing"),
        (
            "unbound",
            "its signature by minisign key D41A3697CB1EEF34 names no app and version in its trusted comment; sign with"
            " `minisign -S -t 'outrider app=shop version=2.0.0'`, or set trust.allow_unbound_minisign",
        ),
    ],
)
def test_what_lets_it_not_run_is_refused_and_why(cluster: FakeCluster, name: str, words: str) -> None:
    assert words == Machine(cluster, ANN).finds(vector(name)).refuses()


def test_a_changed_trusted_comment_is_refused(cluster: FakeCluster) -> None:
    forged = vector("other-version").replace("version=2.0.1", "version=2.0.0")

    # the signature over the payload holds, only the one over the comment does not
    assert "has a trusted comment that was not signed with it" in Machine(cluster, ANN).finds(forged).refuses()


def test_another_key_in_a_trusted_ones_name_is_refused(cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "eve").mkdir()
    ann, eve = MinisignSigner(tmp_path, "ann"), MinisignSigner(tmp_path / "eve", "ann")

    machine = Machine(cluster, ann.public)

    assert "trusted comment that was not signed with it" in machine.finds(eve.signed()).refuses()
    machine.finds(ann.signed()).takes()


def test_an_environment_must_be_signed(cluster: FakeCluster) -> None:
    machine = Machine(cluster, ANN).finds(vector("bound"))
    given = replace(RELEASE, environment=1, environment_digest="e" * 64)

    assert "does not cover environment eeeeeeeeeeee" in machine.refuses(given)
    machine.finds(vector("whole")).takes(given)
    machine.finds(vector("any-environment")).takes(given)


def test_a_signed_minimum_stops_the_way_back(cluster: FakeCluster, tmp_path: Path) -> None:
    ann = MinisignSigner(tmp_path, "ann")
    machine = Machine(cluster, ann.public).finds(ann.signed(f"{BOUND} minimum=2.0.0"))
    old = replace(RELEASE, version="1.0.0")
    machine.finds(ann.signed("outrider app=shop version=1.0.0"), version="1.0.0").takes(old)

    known = machine.takes()

    assert "older than 2.0.0, and a signature says" in machine.refuses(old, known)


def test_signatures_count_towards_the_threshold_each_key_once(cluster: FakeCluster) -> None:
    machine = Machine(cluster, ANN, BOB, threshold=2)

    assert "is by 1 of the keys that count here, and 2 are needed" in machine.finds(vector("bound")).refuses()
    assert "is by 1 of the keys" in machine.finds(vector("bound"), vector("legacy")).refuses(), "one key, two files"
    assert "is by 1 of the keys" in machine.finds(vector("whole"), vector("bob")).refuses(), "they say different things"
    machine.finds(vector("bound"), vector("bob")).takes()


def test_an_envelope_that_says_the_same_counts_with_it(cluster: FakeCluster, tmp_path: Path) -> None:
    bob = Signer(tmp_path, "bob")
    machine = Machine(cluster, ANN, bob.public, threshold=2)

    same = signed(bob, environments=("e" * 64, ""), minimum="1.5.0")
    assert "1.5.0" == machine.finds(vector("whole"), envelopes=(same,)).takes().minimum
    for other in (signed(bob), signed(bob, environments=("",), minimum="1.5.0"), signed(bob, app="pay")):
        assert "is by 1 of the keys" in machine.finds(vector("whole"), envelopes=(other,)).refuses()


def test_unbound_signatures_count_where_the_settings_say_so(cluster: FakeCluster) -> None:
    machine = Machine(cluster, ANN, unbound=True)

    machine.finds(vector("unbound")).takes()
    machine.takes(replace(RELEASE, environment=1, environment_digest="e" * 64))
    assert "is for app pay" in machine.finds(vector("other-app")).refuses(), "a comment that binds still binds"
    assert "version= is missing" in machine.finds(vector("without-version")).refuses()
    assert "does not count here" in Machine(cluster, BOB, unbound=True).finds(vector("unbound")).refuses()


def test_a_key_in_pem_checks_no_signature_of_minisign(cluster: FakeCluster, tmp_path: Path) -> None:
    machine = Machine(cluster, Signer(tmp_path, "ann").public).finds(vector("bound"))

    assert "which does not count here" in machine.refuses()


def test_damaged_files_hide_no_good_one(cluster: FakeCluster) -> None:
    machine = Machine(cluster, ANN)

    machine.finds("", "untrusted comment: \n", vector("other-app"), vector("bound"), envelopes=("{",)).takes()
    assert "it isn't signed" in machine.finds("untrusted comment: \n").refuses()


def test_a_folder_of_this_machine_holds_them_too(cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "shop-2.0.0.tar.minisig").write_text(vector("bound"))

    Machine(cluster, ANN, folder=tmp_path).takes()


def test_a_list_of_keys_may_name_one_of_minisign(cluster: FakeCluster, tmp_path: Path) -> None:
    ann, bob = Signer(tmp_path, "ann"), MinisignSigner(tmp_path, "bob")
    machine = Machine(cluster, ann.public).finds(bob.signed())
    assert "which does not count here" in machine.refuses()

    value = encode(KeyLists(envelopes=(key_list(1, [bob], by=[ann]),)))
    cluster.txn((), (Put(key=KEYS.key_lists("shop"), value=value),))

    known = machine.takes()
    assert "is by 0 of the keys" in machine.finds(envelopes=(signed(ann),)).refuses(known=known)


def test_a_payload_that_cannot_be_read_is_this_machines_trouble(cluster: FakeCluster, tmp_path: Path) -> None:
    machine = Machine(cluster, ANN).finds(vector("bound"))

    with pytest.raises(WriteFailed, match="can't verify"):
        machine.takes(payload=tmp_path / "gone")
