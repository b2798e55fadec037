"""Envelopes and keys are read from strangers: whatever they hold, there is one kind of error, and no signature."""

import random
from contextlib import suppress
from pathlib import Path

import pytest

from outrider.core.errors import ConfigError
from outrider.trust.envelope import good_signatures
from outrider.trust.keys import load_public_keys, read_public_key
from outrider.trust.rotation import read_key_list
from outrider.trust.statement import PAYLOAD_TYPE, parse_statement
from tests.support.rings import mostly_long
from tests.trust.signing import Signer, key_list, signed

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
    keys = load_public_keys([ann.public])
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
