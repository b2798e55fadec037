"""Signatures of cosign on a machine: what counts, what is refused before a turn, and why."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.config.sections import TrustSettings
from outrider.core.errors import ConfigError
from outrider.core.images import ImageReference, describe_image
from outrider.core.sidekick.memory import Release
from outrider.etcd.seam import Put
from outrider.model.documents import Signatures, encode
from outrider.model.keys import Keys
from outrider.sidekick.signatures import Known, SignatureCheck, Untrusted
from outrider.trust.cosign import CosignSignature, encode_cosign, read_cosign, read_signed, said_by, tag_of
from outrider.trust.keys import load_public_keys, of_cosign
from outrider.trust.statement import Wanted
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.trust.cosigning import BOUND, NAME, CosignSigner, Image
from tests.trust.signing import NOON

KEYS = Keys("/outrider/v1")
VECTORS = Path(__file__).parents[1] / "data" / "cosign"
IMAGE = Image()


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    connection = FakeEtcd().client("sidekick")
    yield connection
    connection.close()


@pytest.fixture
def ann() -> CosignSigner:
    return CosignSigner()


class Machine:
    """A machine that trusts keys of cosign, and what it finds in etcd."""

    def __init__(self, cluster: FakeCluster, folder: Path, *trusted: CosignSigner, unbound: bool = False) -> None:
        files = [one.public_file(folder / f"{number}.pub") for number, one in enumerate(trusted)]
        found = TrustSettings(keys=tuple(map(str, files)), threshold=len(trusted), allow_unbound_cosign=unbound)
        self.cluster, self.payload = cluster, folder / "payload"
        self._check = SignatureCheck(found, cluster, KEYS, app="shop", clock=lambda: NOON)

    def finds(self, *cosign: str) -> "Machine":
        value = encode(Signatures(cosign=cosign))
        self.cluster.txn((), (Put(key=KEYS.signatures("shop", "2.0.0"), value=value),))
        return self

    def takes(self, descriptor: bytes = IMAGE.descriptor, **changes: Any) -> Known:
        self.payload.write_bytes(descriptor)
        sha256 = hashlib.sha256(descriptor).hexdigest()
        release = Release(version="2.0.0", urls=("http://x/2",), sha256=sha256, size_bytes=len(descriptor))
        return self._check.check(replace(release, **changes), Known(), self.payload)

    def refuses(self, descriptor: bytes = IMAGE.descriptor, **changes: Any) -> str:
        with pytest.raises(Untrusted) as refused:
            self.takes(descriptor, **changes)
        return str(refused.value)


# --- what cosign itself has made ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_signature_that_cosign_made_is_taken_by_its_key_and_by_no_other(name: str) -> None:
    text = (VECTORS / "text.json").read_bytes()
    signature = CosignSignature(
        cosign=text, signature=base64.b64decode((VECTORS / f"{name}.sig").read_text()), manifests=()
    )
    digest = read_signed(text).digest
    payload = describe_image(ImageReference(name="registry-testing.svc.lan/busybox", tag="1.0.0"), digest)
    wanted = Wanted(
        app="shop", version="1.0.0", sha256=hashlib.sha256(payload).hexdigest(), size=len(payload), environment=""
    )
    own = of_cosign(load_public_keys([VECTORS / f"{name}.pub"]))
    other = of_cosign(load_public_keys([VECTORS / ("two.pub" if name == "one" else "one.pub")]))

    statement, keyid = said_by(signature, own, wanted, payload, NOON, allow_unbound=True)

    assert ("shop", own[0].keyid) == (statement.app, keyid)
    with pytest.raises(ConfigError, match="none of the keys"):
        said_by(signature, other, wanted, payload, NOON, allow_unbound=True)
    with pytest.raises(ConfigError, match="names no app and version"):
        said_by(signature, own, wanted, payload, NOON, allow_unbound=False)


def test_the_tag_is_cosign_s() -> None:
    assert f"sha256-{'a' * 64}.sig" == tag_of(f"sha256:{'a' * 64}")


# --- a machine ------------------------------------------------------------------------------------------------------


def test_an_image_that_was_signed_for_this_version_is_taken(
    cluster: FakeCluster, tmp_path: Path, ann: CosignSigner
) -> None:
    assert Machine(cluster, tmp_path, ann).finds(ann.signed(IMAGE, BOUND)).takes().keys


def test_two_keys_count_together_and_one_is_not_enough(cluster: FakeCluster, tmp_path: Path, ann: CosignSigner) -> None:
    bob = CosignSigner()
    machine = Machine(cluster, tmp_path, ann, bob)

    assert "is by 1 of the keys that count here, and 2 are needed" in machine.finds(ann.signed(IMAGE, BOUND)).refuses()
    assert "is by 1 of" in machine.finds(ann.signed(IMAGE, BOUND), ann.signed(IMAGE, BOUND)).refuses()
    assert machine.finds(ann.signed(IMAGE, BOUND), bob.signed(IMAGE, BOUND)).takes().keys


def test_a_minimum_in_the_annotations_is_learnt(cluster: FakeCluster, tmp_path: Path, ann: CosignSigner) -> None:
    words = BOUND | {"outrider.minimum": "1.5.0", "outrider.expires": "2100-01-01"}

    assert "1.5.0" == Machine(cluster, tmp_path, ann).finds(ann.signed(IMAGE, words)).takes().minimum


def test_an_unbound_signature_counts_where_the_machine_says_so(
    cluster: FakeCluster, tmp_path: Path, ann: CosignSigner
) -> None:
    signed = ann.signed(IMAGE, {"creator": "ci"})

    assert "names no app and version; sign with `cosign sign -a outrider.app=shop" in (
        Machine(cluster, tmp_path, ann).finds(signed).refuses()
    )
    assert Machine(cluster, tmp_path, ann, unbound=True).finds(signed).takes().keys


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"outrider.app": "pay", "outrider.version": "2.0.0"}, "is for app pay"),
        ({"outrider.app": "shop", "outrider.version": "1.9.0"}, "is for version 1.9.0"),
        (BOUND | {"outrider.expires": "2020-01-01"}, "expired on 2020-01-01"),
        (BOUND | {"outrider.colour": "blue"}, "unknown"),
        ({"outrider.app": "shop"}, "version= is missing"),
        (BOUND | {"outrider.app": "shop version=2.0.0"}, "there twice"),
    ],
)
def test_what_the_annotations_say_must_fit(
    cluster: FakeCluster, tmp_path: Path, ann: CosignSigner, annotations: dict[str, str], words: str
) -> None:
    assert words in Machine(cluster, tmp_path, ann, unbound=True).finds(ann.signed(IMAGE, annotations)).refuses()


def test_an_environment_that_was_not_signed_is_refused(cluster: FakeCluster, tmp_path: Path, ann: CosignSigner) -> None:
    other = Machine(cluster, tmp_path, ann).finds(ann.signed(IMAGE, BOUND))

    assert "does not cover environment" in other.refuses(environment_digest="e" * 64)


def test_another_image_under_the_signed_version_is_refused(
    cluster: FakeCluster, tmp_path: Path, ann: CosignSigner
) -> None:
    evil = Image("evil")

    assert f"is for the image {IMAGE.digest}" in (
        Machine(cluster, tmp_path, ann).finds(ann.signed(IMAGE, BOUND)).refuses(evil.descriptor)
    )


def test_another_image_as_a_platform_of_the_signed_one_is_refused(
    cluster: FakeCluster, tmp_path: Path, ann: CosignSigner
) -> None:
    """The digest is the signed one; what a machine would look for among its own images is another one."""
    evil = Image("evil")
    mixed = tuple(replace(one, config=two.config) for one, two in zip(IMAGE.platforms, evil.platforms, strict=True))
    whole = describe_image(ImageReference(name=NAME, tag="2.0.0"), IMAGE.digest, evil.platforms)
    part = describe_image(ImageReference(name=NAME, tag="2.0.0"), IMAGE.digest, mixed)
    machine = Machine(cluster, tmp_path, ann).finds(ann.signed(IMAGE, BOUND))

    assert "does not cover the image that the payload names for linux/amd64" in machine.refuses(whole)
    assert "does not cover the image that the payload names for linux/amd64" in machine.refuses(part)


def test_manifests_that_were_exchanged_prove_nothing(cluster: FakeCluster, tmp_path: Path, ann: CosignSigner) -> None:
    evil = Image("evil")
    text = ann.text(IMAGE.digest, BOUND)
    whole = describe_image(ImageReference(name=NAME, tag="2.0.0"), IMAGE.digest, evil.platforms)

    machine = Machine(cluster, tmp_path, ann).finds(ann.kept(text, ann.sign(text), evil))
    assert "does not cover" in machine.refuses(whole)


def forged(ann: CosignSigner) -> dict[str, str]:
    good = ann.text(IMAGE.digest, BOUND)
    eve, other = CosignSigner(), ann.text(Image("evil").digest, BOUND)
    p384 = ec.generate_private_key(ec.SECP384R1())
    from cryptography.hazmat.primitives.hashes import SHA256

    return {
        "by another key": eve.signed(IMAGE, BOUND),
        "over another text": ann.kept(other, ann.sign(good), IMAGE),
        "a byte more": ann.kept(good + b" ", ann.sign(good), IMAGE),
        "zeros": ann.kept(good, bytes(64), IMAGE),
        "zeros in DER": ann.kept(good, bytes.fromhex("3006020100020100"), IMAGE),
        "empty": ann.kept(good, b"", IMAGE),
        "another curve": ann.kept(good, p384.sign(good, ec.ECDSA(SHA256())), IMAGE),
    }


@pytest.mark.parametrize("name", list(forged(CosignSigner())))
def test_a_forged_signature_is_by_none_of_the_keys(
    cluster: FakeCluster, tmp_path: Path, ann: CosignSigner, name: str
) -> None:
    assert "by none of the keys" in Machine(cluster, tmp_path, ann, unbound=True).finds(forged(ann)[name]).refuses()


def test_a_text_of_another_type_or_with_a_name_twice_is_not_read(
    cluster: FakeCluster, tmp_path: Path, ann: CosignSigner
) -> None:
    other = ann.text(IMAGE.digest, BOUND, type="atomic container signature")
    twice = ann.text(IMAGE.digest, BOUND).replace(
        b'{"docker-manifest-digest"', b'{"docker-manifest-digest":"sha256:' + b"0" * 64 + b'","docker-manifest-digest"'
    )
    for text in (other, twice, b"{}", b"[]", b"\xff", b'{"critical":7}'):
        kept = encode_cosign(CosignSignature(cosign=text, signature=b"", manifests=()))
        assert "isn't signed" in Machine(cluster, tmp_path, ann, unbound=True).finds(kept).refuses()


def test_a_file_is_not_signed_by_cosign_s_image_signature(
    cluster: FakeCluster, tmp_path: Path, ann: CosignSigner
) -> None:
    machine = Machine(cluster, tmp_path, ann, unbound=True).finds(ann.signed(IMAGE, BOUND))

    assert "the payload is none that a registry has" in machine.refuses(b"a tar, or anything else")


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP256K1()], ids=lambda one: one.name)
def test_a_key_on_another_curve_is_refused_at_start(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    file = CosignSigner(ec.generate_private_key(curve)).public_file(tmp_path / "cosign.pub")

    with pytest.raises(ConfigError, match="ECDSA on P-256"):
        load_public_keys([file])


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=300), text=st.text(max_size=300))
def test_junk_is_refused_and_nothing_else(body: bytes, text: str) -> None:
    kept = encode_cosign(CosignSignature(cosign=body, signature=body, manifests=(body,)))
    for one in (text, '{"cosign"' + text, kept, kept[: len(kept) // 2]):
        with pytest.raises(ConfigError):
            read_cosign(one)
