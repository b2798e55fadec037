"""Keys and signed statements for tests."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from outrider.trust.envelope import sign
from outrider.trust.keys import create_key, load_signer, public_file
from outrider.trust.rotation import PAYLOAD_TYPE as KEYS_TYPE
from outrider.trust.rotation import KeyList
from outrider.trust.statement import PAYLOAD_TYPE, Statement, encode_statement
from tests.trust.minisigning import MinisignSigner

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
SHA = "2" * 64
STATEMENT = Statement(
    app="shop", version="2.0.0", sha256=SHA, size=9, environments=("",), expires=NOON + timedelta(days=30)
)


class Signer:
    """One key pair in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.private = folder / name
        self.id = create_key(self.private)
        self.public = public_file(self.private)


def signed(*signers: Signer, **changes: Any) -> str:
    """The statement with ``changes``, in an envelope."""
    statement = msgspec.structs.replace(STATEMENT, **changes)
    return sign(encode_statement(statement), PAYLOAD_TYPE, [load_signer(one.private) for one in signers])


def key_list(
    number: int, to: Sequence[Signer | MinisignSigner], by: list[Signer], threshold: int = 1, app: str = "shop"
) -> str:
    """A list of keys, signed."""
    content = KeyList(
        app=app, number=number, keys=tuple(one.public.read_text() for one in to), threshold=threshold, made=NOON
    )
    return sign(msgspec.json.encode(content), KEYS_TYPE, [load_signer(one.private) for one in by])
