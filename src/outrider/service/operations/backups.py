"""Backup and restore of everything that the service keeps in etcd.

A backup is JSON lines: a header, one line per key, and a last line with the number of keys and a checksum of all lines
before it. All keys are from one revision. A backup leaves out short-lived state: keys with a lease (presence, queues,
wake-ups), open grants, turns and commands. A turn of a living sidekick is fenced by its keys' revisions, which no
restore can give back; a sidekick would obey a command a second time.

Readers see a restore as all or nothing: a mark says that it is running, every transaction compares the mark, and
targets come last, so no sidekick acts on a part of it. An interrupted restore is repeated with ``replace``.
"""

import base64
import binascii
import dataclasses
import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec

from outrider import __version__
from outrider.core.errors import ConfigError, Conflict, Unknown
from outrider.core.rollout.rollout import OpenCounts
from outrider.etcd.seam import Compare, Delete, DeletePrefix, Entry, ModifiedAt, Op, Put
from outrider.model.damage import read_or_none
from outrider.model.documents import Document, Package, Rollout, decode, encode
from outrider.model.epoch import Epoch
from outrider.model.keys import Keys
from outrider.service.operations.backup_secrets import Cipher, is_secret, without_secrets
from outrider.service.store.changes import Audited
from outrider.service.store.context import StoreContext
from outrider.service.store.request import Edit

FORMAT = "outrider backup"
SCHEMA = 1
MAX_BATCH_KEYS = 100
"""Each key is compared and written; etcd takes 128 comparisons and 128 writes in one transaction."""
MAX_BATCH_BYTES = 512 * 1024
"""etcd takes 1.5 MB in one request."""
NOT_KEPT = frozenset(
    {"presence", "turns", "shared-turns", "commands", "wakeups", "restoring", "cluster", "history", "history-seen"}
)
_ORDER = {"users": 0, "audit": 1, "verdicts": 2, "blocks": 3, "instances": 4}
"""Blocks and rows come before the apps, so a check-in finds them or no app. The targets come last."""
_APPS, _TARGETS, _OTHERS = 5, 6, 4


class Restoring(Document, frozen=True, kw_only=True):
    """``restoring``: a restore is running, or was interrupted."""

    at: datetime
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPayload:
    """A payload file that a package needs from the service's own folder. ``sha256``: 64 hex digits."""

    app: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """The content of a backup, verified by its checksum.

    Attributes:
        revision: etcd's revision of all keys.
        values: By key below the prefix.
        payloads: Payload files that the packages need; the backup does not contain them.
        has_secrets: Users, webhooks and the secrets of environments are in it.
    """

    revision: int
    at: str
    values: dict[str, bytes]
    payloads: tuple[StoredPayload, ...]
    has_secrets: bool = True


def restoring_key(keys: Keys) -> str:
    """The key of a restore's mark."""
    return f"{keys.prefix}/restoring"


def is_kept(below: str, lease: int) -> bool:
    """Whether a key is a part of a backup."""
    return not lease and below.partition("/")[0] not in NOT_KEPT and not _is_grant(below)


def _is_grant(below: str) -> bool:
    match below.split("/"):
        case ["apps", _, "groups", _, "grants", _]:
            return True
        case _:
            return False


def backup_lines(context: StoreContext, *, with_secrets: bool = True, cipher: Cipher | None = None) -> Iterator[bytes]:
    """A backup, line by line; all keys are read before the first line.

    Args:
        with_secrets: Else users and webhooks are left out, and environments keep only the names of their secrets.
        cipher: What encrypts the values that hold secrets; None: they are readable.

    Raises:
        Unknown: etcd gives no answer.
        Conflict: a restore is running, or was interrupted.
    """
    keys = context.keys
    listing = context.cluster.list(f"{keys.prefix}/")
    if any(entry.key == restoring_key(keys) for entry in listing.entries):
        raise Conflict(
            "a restore is running, or was interrupted, so the stored data is incomplete; finish the restore first"
        )
    kept: dict[str, bytes] = {}
    for entry in listing.entries:
        below = _below(keys, entry)
        value = entry.value if with_secrets else without_secrets(below, entry.value)
        if is_kept(below, entry.lease) and value is not None:
            kept[below] = _lasting(below, value)
    payloads = stored_payloads(kept)
    header = {
        "format": FORMAT,
        "schema": SCHEMA,
        "outrider": __version__,
        "prefix": keys.prefix,
        "revision": listing.revision,
        "at": context.now().isoformat(),
        "payloads": [{"app": one.app, "version": one.version, "sha256": one.sha256} for one in payloads],
        **({} if with_secrets else {"without_secrets": True}),
        **({} if cipher is None else {"encrypted": cipher.header}),
    }
    return _written(header, kept, cipher)


def _written(header: dict[str, object], kept: dict[str, bytes], cipher: Cipher | None) -> Iterator[bytes]:
    proof = hashlib.sha256()
    for facts in (header, *(_line_of(below, value, cipher) for below, value in kept.items())):
        line = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        proof.update(line)
        yield line
    yield json.dumps({"keys": len(kept), "sha256": proof.hexdigest()}).encode() + b"\n"


def read_backup(lines: Iterable[bytes], passphrase: bytes | None = None) -> Backup:
    """Read a backup and verify it.

    Args:
        passphrase: What its secrets are encrypted with; None: it needs none.

    Raises:
        ConfigError: it is not a backup, is incomplete, was changed, has another schema, or needs another passphrase.
    """
    every = list(lines)
    if len(every) < 2:
        raise ConfigError("backup: not an outrider backup, or incomplete; use a complete copy")
    header, end = _object(every[0], 1), _object(every[-1], len(every))
    if header.get("format") != FORMAT:
        raise ConfigError("backup: not an outrider backup; use a file that `database backup` wrote")
    if header.get("schema") != SCHEMA:
        raise ConfigError(
            f"backup: schema {header.get('schema')}, but this outrider reads schema {SCHEMA}; "
            "use the outrider version that wrote it"
        )
    if end.get("keys") != len(every) - 2 or end.get("sha256") != hashlib.sha256(b"".join(every[:-1])).hexdigest():
        raise ConfigError("backup: incomplete or changed: its checksum does not match; use a complete copy")
    values: dict[str, bytes] = {}
    cipher = None
    if "encrypted" in header:
        if passphrase is None:
            raise ConfigError("backup: its secrets are encrypted; give the passphrase with --passphrase-file")
        cipher = Cipher.of_header(header["encrypted"], passphrase)
    for number, line in enumerate(every[1:-1], 2):
        below, value = _value_of(_object(line, number), number, cipher)
        values[below] = value
    return Backup(
        revision=int(str(header.get("revision", 0))),
        at=str(header.get("at", "")),
        values=values,
        payloads=stored_payloads(values),
        has_secrets=not header.get("without_secrets"),
    )


def restore(context: StoreContext, backup: Backup, audited: Audited, *, replace: bool = False) -> int:
    """Write the keys of a backup; returns the number of replaced keys.

    Raises:
        Conflict: keys exist already and ``replace`` is not set; or another writer interfered.
        Unknown: etcd gave no answer during the restore; repeat it with ``replace``.
    """
    keys = context.keys
    listing = context.cluster.list(f"{keys.prefix}/")
    found = [below for entry in listing.entries if is_kept(below := _below(keys, entry), entry.lease)]
    mark_key = restoring_key(keys)
    mark = next((entry for entry in listing.entries if entry.key == mark_key), None)
    if not replace and mark is not None:
        raise Conflict("a restore is running, or was interrupted; --replace starts again")
    if not replace and found:
        raise Conflict(f"{keys.prefix}: {len(found)} keys exist already; --replace removes them first")
    restoring = Put(key=mark_key, value=encode(Restoring(at=context.now(), who=audited.request.principal.name)))
    areas = {f"{below.partition('/')[0]}/" for below in found if "/" in below}
    clearing: tuple[Op, ...] = (
        *(DeletePrefix(prefix=f"{keys.prefix}/{area}") for area in sorted(areas)),
        *(Delete(key=f"{keys.prefix}/{below}") for below in found if "/" not in below),
    )
    taken: Compare = ModifiedAt(key=mark_key, revision=mark.mod_revision if mark else 0)
    begun = context.cluster.txn((taken,), (restoring, *clearing))
    if not begun.succeeded:
        raise Conflict("another restore has just started; nothing was done")
    # The last write of the mark counts, not the first: a new restore on the same mark stops this one.
    _write(context, backup, audited, ModifiedAt(key=mark_key, revision=begun.revision))
    return len(found)


def _write(context: StoreContext, backup: Backup, audited: Audited, ours: Compare) -> None:
    prefix = context.keys.prefix
    summary = json.dumps({"schema": SCHEMA, "from_revision": backup.revision, "taken": backup.at}).encode()
    ending: tuple[Op, ...] = (
        Delete(key=restoring_key(context.keys)),
        # a chain of its own: everybody who has seen another one looks over what it has read
        Put(
            key=context.keys.epoch(),
            value=encode(Epoch(token=uuid.uuid4().hex, at=context.now())),
        ),
        *audited.log.puts(audited.request, [Edit(key=f"{prefix}/database", before=None, after=summary)]),
    )
    new = {put.key for put in ending if isinstance(put, Put)}
    batches = list(_batches({below: value for below, value in backup.values.items() if f"{prefix}/{below}" not in new}))
    for number, batch in enumerate(batches):
        puts = tuple(Put(key=f"{prefix}/{below}", value=value) for below, value in batch)
        absent = tuple(ModifiedAt(key=put.key, revision=0) for put in puts)
        is_last = number == len(batches) - 1
        try:
            done = context.cluster.txn((ours, *absent), (*puts, *(ending if is_last else ())))
        except Unknown as error:
            raise Unknown(f"restore interrupted: {error}; start again with --replace") from error
        if not done.succeeded:
            names = ", ".join(entry.key for entry in done.found[:3])
            raise Conflict(
                f"restore interrupted: another program wrote {names}; stop it, and start again with --replace"
            )


def _batches(values: dict[str, bytes]) -> Iterator[list[tuple[str, bytes]]]:
    """In the order of writing; at least one batch, because the last batch carries the end of the restore."""
    batch: list[tuple[str, bytes]] = []
    size_bytes = 0
    for below, value in sorted(values.items(), key=lambda item: (_rank(item[0]), item[0])):
        if batch and (len(batch) == MAX_BATCH_KEYS or size_bytes + len(value) > MAX_BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append((below, value))
        size_bytes += len(value)
    yield batch


def _rank(below: str) -> int:
    parts = below.split("/")
    if parts[0] == "apps":
        return _TARGETS if parts[-1] == "target" and len(parts) == 5 else _APPS
    return _ORDER.get(parts[0], _OTHERS)


def stored_payloads(values: dict[str, bytes]) -> tuple[StoredPayload, ...]:
    """The payload files that packages in ``values`` need, without remote files and image descriptors."""
    payloads = []
    for below, value in values.items():
        parts = below.split("/")
        if len(parts) == 4 and (parts[0], parts[2]) == ("apps", "packages"):
            package = read_or_none(Package, below, value)
            if package is None:  # kept in the backup as it is
                continue
            if package.url is None and not package.image:
                every = (package.sha256, *(one.sha256 for one in package.files))
                payloads += [StoredPayload(app=package.app, version=package.version, sha256=one) for one in every]
    return tuple(payloads)


def _below(keys: Keys, entry: Entry) -> str:
    return entry.key.removeprefix(f"{keys.prefix}/")


def _lasting(below: str, value: bytes) -> bytes:
    """A value without short-lived state: how many grants of a rollout are open: the grants are not in a backup.

    Whose update they let begin is over with it long before it is restored.
    """
    match below.split("/"):
        case ["apps", _, "groups", _, "rollout"]:
            try:
                rollout = decode(Rollout, below, value)
            except Conflict:
                return value  # written by another version, so kept unchanged
            progress = dataclasses.replace(rollout.progress, opened=(), others=OpenCounts())
            return encode(msgspec.structs.replace(rollout, progress=progress))
        case _:
            return value


def _line_of(below: str, value: bytes, cipher: Cipher | None) -> dict[str, object]:
    if cipher is not None and is_secret(below, value):
        return {"key": below, "encrypted": cipher.encrypt(below, value)}
    try:
        return {"key": below, "value": value.decode()}
    except UnicodeDecodeError:
        return {"key": below, "value_base64": base64.b64encode(value).decode("ascii")}


def _value_of(facts: dict[str, object], number: int, cipher: Cipher | None) -> tuple[str, bytes]:
    below, text, encoded = facts.get("key"), facts.get("value"), facts.get("value_base64")
    if isinstance(below, str) and is_kept(below, 0) and below.strip("/") == below and below:
        if isinstance(text, str):
            return below, text.encode()
        if cipher is not None and isinstance(sealed := facts.get("encrypted"), str):
            return below, cipher.decrypt(below, sealed)
        if isinstance(encoded, str):
            try:
                return below, base64.b64decode(encoded, validate=True)
            except binascii.Error:
                pass
    raise ConfigError(f"backup: line {number}: not a key with its value; use a complete copy")


def _object(line: bytes, number: int) -> dict[str, object]:
    try:
        facts = json.loads(line)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise ConfigError(f"backup: line {number}: not a JSON object; use a complete copy")
    return facts
