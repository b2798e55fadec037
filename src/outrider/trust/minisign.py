"""Signatures and public keys in the files of minisign: reading what a stranger may have written, and checking it.

A signature is over the payload's bytes alone (``Ed``), or over their BLAKE2b-512 (``ED``). A second one, the global
signature, is over the first with the trusted comment: only that ties the comment to the payload, and only the comment
can say for which app and version the payload is (``comment``).

Source: jedisct1/minisign, "Signature format" and "Public key format" of its page; files in tests/data/minisign were
made by minisign 0.11.
"""

import binascii
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from outrider.core.errors import ConfigError
from outrider.trust.statement import MAX_BYTES

UNTRUSTED = "untrusted comment: "
TRUSTED = "trusted comment: "
MAX_LEGACY_BYTES = 64 * 1024**2
"""Of a payload with a legacy signature, which has to be in memory as a whole."""
_PREHASHED, _LEGACY = b"ED", b"Ed"


@dataclass(frozen=True, slots=True)
class MinisignKey:
    """A public key.

    Attributes:
        number: 8 bytes, at random when the pair was made; signatures name them.
        raw: The Ed25519 key, 32 bytes.
    """

    number: bytes
    raw: bytes

    @property
    def keyid(self) -> str:
        """SHA-256 of the key, as of keys in PEM: the same key in two files counts once."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def name(self) -> str:
        """As minisign prints it."""
        return name_of(self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class MinisignSignature:
    """A signature that was read and not checked.

    Attributes:
        number: Of the key that is said to have made it, 8 bytes.
        over: 64 bytes, over the payload.
        comment: The trusted comment; to be trusted once ``is_comment_by`` said so.
        over_comment: 64 bytes, over ``over`` and the comment.
    """

    is_prehashed: bool
    number: bytes
    over: bytes
    comment: str
    over_comment: bytes

    @property
    def name(self) -> str:
        """Of the key, as minisign prints it."""
        return name_of(self.number)


class PayloadBytes:
    """The payload as signatures are over it: read once for each kind, however many signatures there are."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[bool, bytes] = {}

    def as_signed(self, *, is_prehashed: bool) -> bytes:
        """What a signature of this kind is over.

        Raises:
            ConfigError: the payload is too large for a legacy signature.
            OSError: it can't be read.
        """
        if is_prehashed not in self._known:
            self._known[is_prehashed] = self._digest() if is_prehashed else self._whole()
        return self._known[is_prehashed]

    def _digest(self) -> bytes:
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()

    def _whole(self) -> bytes:
        with self._path.open("rb") as file:
            content = file.read(MAX_LEGACY_BYTES + 1)
        if len(content) > MAX_LEGACY_BYTES:
            raise ConfigError(
                f"is a legacy one, and those count for payloads up to {MAX_LEGACY_BYTES // 1024**2} MiB; sign it"
                " without -l"
            )
        return content


def is_minisign(text: str | bytes) -> bool:
    """This looks like a file of minisign, and neither like an envelope nor like PEM."""
    head = UNTRUSTED.strip()
    return text.startswith(head) if isinstance(text, str) else text.startswith(head.encode())


def name_of(number: bytes) -> str:
    """Of a key, as minisign prints it: 16 hex digits."""
    return f"{int.from_bytes(number, 'little'):016X}"


def read_minisign(text: str | bytes) -> MinisignSignature:
    """What a signature file holds, not yet checked. Needs no library of the extra.

    Shape: an untrusted comment, ``algorithm + key number + signature`` in base64, the trusted comment, the global
    signature in base64; one line each.

    Raises:
        ConfigError: it is too long, or no signature of minisign.
    """
    lines = _lines(text, "signature")
    if len(lines) != 4:
        raise ConfigError(f"minisign signature: {len(lines)} lines instead of 4")
    head = _decoded(lines[1], "line 2", 74)
    if head[:2] not in (_PREHASHED, _LEGACY):
        raise ConfigError(f"minisign signature: algorithm {head[:2]!r} is neither Ed nor ED")
    if not lines[2].startswith(TRUSTED):
        raise ConfigError(f"minisign signature: line 3 does not begin with {TRUSTED.strip()!r}")
    return MinisignSignature(
        is_prehashed=head[:2] == _PREHASHED,
        number=head[2:10],
        over=head[10:],
        comment=lines[2].removeprefix(TRUSTED),
        over_comment=_decoded(lines[3], "line 4", 64),
    )


def read_minisign_key(content: str | bytes) -> MinisignKey:
    """What a public key file holds. Needs no library of the extra.

    Raises:
        ConfigError: it is something else.
    """
    lines = _lines(content, "public key")
    if len(lines) != 2:
        raise ConfigError(f"minisign public key: {len(lines)} lines instead of 2")
    if "secret key" in lines[0] and len(lines[1]) > 56:
        raise ConfigError("is a secret key; name the public one, and keep this one off the machine")
    found = _decoded(lines[1], "line 2", 42)
    if found[:2] != _LEGACY:  # the algorithm of keys, whichever that of a signature is
        raise ConfigError(f"minisign public key: algorithm {found[:2]!r} is not Ed")
    return MinisignKey(found[2:10], found[10:])


def is_comment_by(signature: MinisignSignature, key: MinisignKey) -> bool:
    """The global signature holds: this key's holder wrote the trusted comment, and to no other signature."""
    return _is_good(key, signature.over_comment, signature.over + signature.comment.encode(errors="surrogatepass"))


def is_payload_by(signature: MinisignSignature, key: MinisignKey, payload: PayloadBytes) -> bool:
    """The signature over the payload holds.

    Raises:
        ConfigError, OSError: as ``PayloadBytes.as_signed``.
    """
    return _is_good(key, signature.over, payload.as_signed(is_prehashed=signature.is_prehashed))


def _is_good(key: MinisignKey, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _lines(content: str | bytes, what: Literal["signature", "public key"]) -> list[str]:
    try:
        text = content if isinstance(content, str) else content.decode()
        size = len(text.encode())
    except UnicodeError as error:
        raise ConfigError(f"minisign {what}: not UTF-8") from error
    if size > MAX_BYTES:
        raise ConfigError(f"minisign {what}: {size} bytes; at most {MAX_BYTES}")
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if not lines[0].startswith(UNTRUSTED.strip()):
        raise ConfigError(f"minisign {what}: does not begin with {UNTRUSTED.strip()!r}")
    return lines


def _decoded(line: str, where: str, size: int) -> bytes:
    try:
        found = binascii.a2b_base64(line.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ConfigError(f"minisign: {where} is not base64") from error
    if len(found) != size:
        raise ConfigError(f"minisign: {where} has {len(found)} bytes instead of {size}")
    return found
