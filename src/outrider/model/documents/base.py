"""What every stored value is, and how it is written and read.

A document from another schema version is refused with one clear line, never half understood. Times are aware UTC,
written as RFC 3339.
"""

from typing import TypeVar

import msgspec

from outrider.core.errors import Conflict

SCHEMA = 1


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base of every stored value. Unknown fields are tolerated: a newer writer may have added some."""

    schema: int = SCHEMA


D = TypeVar("D", bound=Document)
_ENCODER = msgspec.json.Encoder(order="sorted")


def encode(document: Document) -> bytes:
    """Write a document as one line of JSON with sorted keys."""
    return _ENCODER.encode(document)


def decode(kind: type[D], key: str, value: bytes) -> D:
    """Read the document stored at ``key``.

    Raises:
        Conflict: not JSON, not this kind of document, or of another schema version.
    """
    try:
        document = msgspec.json.decode(value, type=kind)
    except msgspec.DecodeError as error:
        raise Conflict(f"{key}: not a {kind.__name__.lower()} document: {error}") from error
    if document.schema != SCHEMA:
        raise Conflict(
            f"{key}: schema {document.schema}, this outrider reads schema {SCHEMA}; use the version that wrote it"
        )
    return document
