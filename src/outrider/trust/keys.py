"""Key files: Ed25519 in PEM, as openssl and others read and write them, and public keys of minisign and of cosign.

An Ed25519 key in PEM signs envelopes, those of minisign and cosign sign each in its own way, and nothing else. A key is
known by its id, the SHA-256 of its 32 bytes (of cosign: of its DER): the same key in two files is one key, and counts
once.
"""

import importlib.util
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from outrider.core.errors import ConfigError
from outrider.trust.cosign import CosignKey, read_cosign_key
from outrider.trust.minisign import MinisignKey, is_minisign, read_minisign_key

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

    PublicKey = SSlibKey | MinisignKey | CosignKey

MAX_BYTES = 8 * 1024
"""Of a key file: one has about 120."""
EXTRA = "signatures need the packages cryptography and securesystemslib: pip install 'outrider[trust]'"


def is_available() -> bool:
    """The libraries of the extra are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("cryptography", "securesystemslib"))


def create_key(path: Path, passphrase: bytes = b"") -> str:
    """Write a new key pair to ``path`` (0600) and ``path`` with ``.pub``; neither may be there already.

    Returns:
        The key's id.

    Raises:
        ConfigError: the extra is missing, or a file can't be written.
    """
    _require_extra()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    shown = public_file(path)
    if shown.exists():
        raise ConfigError(f"{shown}: is there already; give the key another name")
    _write_new(path, private, 0o600)
    _write_new(shown, public, 0o644)
    return read_public_key(public).keyid


def public_file(path: Path) -> Path:
    """Where the public half of the key at ``path`` is."""
    return path.with_name(f"{path.name}.pub")


def load_signer(path: Path, passphrase: bytes = b"") -> "CryptoSigner":
    """The private key of a file.

    Raises:
        ConfigError: it can't be read, others may read it, or it isn't an Ed25519 key.
    """
    _require_extra()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner

    content = _read(path)
    try:
        key = serialization.load_pem_private_key(content, passphrase or None)
    except TypeError as error:
        what = "has no passphrase" if passphrase else "has a passphrase; set OUTRIDER_KEY_PASSPHRASE"
        raise ConfigError(f"{path}: {what}") from error
    except Exception as error:  # the library's own errors have no common class
        raise ConfigError(f"{path}: not a private key in PEM, or another passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 key; `outrider key create` makes one")
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"{path}: others may read it; chmod 600 {path}")
    return CryptoSigner(key, _named(key.public_key()))


def load_public_keys(paths: Iterable[Path]) -> "tuple[PublicKey, ...]":
    """The public keys of some files, of any kind.

    Raises:
        ConfigError: one can't be read or isn't a key, or two are the same.
    """
    _require_extra()
    known: dict[str, Path] = {}
    keys = []
    for path in paths:
        try:
            key = read_key_of_any_kind(_read(path))
        except ConfigError as error:
            raise ConfigError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
        if key.keyid in known:
            raise ConfigError(f"{path}: the same key as {known[key.keyid]}, which would count twice")
        known[key.keyid] = path
        keys.append(key)
    return tuple(keys)


def read_key_of_any_kind(content: bytes) -> "PublicKey":
    """A public key in PEM (Ed25519, or of cosign), or of minisign.

    Raises:
        ConfigError: it is something else.
    """
    if is_minisign(content):
        return read_minisign_key(content)
    key = _read_pem(content)
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    return read_cosign_key(key) if isinstance(key, EllipticCurvePublicKey) else _ed25519(key)


def of_envelopes(keys: "Sequence[PublicKey]") -> "tuple[SSlibKey, ...]":
    """Those of ``keys`` that sign envelopes."""
    return tuple(key for key in keys if not isinstance(key, MinisignKey | CosignKey))


def of_cosign(keys: "Sequence[PublicKey]") -> tuple[CosignKey, ...]:
    """Those of ``keys`` that sign with cosign."""
    return tuple(key for key in keys if isinstance(key, CosignKey))


def of_minisign(keys: "Sequence[PublicKey]") -> tuple[MinisignKey, ...]:
    """Those of ``keys`` that sign with minisign."""
    return tuple(key for key in keys if isinstance(key, MinisignKey))


def read_public_key(content: bytes) -> "SSlibKey":
    """A public key in PEM that signs envelopes.

    Raises:
        ConfigError: it is something else.
    """
    return _ed25519(_read_pem(content))


def _read_pem(content: bytes) -> object:
    from cryptography.hazmat.primitives import serialization

    if b"PRIVATE KEY" in content:
        raise ConfigError("is a private key; name the file that ends in .pub, and keep this one off the machine")
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{len(content)} bytes; a public key has at most {MAX_BYTES}")
    try:
        return serialization.load_pem_public_key(content)
    except Exception as error:  # the library's own errors have no common class
        raise ConfigError("neither a public key in PEM nor one of minisign") from error


def _ed25519(key: object) -> "SSlibKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("not an Ed25519 key; `outrider key create` makes one")
    return _named(key)


def _named(key: object) -> "SSlibKey":
    import hashlib

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from securesystemslib.signer import SSlibKey

    assert isinstance(key, Ed25519PublicKey)
    return SSlibKey.from_crypto(key, keyid=hashlib.sha256(key.public_bytes_raw()).hexdigest(), scheme="ed25519")


def _require_extra() -> None:
    if not is_available():
        raise ConfigError(EXTRA)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror or error}") from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise ConfigError(f"{path}: is there already; give the key another name") from error
    except OSError as error:
        raise ConfigError(f"{path}: can't be written: {error.strerror or error}") from error
