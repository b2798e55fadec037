"""New keys in place of old ones: a list of keys counts only when enough of the keys before it have signed it.

Each list has a number, one more than the list before. A machine begins with the keys of its settings and follows the
lists in order. It never goes back behind a list that it has followed: keys may have been replaced because somebody else
had them, and must not count again. A list may name keys of minisign and cosign, which sign releases, and no lists.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from outrider.core.errors import ConfigError
from outrider.trust.envelope import good_signatures, read_envelope
from outrider.trust.keys import of_envelopes, read_key_of_any_kind
from outrider.trust.statement import MAX_BYTES

if TYPE_CHECKING:
    from outrider.trust.keys import PublicKey

PAYLOAD_TYPE = "application/vnd.outrider.keys.v1+json"
MAX_KEYS = 16


class KeyList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is signed.

    Attributes:
        app: By its canonical key.
        number: 1 for the first that replaces the keys of the settings.
        keys: In PEM, or as minisign's files.
        threshold: How many of them must sign a release, and the next list.
    """

    app: str
    number: int
    keys: tuple[str, ...]
    threshold: int
    made: datetime


class Keyring:
    """The keys that count now.

    Attributes:
        passed: Names of the settings' keys and of every list that was followed: the last one's keys count.
    """

    def __init__(self, app: str, keys: "Sequence[PublicKey]", threshold: int) -> None:
        self._app, self.keys, self.threshold = app, tuple(keys), threshold
        self.passed = [name_of(self.keys, threshold)]

    @property
    def name(self) -> str:
        """Of the keys that count, with their threshold."""
        return self.passed[-1]

    def follow(self, texts: Sequence[str]) -> str:
        """Follow the lists, given in order; those up to the one that the settings repeat are not needed.

        Returns:
            Why the first that can't be followed can't; empty when all were.
        """
        lists = []
        problem = ""
        for number, text in enumerate(texts, 1):
            try:
                found = read_key_list(text)
                lists.append((text, found, _keys_of(found)))
            except ConfigError as error:
                problem = f"list {number} of keys: {error}"
                break
        names = [name_of(keys, found.threshold) for _, found, keys in lists]
        begin = names.index(self.name) + 1 if self.name in names else 0
        for (text, found, keys), name in zip(lists[begin:], names[begin:], strict=True):
            if found.app != self._app:
                return f"list {found.number} of keys is for app {found.app}"
            _, signers = good_signatures(text, PAYLOAD_TYPE, of_envelopes(self.keys))
            if len(signers) < self.threshold:
                return (
                    f"list {found.number} of keys is signed by {len(signers)} of the keys before it, and"
                    f" {self.threshold} are needed"
                )
            self.keys, self.threshold = keys, found.threshold
            self.passed.append(name)
        return problem


def name_of(keys: "Sequence[PublicKey]", threshold: int) -> str:
    """A short name of these keys with this threshold, 64 hex digits."""
    return hashlib.sha256(f"{threshold}:{','.join(sorted(key.keyid for key in keys))}".encode()).hexdigest()


def read_key_list(text: str) -> KeyList:
    """What an envelope with a list of keys holds, its signatures not checked.

    Raises:
        ConfigError: it isn't one.
    """
    payload, _ = read_envelope(text, PAYLOAD_TYPE)
    if len(payload) > MAX_BYTES:
        raise ConfigError(f"{len(payload)} bytes; at most {MAX_BYTES}")
    try:
        found = msgspec.json.decode(payload, type=KeyList)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(str(error)[:200]) from error
    if problem := key_list_problem(found):
        raise ConfigError(problem)
    return found


def key_list_problem(found: KeyList) -> str:
    """What is wrong with a list; empty: nothing."""
    if not found.app or len(found.app) > 256:
        return "app: missing or too long"
    if not 0 < found.number < 10**9:
        return f"number: {found.number}"
    if not 0 < len(found.keys) <= MAX_KEYS:
        return f"keys: {len(found.keys)}; 1 to {MAX_KEYS}"
    if not 0 < found.threshold <= len(found.keys):
        return f"threshold: {found.threshold} of {len(found.keys)} keys"
    return ""


def _keys_of(found: KeyList) -> "tuple[PublicKey, ...]":
    keys = tuple(read_key_of_any_kind(text.encode()) for text in found.keys)
    if len({key.keyid for key in keys}) < len(keys):
        raise ConfigError("names a key twice")
    return keys
