"""What the holders of the keys sign about a release, and whether it fits what a machine was offered. Pure.

A statement is JSON in a DSSE envelope. It names the app, so that one app's payload can't be served as another's; the
version with SHA-256 and size; the environments with which the payload may be started; until when it counts; and the
oldest version that may run from then on.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from outrider.core import versions
from outrider.core.errors import ConfigError

PAYLOAD_TYPE = "application/vnd.outrider.release.v1+json"
MAX_BYTES = 16 * 1024
"""Of one envelope: a statement has a few hundred bytes, and each signature about a hundred."""
MAX_ENVIRONMENTS = 64
NO_ENVIRONMENT = ""
ANY_ENVIRONMENT = "*"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ENVIRONMENT = re.compile(r"[0-9a-f]{64}|\*|")


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is signed.

    Attributes:
        app: By its canonical key.
        sha256: Of the payload, 64 lower-case hex digits; of an image: of its descriptor, which holds the digest.
        size: Of the payload, bytes.
        environments: Digests of the environments that it may be started with; an empty text stands for none, ``*``
            for any.
        expires: Aware UTC.
        minimum: No older version than this may run once this was accepted; empty: none is named.
    """

    app: str
    version: str
    sha256: str
    size: int
    environments: tuple[str, ...]
    expires: datetime
    minimum: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a machine is about to run."""

    app: str
    version: str
    sha256: str
    size: int
    environment: str


def parse_statement(payload: bytes) -> Statement:
    """Read a signed statement.

    Raises:
        ConfigError: it isn't one.
    """
    if len(payload) > MAX_BYTES:
        raise ConfigError(f"statement: {len(payload)} bytes; at most {MAX_BYTES}")
    try:
        found = msgspec.json.decode(payload, type=Statement)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"statement: {str(error)[:200]}") from error
    if problem := _problem(found):
        raise ConfigError(f"statement: {problem}")
    return found


def encode_statement(statement: Statement) -> bytes:
    """As it is signed.

    Raises:
        ConfigError: no machine would take it.
    """
    if problem := _problem(statement):
        raise ConfigError(problem)
    return msgspec.json.encode(statement, order="sorted")


def mismatch(statement: Statement, wanted: Wanted, now: datetime) -> str:
    """Why the statement doesn't let ``wanted`` run, in words after "its signature"; empty when it does."""
    if statement.app != wanted.app:
        return f"is for app {statement.app}"
    if statement.version != wanted.version:
        return f"is for version {statement.version}"
    if statement.sha256 != wanted.sha256:
        return f"is for a payload with SHA-256 {statement.sha256}"
    if statement.size != wanted.size:
        return f"is for a payload of {statement.size} bytes"
    if ANY_ENVIRONMENT not in statement.environments and wanted.environment not in statement.environments:
        which = f"environment {wanted.environment[:12]}" if wanted.environment else "no environment"
        return f"does not cover {which}; sign it with --group, or --any-environment"
    if statement.expires <= now:
        return f"expired on {statement.expires:%Y-%m-%d %H:%M} UTC; sign it again"
    return ""


def is_below(version: str, minimum: str) -> bool:
    """``version`` is older than the oldest one that may run."""
    return bool(minimum) and versions.is_newer(minimum, version)


def newest(minima: Iterable[str]) -> str:
    """The highest of several oldest versions; empty without one."""
    known = [one for one in minima if one]
    return max(known, key=versions.parse) if known else ""


def _problem(statement: Statement) -> str:
    if not statement.app or len(statement.app) > 256:
        return "app: missing or too long"
    if not _SHA256.fullmatch(statement.sha256):
        return f"sha256: {statement.sha256[:80]!r} is not 64 lower-case hex digits"
    if not 0 <= statement.size < 2**63:
        return f"size: {statement.size} bytes"
    if not 0 < len(statement.environments) <= MAX_ENVIRONMENTS:
        return f"environments: {len(statement.environments)}; 1 to {MAX_ENVIRONMENTS}"
    for each in statement.environments:
        if not _ENVIRONMENT.fullmatch(each):
            return f"environments: {each[:80]!r} is not a digest"
    if statement.expires.tzinfo is None or statement.expires.utcoffset() != UTC.utcoffset(None):
        return "expires: must be UTC, for example 2027-01-31T00:00:00Z"
    for name, version in (("version", statement.version), ("minimum", statement.minimum)):
        if name == "minimum" and not version:
            continue
        try:
            versions.parse(version)
        except ConfigError as error:
            return f"{name}: {error}"
    if is_below(statement.version, statement.minimum):
        return f"minimum: {statement.minimum} is newer than the version itself ({statement.version})"
    return ""
