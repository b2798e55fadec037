"""What all resource stores share: where they read and write, the clock, names, and messages."""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.core.omaha import app_key
from outrider.etcd.seam import Cluster, Entry
from outrider.model import documents
from outrider.model.damage import read_or_none
from outrider.model.documents import Document, Group
from outrider.model.keys import Keys, check_part
from outrider.service.store.checking import GroupNumbers
from outrider.service.store.request import Seen

D = TypeVar("D", bound=Document)

Clock = Callable[[], datetime]


class Decode(Protocol):
    """As ``documents.decode``."""

    def __call__(self, kind: type[D], key: str, value: bytes) -> D: ...


MAX_TEXT = 4096
"""Characters of a label or a description: people read them, and etcd takes 1.5 MB in one request."""
MAX_NOTES = 256 * 1024
MAX_URL = 2048
"""Every server and proxy takes this length; etcd would take 1.5 MB."""
SHOWN = 5
"""Names in one message; it counts the rest."""
_UNFIT_FOR_A_URL = re.compile(r"[\x00-\x20\x7f]")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""Includes half a surrogate pair: JSON can spell one, and UTF-8 has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreContext:
    """Where and when a store works.

    Attributes:
        seen: Collects each single document that is read, for a request; None: no request needs it.
        decode: As ``documents.decode``, for who has decoded documents already.
        serving: The instances of a group that serve, for who counts them already.
        numbers: How many grants of a group are open, for who counts them already.
    """

    cluster: Cluster
    keys: Keys
    now: Clock
    seen: Seen | None = None
    decode: Decode = documents.decode
    serving: Callable[[Group, datetime], Collection[str]] | None = None
    numbers: Callable[[Group, datetime], GroupNumbers] | None = None

    def document(self, kind: type[D], entry: Entry) -> D | None:
        """The document of an entry; None, logged and counted, when it can't be read."""
        try:
            return self.decode(kind, entry.key, entry.value)
        except Conflict:
            return read_or_none(kind, entry.key, entry.value)

    def get(self, kind: type[D], key: str) -> D | None:
        """Read one document, unguarded."""
        entry = self.cluster.get(key)
        if entry is None:
            return None
        self.note(entry)
        return documents.decode(kind, key, entry.value)

    def get_or_none(self, kind: type[D], key: str) -> D | None:
        """As ``get``; None also for a document that can't be read."""
        entry = self.cluster.get(key)
        if entry is None:
            return None
        self.note(entry)
        return read_or_none(kind, key, entry.value)

    def note(self, entry: Entry) -> None:
        """Note that ``entry`` was read on behalf of the request."""
        if self.seen is not None:
            self.seen.documents[entry.key] = entry.value

    def require_app(self, app: str) -> str:
        """The id under which an existing app is stored.

        Raises:
            NotFound: there is no such app.
        """
        app_id = app_id_of(app)
        if self.cluster.get(self.keys.app(app_id)) is None:
            raise NotFound(absent_app(app))
        return app_id

    def children(self, kind: type[D], prefix: str) -> tuple[D, ...]:
        """Read the documents directly below ``prefix``, by key, without those that can't be read."""
        return self._documents(kind, direct(self.cluster.list(prefix).entries, prefix))

    def all_below(self, kind: type[D], prefix: str) -> tuple[D, ...]:
        """Read all documents below ``prefix``, at every depth, by key, without those that can't be read."""
        return self._documents(kind, self.cluster.list(prefix).entries)

    def _documents(self, kind: type[D], entries: Iterable[Entry]) -> tuple[D, ...]:
        found = (self.document(kind, entry) for entry in entries)
        return tuple(one for one in found if one is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved(Generic[D]):
    """A document as it is stored now.

    Attributes:
        created: It did not exist before.
        notes: Further notes for a person, one line each.
    """

    document: D
    created: bool = False
    notes: tuple[str, ...] = ()


def absent_app(app: str) -> str:
    """The message for an app that does not exist."""
    return f"no app {app!r}; `app list` shows them, `app create` adds one"


def app_id_of(text: str) -> str:
    """The form in which an app's id is stored: a UUID without braces, or a name, in lower case.

    Raises:
        ConfigError: it cannot be a part of a key.
    """
    return check_part("app", app_key(text))


def checked_text(what: str, text: str, limit: int = MAX_TEXT) -> str:
    """Return a text for people; raise ``ConfigError`` when it is too long or contains control characters."""
    if len(text) > limit:
        raise ConfigError(f"{what}: {len(text)} characters; write at most {limit}")
    if _UNPRINTABLE.search(text):
        raise ConfigError(f"{what}: contains control characters, or half a character; write plain text")
    return text


def checked_address(what: str, url: str, expected: str) -> SplitResult:
    """Parse an http(s) address.

    Args:
        what: Stands before the address in the message.
        expected: Tells in the message what to write instead.

    Raises:
        ConfigError: it is not an http(s) address, or longer than servers take.
    """
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a bracket too few, a port beyond 65535, a letter that stands for a slash
        is_one = False
    if not is_one or len(url) > MAX_URL or _UNFIT_FOR_A_URL.search(url):
        shown = url if len(url) <= MAX_URL else f"{url[:100]}... ({len(url)} characters, at most {MAX_URL})"
        raise ConfigError(f"{what} {shown!r}: {expected}")
    return parts


def direct(entries: Iterable[Entry], prefix: str) -> list[Entry]:
    """The entries directly below ``prefix``, without deeper ones (a group's target, its grants)."""
    return [entry for entry in entries if "/" not in entry.key[len(prefix) :]]


def some(names: Iterable[str]) -> str:
    """``a, b and 7 more``: a list that fits on one line."""
    every = sorted(names)
    more = len(every) - SHOWN
    return ", ".join(every) if more <= 0 else f"{', '.join(every[:SHOWN])} and {more} more"
