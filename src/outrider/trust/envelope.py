"""DSSE envelopes: signing, reading what a stranger may have written, and counting good signatures.

Source: secure-systems-lab/dsse protocol.md and envelope.md; the library is securesystemslib.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec

from outrider.core.errors import ConfigError
from outrider.trust.statement import MAX_BYTES

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, SSlibKey

MAX_SIGNATURES = 16


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    keyid: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    sig: Annotated[bytes, msgspec.Meta(min_length=1, max_length=512)]


class _Envelope(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=False):
    """msgspec reads base64 where it wants bytes."""

    payload: bytes
    payload_type: Annotated[str, msgspec.Meta(max_length=200)]
    signatures: Annotated[tuple[_Signature, ...], msgspec.Meta(min_length=1, max_length=MAX_SIGNATURES)]


def read_envelope(text: str | bytes, payload_type: str) -> "tuple[bytes, tuple[_Signature, ...]]":
    """What an envelope holds, with its signatures not yet checked. Needs no library of the extra.

    Raises:
        ConfigError: it is too long, no envelope, signed twice by one key, or of another payload type.
    """
    content = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(content) > MAX_BYTES:
        raise ConfigError(f"envelope: {len(content)} bytes; at most {MAX_BYTES}")
    try:
        found = msgspec.json.decode(content, type=_Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"envelope: {str(error)[:200]}") from error
    if found.payload_type != payload_type:
        raise ConfigError(f"envelope: is of type {found.payload_type!r}, not {payload_type}")
    if len({one.keyid for one in found.signatures}) < len(found.signatures):
        raise ConfigError("envelope: one key has signed it twice")
    return found.payload, found.signatures


def sign(payload: bytes, payload_type: str, signers: Iterable["CryptoSigner"], known: str = "") -> str:
    """An envelope as one line of JSON, signed by all ``signers``.

    Args:
        payload: What is signed.
        payload_type: Its type.
        signers: At least one.
        known: An envelope over the same payload, whose signatures are kept; empty: none.

    Raises:
        ConfigError: ``known`` is over something else.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import Signature

    envelope = Envelope(payload, payload_type, {})
    if known:
        before, signatures = read_envelope(known, payload_type)
        if before != payload:
            raise ConfigError("the envelope is over something else; sign it anew")
        envelope.signatures = {one.keyid: Signature(one.keyid, one.sig.hex()) for one in signatures}
    for signer in signers:
        envelope.sign(signer)
    return msgspec.json.encode(envelope.to_dict(), order="sorted").decode()


def good_signatures(text: str, payload_type: str, keys: Sequence["SSlibKey"]) -> tuple[bytes, tuple[str, ...]]:
    """The payload, and the ids of those of ``keys`` that have signed it.

    Raises:
        ConfigError: as ``read_envelope``.
    """
    payload, signatures = read_envelope(text, payload_type)
    envelope = _of(payload, payload_type, signatures)
    return payload, tuple(key.keyid for key in keys if _has_signed(envelope, key))


def _of(payload: bytes, payload_type: str, signatures: tuple[_Signature, ...]) -> "Envelope":
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import Signature

    return Envelope(payload, payload_type, {one.keyid: Signature(one.keyid, one.sig.hex()) for one in signatures})


def _has_signed(envelope: "Envelope", key: "SSlibKey") -> bool:
    from securesystemslib.exceptions import Error

    try:
        envelope.verify([key], 1)
    except (Error, ValueError):
        return False
    return True
