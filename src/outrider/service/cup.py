"""CUP, the Client Update Protocol with ECDSA: signed Omaha answers, for clients that know the service's public key.

A client adds ``cup2key=ID:NONCE`` to the address. The answer carries a signature over the request, the answer and that
text, so nobody on the way changes either, nor plays an older answer again. It works over plain http.

What is signed with ECDSA P-256 and SHA-256 is the SHA-256 of: SHA-256 of the request's body, SHA-256 of the answer's
body, and the text ``ID:NONCE``. The header is ``SIGNATURE:HASH``: the DER signature and the SHA-256 of the request's
body, both in hex.

Source: google/omaha doc/ClientUpdateProtocolEcdsa.md; chromium components/client_update_protocol/ecdsa.cc.
"""

import hashlib
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from outrider.core.errors import ConfigError
from outrider.trust.keys import EXTRA, is_available

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PARAMETER = "cup2key"
MAX_KEY_BYTES = 8 * 1024
_GIVEN = re.compile(r"([0-9]{1,9}):([A-Za-z0-9_.=~-]{1,128})")
_OPTION = re.compile(r"([0-9]{1,9}):(.+)")


class CupSigner:
    """Signs answers with the key that a client names."""

    def __init__(self, keys: "Mapping[int, EllipticCurvePrivateKey]") -> None:
        """``keys``: the number of each, by which clients name it -> P-256."""
        self._keys = dict(keys)

    def headers(self, given: str, request: bytes, answer: bytes) -> dict[str, str]:
        """The proof for one answer; nothing for what is no ``ID:NONCE``, or names a key that isn't here.

        Args:
            given: The parameter ``cup2key``, as the client wrote it.
        """
        matched = _GIVEN.fullmatch(given)
        key = self._keys.get(int(matched[1])) if matched else None
        if key is None:
            return {}
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        asked = hashlib.sha256(request)
        whole = hashlib.sha256(asked.digest() + hashlib.sha256(answer).digest() + given.encode("ascii")).digest()
        proof = f"{key.sign(whole, ECDSA(SHA256())).hex()}:{asked.hexdigest()}"
        return {"ETag": f'"{proof}"', "X-Cup-Server-Proof": proof}


def load_cup(options: Iterable[str]) -> CupSigner | None:
    """The keys of ``--cup-key ID:FILE``; None without one.

    Raises:
        ConfigError: the extra is missing, or a file is no P-256 private key in PEM that only its owner may read.
    """
    keys = {}
    for option in options:
        matched = _OPTION.fullmatch(option)
        if matched is None:
            raise ConfigError(f"--cup-key {option[:200]!r}: write ID:FILE, for example 1:/etc/outrider/cup.pem")
        if int(matched[1]) in keys:
            raise ConfigError(f"--cup-key {option[:200]!r}: key {matched[1]} is named twice")
        keys[int(matched[1])] = _load(Path(matched[2]))
    return CupSigner(keys) if keys else None


def _load(path: Path) -> "EllipticCurvePrivateKey":
    if not is_available():
        raise ConfigError(f"--cup-key: {EXTRA}")
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with path.open("rb") as file:
            content = file.read(MAX_KEY_BYTES + 1)
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigError(f"--cup-key {path}: can't be read: {error.strerror or error}") from error
    try:
        key = load_pem_private_key(content, None)
    except Exception as error:  # the library's own errors have no common class
        raise ConfigError(f"--cup-key {path}: not a private key in PEM without a passphrase") from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise ConfigError(f"--cup-key {path}: not a P-256 key; `openssl ecparam -name prime256v1 -genkey -noout`")
    if mode & 0o077:
        raise ConfigError(f"--cup-key {path}: others may read it; chmod 600 {path}")
    return key
