"""Signed answers (CUP with ECDSA), checked as by a client that knows the public key and trusts nothing else."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256

from outrider.core.errors import ConfigError
from outrider.etcd.seam import Cluster
from outrider.service.cup import CupSigner, load_cup
from tests.service.api.test_http import CHECK
from tests.support.service import RunningServer
from tests.support.service_examples import make_app, open_store

KEY, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
REQUEST = CHECK if isinstance(CHECK, bytes) else CHECK.encode()


class Client:
    """What it checks is all that the protocol says: the hash of its own request, and the signature over both bodies."""

    def __init__(self, public: ec.EllipticCurvePublicKey, number: int, nonce: str) -> None:
        self._public, self.given = public, f"{number}:{nonce}"

    def believes(self, request: bytes, answer: bytes, proof: str) -> bool:
        signature, _, asked = proof.strip('"').partition(":")
        mine = hashlib.sha256(request)
        if asked != mine.hexdigest():
            return False
        whole = mine.digest() + hashlib.sha256(answer).digest() + self.given.encode()
        try:
            self._public.verify(bytes.fromhex(signature), hashlib.sha256(whole).digest(), ec.ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True


def write(path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, mode: int = 0o600) -> Path:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.chmod(mode)
    return path


@pytest.fixture(scope="module")
def client() -> Client:
    return Client(KEY.public_key(), 7, "a1B2-_=")


def test_a_client_believes_its_own_answer_and_no_other(client: Client) -> None:
    proof = CupSigner({7: KEY}).headers(client.given, b"asked", b"answered")["X-Cup-Server-Proof"]

    assert client.believes(b"asked", b"answered", proof)
    assert not client.believes(b"asked", b"changed", proof)
    assert not client.believes(b"changed", b"answered", proof)
    assert not Client(KEY.public_key(), 7, "another").believes(b"asked", b"answered", proof)
    assert not Client(OTHER.public_key(), 7, "a1B2-_=").believes(b"asked", b"answered", proof)


@pytest.mark.parametrize(
    "given", ["", "7", "7:", "8:abc", ":abc", "7:a b", "7:" + "a" * 129, "7:ä", "٧:a", "-7:a", "7:a:b"]
)
def test_what_is_no_key_and_nonce_gets_no_proof(given: str) -> None:
    assert {} == CupSigner({7: KEY}).headers(given, b"asked", b"answered")


def test_no_text_ends_the_signer() -> None:
    dice, signer = random.Random(7), CupSigner({7: KEY})
    for _ in range(10_000):
        text = "".join(dice.choice("7:aA0=-_.~% \n\ud800é\0") for _ in range(dice.randrange(12)))
        proof = signer.headers(text, b"", b"") if not text.startswith("7:") else {}
        assert {} == proof, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


def test_a_key_is_one_that_only_its_owner_may_read_and_of_the_right_kind(folder: Path) -> None:
    good = write(folder / "good.pem", KEY)
    shown = write(folder / "shown.pem", KEY, 0o644)
    wrong = write(folder / "wrong.pem", ed25519.Ed25519PrivateKey.generate())
    curve = write(folder / "curve.pem", ec.generate_private_key(ec.SECP384R1()))
    (folder / "text.pem").write_text("no key")

    assert load_cup(()) is None
    assert load_cup((f"1:{good}", f"2:{good}")) is not None
    for options, said in (
        ((f"1:{good}", f"1:{good}"), "named twice"),
        ((str(good),), "write ID:FILE"),
        ((f"1:{shown}",), "others may read it"),
        ((f"1:{wrong}",), "not a P-256 key"),
        ((f"1:{curve}",), "not a P-256 key"),
        ((f"1:{folder}/text.pem",), "not a private key in PEM"),
        ((f"1:{folder}/absent",), "can't be read"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_cup(options)


@pytest.fixture
def url(cluster: Cluster, prefix: str, tmp_path: Path) -> Iterator[str]:
    below = prefix.rstrip("/")
    make_app(open_store(cluster, below), version="2.0.0")
    with RunningServer(cluster, tmp_path / "payloads", below, cup=CupSigner({7: KEY})) as running:
        yield running.url


def test_the_service_proves_each_answer_to_whoever_asks(url: str, client: Client) -> None:
    """An offer, a refusal; and without the parameter, or with another key, nothing is said of a proof."""
    for body in (REQUEST, b"<no omaha"):
        answer = requests.post(f"{url}/v1/update/?cup2key={client.given}&cup2hreq=x", data=body, timeout=60)
        for header in ("ETag", "X-Cup-Server-Proof"):
            assert client.believes(body, answer.content, answer.headers[header]), answer.text
    for query in ("", "?cup2key=8:abc", "?cup2key="):
        answer = requests.post(f"{url}/v1/update{query}", data=REQUEST, timeout=60)
        assert 200 == answer.status_code
        assert not {"etag", "x-cup-server-proof"} & {name.lower() for name in answer.headers}
