"""Envelopes as the service reads them, which checks no signature: no key is needed."""

import base64
from datetime import UTC, datetime

import msgspec

from outrider.trust.rotation import PAYLOAD_TYPE as KEYS_TYPE
from outrider.trust.rotation import KeyList
from outrider.trust.statement import PAYLOAD_TYPE, Statement, encode_statement
from tests.support.service_examples import APP, payload_of

LATER = datetime(2100, 1, 1, tzinfo=UTC)


def envelope_of(payload: bytes, payload_type: str) -> str:
    """With a signature that is none."""
    signature = {"keyid": "a" * 64, "sig": base64.b64encode(bytes(64)).decode()}
    whole = {"payload": base64.b64encode(payload).decode(), "payloadType": payload_type, "signatures": [signature]}
    return msgspec.json.encode(whole).decode()


def envelope_for(version: str, /, **changes: object) -> str:
    """Over a package of the examples, with ``changes``."""
    known = payload_of(version)
    statement = Statement(
        app=APP, version=version, sha256=known.sha256, size=known.size_bytes, environments=("",), expires=LATER
    )
    return envelope_of(encode_statement(msgspec.structs.replace(statement, **changes)), PAYLOAD_TYPE)


def key_list_of(app: str, number: int = 1) -> str:
    """A list of keys of which the service reads the head only."""
    content = KeyList(app=app, number=number, keys=("a key",), threshold=1, made=LATER)
    return envelope_of(msgspec.json.encode(content), KEYS_TYPE)
