"""Secrets in a backup: left out, or encrypted with a passphrase.

They are the users and clients with the digests of their tokens, the webhooks with addresses and keys, what the audit
log says of their addresses, and the secrets of environments. All else stays readable in a backup either way.

Encrypted: AES-256-GCM of each value, bound to its key in etcd, with a key that scrypt makes of the passphrase
(RFC 7914); the parameters stand in the backup's header.
"""

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any

from outrider.core.errors import ConfigError

MISSING = "encrypted backups need the package cryptography: pip install 'outrider[backup]'"
_LEFT_OUT = frozenset({"users", "client-tokens", "webhooks", "webhook-outbox"})
_PARAMETERS = {"n": 2**15, "r": 8, "p": 1}
"""32 MB and a tenth of a second for each guess."""
_MOST_MEMORY = 128 * 1024 * 1024
_NONCE_BYTES = 12


def is_secret(below: str, value: bytes) -> bool:
    """Whether the value at a key holds secrets."""
    area = below.partition("/")[0]
    return area in _LEFT_OUT or area == "environments" or (area == "audit" and b'"noun":"webhook"' in value)


def without_secrets(below: str, value: bytes) -> bytes | None:
    """The value without its secrets; None: nothing of it is kept.

    An environment keeps the names of its secrets. It isn't whole any more, so nothing is started with it.
    """
    if not is_secret(below, value):
        return value
    if not below.startswith("environments/"):
        return None
    try:
        facts = json.loads(value)
        if not isinstance(facts, dict):
            return None
        if not facts.get("secrets"):
            return value
        facts["secrets"], facts["salt"] = dict.fromkeys(facts["secrets"], ""), ""
    except (ValueError, TypeError):
        return None  # who knows what is in it
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cipher:
    """Encrypts and decrypts values. ``header`` goes into the backup."""

    key: bytes
    header: dict[str, object]

    @classmethod
    def new(cls, passphrase: bytes) -> "Cipher":
        """With a fresh salt.

        Raises:
            ConfigError: the passphrase is too short, or the package is missing.
        """
        if len(passphrase) < 12:
            raise ConfigError("the passphrase of a backup needs 12 characters or more")
        salt = base64.b64encode(secrets.token_bytes(16)).decode()
        return cls.of_header({"kdf": "scrypt", "salt": salt, **_PARAMETERS}, passphrase)

    @classmethod
    def of_header(cls, header: object, passphrase: bytes) -> "Cipher":
        """As the header of a backup says.

        Raises:
            ConfigError: the header is none of ours, or the package is missing.
        """
        _aes(bytes(32))
        facts: dict[str, Any] = header if isinstance(header, dict) else {}
        try:
            if facts["kdf"] != "scrypt" or facts["n"] > 2**17 or facts["r"] > 8 or facts["p"] > 4:
                raise ValueError
            salt, numbers = base64.b64decode(facts["salt"], validate=True), {name: facts[name] for name in "nrp"}
            key = hashlib.scrypt(passphrase, salt=salt, maxmem=_MOST_MEMORY * 2, dklen=32, **numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                "backup: its header doesn't say how its secrets are encrypted; use a complete copy"
            ) from error
        return cls(key=key, header=facts)

    def encrypt(self, below: str, value: bytes) -> str:
        """The value at the key ``below`` the prefix, in base64."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return base64.b64encode(nonce + _aes(self.key).encrypt(nonce, value, below.encode())).decode()

    def decrypt(self, below: str, text: str) -> bytes:
        """What ``encrypt`` was given.

        Raises:
            ConfigError: another passphrase, or the backup was changed.
        """
        from cryptography.exceptions import InvalidTag

        try:
            sealed = base64.b64decode(text, validate=True)
            value: bytes = _aes(self.key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], below.encode())
        except (InvalidTag, ValueError) as error:
            raise ConfigError(
                "backup: its secrets can't be decrypted: another passphrase, or it was changed"
            ) from error
        return value


def _aes(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise ConfigError(MISSING) from None
    return AESGCM(key)
