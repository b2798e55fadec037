"""Keys that sign as minisign does, for what its own files in tests/data/minisign don't cover."""

import base64
import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VECTORS = Path(__file__).parent.parent / "data" / "minisign"
PAYLOAD = VECTORS / "payload"
BOUND = "outrider app=shop version=2.0.0"


def vector(name: str) -> str:
    """A signature that minisign made."""
    return (VECTORS / f"{name}.minisig").read_text()


class MinisignSigner:
    """One key pair; its public half is in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._number = hashlib.sha256(name.encode()).digest()[:8]
        self.raw = self._key.public_key().public_bytes_raw()
        self.public = folder / f"{name}.minisign.pub"
        text = base64.b64encode(b"Ed" + self._number + self.raw).decode()
        self.public.write_text(f"untrusted comment: minisign public key\n{text}\n")

    def signed(self, comment: str = BOUND, payload: bytes | None = None, *, legacy: bool = False) -> str:
        """A signature file over ``payload``, by default that of the vectors."""
        content = PAYLOAD.read_bytes() if payload is None else payload
        over = self._key.sign(content if legacy else hashlib.blake2b(content).digest())
        head = base64.b64encode((b"Ed" if legacy else b"ED") + self._number + over).decode()
        tail = base64.b64encode(self._key.sign(over + comment.encode())).decode()
        return f"untrusted comment: signature\n{head}\ntrusted comment: {comment}\n{tail}\n"
