"""Our words as etcd's messages, and back."""

from typing import Any

from etcd3 import etcdrpc
from google.protobuf.unknown_fields import UnknownFieldSet

from outrider.etcd.seam import (
    Compare,
    CreatedAt,
    Delete,
    DeletePrefix,
    Entry,
    KeyChanged,
    ModifiedAt,
    NotNewer,
    Op,
    Put,
)


def encode_key(key: str) -> bytes:
    """A key as etcd has it; foreign keys that are no UTF-8 come back as they were."""
    return key.encode(errors="surrogateescape")


def entry_of(kv: Any) -> Entry:
    """Our form of etcd's ``KeyValue``."""
    return Entry(
        key=kv.key.decode(errors="surrogateescape"),
        value=kv.value,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        lease=kv.lease,
    )


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """First key and the key after the last one, as etcd wants them; an empty prefix is everything."""
    start = encode_key(prefix)
    stem = start.rstrip(b"\xff")
    if not stem:
        return start or b"\0", b"\0"
    return start, stem[:-1] + bytes([stem[-1] + 1])


def compare_message(compare: Compare) -> Any:
    """The comparison as etcd wants it; a key that doesn't exist has revision 0 there too."""
    key = encode_key(compare.key)
    match compare:
        case CreatedAt(revision=revision):
            return etcdrpc.Compare(
                key=key, result=etcdrpc.Compare.EQUAL, target=etcdrpc.Compare.CREATE, create_revision=revision
            )
        case ModifiedAt(revision=revision):
            return etcdrpc.Compare(
                key=key, result=etcdrpc.Compare.EQUAL, target=etcdrpc.Compare.MOD, mod_revision=revision
            )
        case NotNewer(key=prefix, revision=revision):
            start, end = prefix_range(prefix)
            # etcd compares every key of the range, and an empty range as one key at revision 0
            return etcdrpc.Compare(
                key=start,
                range_end=end,
                result=etcdrpc.Compare.LESS,
                target=etcdrpc.Compare.MOD,
                mod_revision=revision + 1,
            )


def op_message(op: Op) -> Any:
    """The operation as part of a transaction."""
    match op:
        case Put(key=key, value=value, lease=lease):
            put = etcdrpc.PutRequest(key=encode_key(key), value=value, lease=lease)
            return etcdrpc.RequestOp(request_put=put)
        case Delete(key=key):
            return etcdrpc.RequestOp(request_delete_range=etcdrpc.DeleteRangeRequest(key=encode_key(key)))
        case DeletePrefix(prefix=prefix):
            start, end = prefix_range(prefix)
            gone = etcdrpc.DeleteRangeRequest(key=start, range_end=end)
            return etcdrpc.RequestOp(request_delete_range=gone)


def change_of(event: Any, *, more: bool = False) -> KeyChanged:
    """Our form of one event of a watch; ``more``: the next one is of the same transaction."""
    entry = entry_of(event.kv)
    return KeyChanged(key=entry.key, entry=None if event.type else entry, revision=entry.mod_revision, more=more)


def is_fragment(response: Any) -> bool:
    """Whether a watch's message ends within a transaction, perhaps; the client's stubs are older than this field."""
    return any(field.field_number == _FRAGMENT and field.data for field in UnknownFieldSet(response))


_FRAGMENT = 7
