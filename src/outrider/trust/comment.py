"""The trusted comment of a minisign signature: what binds the payload's bytes to an app and a version.

``outrider app=shop version=2.4.0 environments=none,3f0c... expires=2027-02-28T12:00:00Z minimum=2.0.0``: the words of a
statement but for digest and size, which the signature over the bytes proves. ``app`` and ``version`` must be there.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from outrider.core.errors import ConfigError
from outrider.trust.minisign import MinisignKey, MinisignSignature, PayloadBytes, is_comment_by, is_payload_by
from outrider.trust.statement import (
    ANY_ENVIRONMENT,
    NO_ENVIRONMENT,
    Statement,
    Wanted,
    encode_statement,
    mismatch,
)

WORD = "outrider"
NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The end of a signature without ``expires``."""
_NAMES = ("app", "version", "environments", "expires", "minimum")
_SHOWN = {NO_ENVIRONMENT: "none", ANY_ENVIRONMENT: "any"}
_READ = {shown: meant for meant, shown in _SHOWN.items()}


def is_bound(comment: str) -> bool:
    """The comment means to say for what the signature is."""
    return comment.split(" ", 1)[0] == WORD


def read_comment(comment: str, *, sha256: str, size: int) -> Statement:
    """What a signature with this comment over a payload of this digest and size says.

    Raises:
        ConfigError: a word is missing, unknown, there twice or no good.
    """
    words: dict[str, str] = {}
    for word in comment.split(" ")[1:]:
        name, _, value = word.partition("=")
        if name not in _NAMES or not value or name in words:
            raise ConfigError(f"trusted comment: {word[:80]!r}: {'there twice' if name in words else 'unknown'}")
        words[name] = value
    for name in ("app", "version"):
        if name not in words:
            raise ConfigError(f"trusted comment: {name}= is missing")
    statement = Statement(
        app=words["app"],
        version=words["version"],
        sha256=sha256,
        size=size,
        environments=tuple(sorted({_READ.get(one, one) for one in words.get("environments", "none").split(",")})),
        expires=_end(words["expires"]) if "expires" in words else NEVER,
        minimum=words.get("minimum", ""),
    )
    try:
        encode_statement(statement)
    except ConfigError as error:
        raise ConfigError(f"trusted comment: {error}") from error
    return statement


def comment_of(statement: Statement) -> str:
    """The comment that says what ``statement`` says."""
    words = [WORD, f"app={statement.app}", f"version={statement.version}"]
    if statement.environments != (NO_ENVIRONMENT,):
        words.append(f"environments={','.join(_SHOWN.get(one, one) for one in sorted(statement.environments))}")
    if statement.expires != NEVER:
        words.append(f"expires={statement.expires.isoformat().replace('+00:00', 'Z')}")
    if statement.minimum:
        words.append(f"minimum={statement.minimum}")
    return " ".join(words)


def said_by(
    signature: MinisignSignature,
    keys: Iterable[MinisignKey],
    wanted: Wanted,
    payload: PayloadBytes,
    now: datetime,
    *,
    allow_unbound: bool,
) -> tuple[Statement, str]:
    """What a signature says of ``wanted``, whose payload this is, and the id of the key.

    Args:
        allow_unbound: A comment that names no app and version stands for those that are wanted, in any environment.

    Raises:
        ConfigError: nothing that lets it run; in words after "its signature".
        OSError: the payload can't be read.
    """
    named = [key for key in keys if key.number == signature.number]
    if not named:
        raise ConfigError(f"is by minisign key {signature.name}, which does not count here")
    key = next((key for key in named if is_comment_by(signature, key)), None)
    if key is None:
        raise ConfigError(f"by minisign key {signature.name} has a trusted comment that was not signed with it")
    statement = _meant(signature, wanted, allow_unbound=allow_unbound)
    if problem := mismatch(statement, wanted, now):
        raise ConfigError(problem)
    if not is_payload_by(signature, key, payload):
        raise ConfigError(f"by minisign key {signature.name} is not over this payload")
    return statement, key.keyid


def _meant(signature: MinisignSignature, wanted: Wanted, *, allow_unbound: bool) -> Statement:
    if is_bound(signature.comment):
        try:
            return read_comment(signature.comment, sha256=wanted.sha256, size=wanted.size)
        except ConfigError as error:
            raise ConfigError(f"has a bad {error}") from error
    if not allow_unbound:
        raise ConfigError(
            f"by minisign key {signature.name} names no app and version in its trusted comment; sign with"
            f" `minisign -S -t '{WORD} app={wanted.app} version={wanted.version}'`, or set"
            " trust.allow_unbound_minisign"
        )
    return Statement(
        app=wanted.app,
        version=wanted.version,
        sha256=wanted.sha256,
        size=wanted.size,
        environments=(ANY_ENVIRONMENT,),
        expires=NEVER,
    )


def _end(text: str) -> datetime:
    try:
        end = datetime.fromisoformat(text)
        return end.replace(tzinfo=UTC) if end.tzinfo is None else end.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"trusted comment: expires={text[:80]!r}: write 2027-01-31 or 2027-01-31T12:00:00Z"
        ) from error
