"""Envelopes and keys are read from strangers: whatever they hold, there is one kind of error, and no signature."""

import hashlib
import random
from contextlib import suppress
from pathlib import Path

import pytest

from outrider.core.errors import ConfigError
from outrider.trust import cosign
from outrider.trust.comment import read_comment, said_by
from outrider.trust.envelope import good_signatures
from outrider.trust.keys import load_public_keys, of_cosign, of_envelopes, read_public_key
from outrider.trust.minisign import MinisignKey, PayloadBytes, read_minisign, read_minisign_key
from outrider.trust.rotation import read_key_list
from outrider.trust.statement import PAYLOAD_TYPE, Statement, Wanted, parse_statement
from tests.support.rings import mostly_long
from tests.trust.cosigning import BOUND as COSIGN_BOUND
from tests.trust.cosigning import CosignSigner, Image
from tests.trust.minisigning import BOUND, PAYLOAD, VECTORS, vector
from tests.trust.signing import NOON, SHA, Signer, key_list, signed

LONG = 10_000
_PIECES = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"null",
    b"1e999",
    b"-1",
    b"\\ud800",
    b"\xff\xfe",
    b"=",
    b"A" * 300,
    b"\0",
)


def changed(content: bytes, random: random.Random) -> bytes:
    """``content`` with some bytes flipped, cut, doubled or put in."""
    out = bytearray(content)
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(out) + 1)
        match random.randrange(5):
            case 0 if at < len(out):
                out[at] ^= 1 << random.randrange(8)
            case 1:
                del out[at : at + random.randint(1, 40)]
            case 2:
                out[at:at] = random.choice(_PIECES)
            case 3:
                out[at:at] = out[max(0, at - random.randint(1, 200)) : at]
            case _:
                out = out[:at]
    return bytes(out)


@pytest.mark.parametrize("inputs", mostly_long([300, LONG], short=lambda inputs: inputs < LONG))
def test_no_input_is_taken_for_a_signature_or_ends_the_reader(tmp_path: Path, inputs: int) -> None:
    ann, bob = Signer(tmp_path, "ann"), Signer(tmp_path, "bob")
    keys = of_envelopes(load_public_keys([ann.public]))
    good = signed(ann, bob)
    payload, _ = good_signatures(good, PAYLOAD_TYPE, keys)
    lists, pem = key_list(1, [bob], by=[ann]).encode(), ann.public.read_bytes()
    dice = random.Random(7)
    taken = 0
    for _ in range(inputs):
        text = changed(good.encode(), dice).decode(errors="surrogateescape")
        try:
            found, signers = good_signatures(text, PAYLOAD_TYPE, keys)
        except ConfigError:
            pass
        else:
            taken += bool(signers)
            assert not signers or found == payload, text
        for read, content in ((parse_statement, changed(payload, dice)), (read_public_key, changed(pem, dice))):
            with suppress(ConfigError):
                read(content)
        with suppress(ConfigError):
            read_key_list(changed(lists, dice).decode(errors="surrogateescape"))
    assert taken < inputs / 2, "hardly anything was changed"


@pytest.mark.parametrize("inputs", mostly_long([300, LONG], short=lambda inputs: inputs < LONG))
def test_no_file_of_minisign_says_more_than_was_signed(inputs: int) -> None:
    key_file, comment = (VECTORS / "ann.pub").read_bytes(), f"{BOUND} expires=2027-01-31".encode()
    key, payload = read_minisign_key(key_file), PayloadBytes(PAYLOAD)
    wanted = Wanted(app="shop", version="2.0.0", sha256=SHA, size=9, environment="")
    good, bad = ("bound", "legacy", "whole"), ("other-app", "other-payload", "unbound")

    def said(text: str | bytes, by: MinisignKey) -> tuple[Statement, str]:
        return said_by(read_minisign(text), [by], wanted, payload, NOON, allow_unbound=False)

    meant = {said(vector(name), key)[0] for name in good}
    dice = random.Random(11)
    taken = 0
    for _ in range(inputs):
        text = changed(vector(dice.choice(good + bad)).encode(), dice).decode(errors="surrogateescape")
        try:
            statement, keyid = said(text, key)
        except ConfigError:
            pass
        else:
            taken += 1
            assert (key.keyid, True) == (keyid, statement in meant), text
        with suppress(ConfigError):
            read_comment(changed(comment, dice).decode(errors="replace"), sha256=SHA, size=9)
        with suppress(ConfigError):
            other = read_minisign_key(changed(key_file, dice))
            said(vector("bound"), other)
            assert other.raw == key.raw
    assert 0 < taken < inputs / 2


@pytest.mark.parametrize("inputs", mostly_long([300, LONG], short=lambda inputs: inputs < LONG))
def test_no_signature_of_cosign_says_more_than_was_signed(tmp_path: Path, inputs: int) -> None:
    image, ann = Image(), CosignSigner()
    keys = of_cosign(load_public_keys([ann.public_file(tmp_path / "ann.pub")]))
    payload = image.descriptor
    sha256 = hashlib.sha256(payload).hexdigest()
    wanted = Wanted(app="shop", version="2.0.0", sha256=sha256, size=len(payload), environment="")
    good, other = ann.signed(image, COSIGN_BOUND), ann.signed(Image("other"), COSIGN_BOUND)

    def said(text: str, content: bytes) -> tuple[Statement, str]:
        return cosign.said_by(cosign.read_cosign(text), keys, wanted, content, NOON, allow_unbound=False)

    meant, _ = said(good, payload)
    dice = random.Random(13)
    taken = 0
    for _ in range(inputs):
        text = changed(dice.choice((good, other)).encode(), dice).decode(errors="surrogateescape")
        try:
            statement, keyid = said(text, payload)
        except ConfigError:
            pass
        else:
            taken += 1
            assert (keys[0].keyid, meant) == (keyid, statement), text
        with suppress(ConfigError):
            said(good, changed(payload, dice))
        with suppress(ConfigError):
            cosign.signatures_in(changed(image.index, dice))
    assert taken < inputs / 2
