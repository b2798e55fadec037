"""Files of minisign: what they say, what is none, and which signatures hold."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outrider.core.errors import ConfigError
from outrider.trust import minisign
from outrider.trust.comment import NEVER, comment_of, is_bound, read_comment
from outrider.trust.keys import load_public_keys, of_envelopes, of_minisign
from outrider.trust.minisign import (
    PayloadBytes,
    is_comment_by,
    is_payload_by,
    read_minisign,
    read_minisign_key,
)
from tests.trust.minisigning import BOUND, PAYLOAD, VECTORS, MinisignSigner, vector
from tests.trust.signing import Signer

ANN, BOB = (read_minisign_key((VECTORS / f"{name}.pub").read_bytes()) for name in ("ann", "bob"))
SHA = "2" * 64


@pytest.mark.parametrize(("name", "is_prehashed"), [("bound", True), ("legacy", False)])
def test_what_minisign_signed_holds_in_both_forms(name: str, is_prehashed: bool) -> None:
    signature = read_minisign(vector(name))

    assert (is_prehashed, BOUND, ANN.number) == (signature.is_prehashed, signature.comment, signature.number)
    assert is_comment_by(signature, ANN)
    assert is_payload_by(signature, ANN, PayloadBytes(PAYLOAD))
    assert not is_comment_by(signature, BOB)
    assert not is_payload_by(signature, BOB, PayloadBytes(PAYLOAD))


@pytest.mark.parametrize("name", ["other-payload", "other-payload-legacy"])
def test_a_signature_over_other_bytes_is_none_over_these(name: str) -> None:
    signature = read_minisign(vector(name))

    assert is_comment_by(signature, ANN)
    assert not is_payload_by(signature, ANN, PayloadBytes(PAYLOAD))


def test_a_prehashed_signature_is_not_a_legacy_one_over_the_digest(tmp_path: Path) -> None:
    digest = tmp_path / "digest"
    digest.write_bytes(PayloadBytes(PAYLOAD).as_signed(is_prehashed=True))
    lines = vector("bound").splitlines()
    head = bytearray(base64.b64decode(lines[1]))
    head[:2] = b"Ed"
    lines[1] = base64.b64encode(head).decode()
    signature = read_minisign("\n".join(lines))

    assert not is_payload_by(signature, ANN, PayloadBytes(PAYLOAD))
    assert is_payload_by(signature, ANN, PayloadBytes(digest)), "which is another payload, with another SHA-256"


def test_a_trusted_comment_of_another_signature_is_not_signed() -> None:
    theirs, mine = vector("other-payload").splitlines(), vector("bound").splitlines()
    theirs[2] = vector("other-version").splitlines()[2]

    for mixed in ([*mine[:2], theirs[2], mine[3]], [*mine[:2], *theirs[2:]]):
        assert not is_comment_by(read_minisign("\n".join(mixed)), ANN)


def test_keys_are_named_as_minisign_names_them() -> None:
    assert (VECTORS / "ann.pub").read_text().splitlines()[0].endswith(ANN.name)
    assert ANN.name == read_minisign(vector("bound")).name


def test_line_ends_of_windows_are_none_of_the_comment() -> None:
    assert read_minisign(vector("bound")) == read_minisign(vector("bound").replace("\n", "\r\n"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("untrusted comment: ", "", "does not begin with 'untrusted comment:'"),
        ("\ntrusted comment: ", "\n", "line 3 does not begin with 'trusted comment:'"),
        ("\nRUQ", "\nRUU", "algorithm b'EE' is neither Ed nor ED"),
        ("\nRUQ", "\nR!Q", "line 2 is not base64"),
        ("\nRUQ07x7L", "\n", "line 2 has 68 bytes instead of 74"),
        ("\ntrusted", "\nmore\ntrusted", "5 lines instead of 4"),
        ("signature", "\ud800", "not UTF-8"),
        ("signature", "s" * 20_000, "at most 16384"),
    ],
)
def test_what_is_no_signature_is_refused(old: str, new: str, words: str) -> None:
    text = vector("bound")
    assert old in text

    with pytest.raises(ConfigError) as refused:
        read_minisign(text.replace(old, new, 1))
    assert words in str(refused.value)


def test_a_secret_key_is_refused_and_never_shown() -> None:
    secret = base64.b64encode(b"Ed" + bytes(156)).decode()

    with pytest.raises(ConfigError, match="is a secret key; name the public one") as refused:
        read_minisign_key(f"untrusted comment: minisign encrypted secret key\n{secret}\n")
    assert secret[:20] not in str(refused.value)


def test_a_legacy_signature_over_a_large_payload_is_refused_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minisign, "MAX_LEGACY_BYTES", PAYLOAD.stat().st_size - 1)

    assert is_payload_by(read_minisign(vector("bound")), ANN, PayloadBytes(PAYLOAD)), "the other form has no limit"
    with pytest.raises(ConfigError, match="sign it without -l"):
        is_payload_by(read_minisign(vector("legacy")), ANN, PayloadBytes(PAYLOAD))


def test_both_kinds_of_keys_are_read_and_one_key_in_both_counts_once(tmp_path: Path) -> None:
    ann, bob = Signer(tmp_path, "ann"), MinisignSigner(tmp_path, "bob")

    keys = load_public_keys([ann.public, bob.public])

    assert ([ann.id], [bob.raw]) == (
        [key.keyid for key in of_envelopes(keys)],
        [key.raw for key in of_minisign(keys)],
    )
    (key,) = of_envelopes(keys)
    same = tmp_path / "same.pub"
    raw = bytes.fromhex(key.keyval["public"])
    same.write_text(f"untrusted comment: ann\n{base64.b64encode(b'Ed' + bytes(8) + raw).decode()}\n")
    with pytest.raises(ConfigError, match=r"the same key as .*, which would count twice"):
        load_public_keys([ann.public, same])


@pytest.mark.parametrize(
    "comment",
    [
        BOUND,
        f"{BOUND} environments=any",
        f"{BOUND} environments=none,{'e' * 64} expires=2027-02-28T12:00:00Z minimum=1.0.0",
    ],
)
def test_a_comment_says_what_a_statement_says(comment: str) -> None:
    statement = read_comment(comment, sha256=SHA, size=9)

    assert is_bound(comment)
    assert ("shop", "2.0.0", SHA, 9) == (statement.app, statement.version, statement.sha256, statement.size)
    assert comment == comment_of(statement)


def test_words_may_come_in_any_order_and_an_end_is_utc() -> None:
    statement = read_comment("outrider expires=2027-01-31 version=2.0.0 app=shop", sha256=SHA, size=9)

    assert datetime(2027, 1, 31, tzinfo=UTC) == statement.expires
    assert ("",) == statement.environments
    assert NEVER == read_comment(BOUND, sha256=SHA, size=9).expires


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ("outrider", "app= is missing"),
        ("outrider app=shop", "version= is missing"),
        ("outrider version=2.0.0", "app= is missing"),
        (f"{BOUND} app=pay", "'app=pay': there twice"),
        (f"{BOUND} colour=blue", "'colour=blue': unknown"),
        (f"{BOUND} ", "'': unknown"),
        (f"{BOUND} minimum=", "'minimum=': unknown"),
        ("outrider app=shop version=two", "version: version 'two'"),
        (f"{BOUND} minimum=3.0.0", "minimum: 3.0.0 is newer than the version itself"),
        (f"{BOUND} environments=production", "environments: 'production' is not a digest"),
        (f"{BOUND} expires=soon", "expires='soon': write 2027-01-31"),
        (f"{BOUND} expires=9999-12-31T23:59:59-14:00", "write 2027-01-31"),
    ],
)
def test_a_comment_that_binds_badly_binds_nothing(comment: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_comment(comment, sha256=SHA, size=9)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "comment", ["", "timestamp:1796025218\tfile:shop.tar\thashed", "outriders app=shop", " outrider"]
)
def test_other_comments_bind_nothing(comment: str) -> None:
    assert not is_bound(comment)
