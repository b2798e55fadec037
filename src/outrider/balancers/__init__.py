"""Balancers: how an instance's *server* entry gets into the load balancer's configuration, and out of it.

A balancer has two sides. Its ``Entry`` is the one fenced writer (``balancers/entry.py``), in etcd alone. Its
``Observer`` tells what the balancer does with that. Where the balancer reads etcd itself, its driver only says which
keys that takes (``balancers/keys.py``). ``drivers`` lists them; ``tests/contracts/test_balancers.py`` holds all of them
to the same promises.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from outrider.etcd.seam import Compare
from outrider.etcd.seam import Entry as StoredKey

Fence = tuple[Compare, ...]
"""What a write compares, so that it is refused once the turn has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One instance's entry in the balancer.

    Attributes:
        service: The balancer's name for the app's pool.
        id: Stable across versions, ``[a-z0-9][a-z0-9._-]*``: a swap overwrites, it doesn't add beside.
        url: ``http://host:port`` without a slash at the end.
    """

    service: str
    id: str
    url: str


class Entry(Protocol):
    """One server's entry. For one thread at a time; how each call fails is in ``balancers/entry.py``.

    Writes return the revision of the write; 0: there is nothing to write.
    """

    @property
    def watched(self) -> str:
        """Prefix of the etcd keys in which the balancer finds the server; empty: there are none."""

    @property
    def guard(self) -> str:
        """Key of the write guard; empty: there is none."""

    def url_in(self, entries: Mapping[str, StoredKey]) -> str | None:
        """The address in what was read below ``watched``; None: the server isn't registered."""

    def ensure_static(self) -> None:
        """Create the keys of route and pool that are absent, if the operator asked for them."""

    def switch(self, url: str, *, fence: Fence, workload: str = "") -> int:
        """Make ``url`` the entry's address, fenced."""

    def leave(self, *, fence: Fence) -> int:
        """Remove the entry, fenced."""

    def join(self, url: str, *, replacing: Collection[str] = (), workload: str = "") -> int:
        """Put ``url`` in, without a fence, unless the entry is another's; ``replacing``: our former addresses."""

    def restore(self, url: str | None, *, fence: Fence, workload: str = "") -> int:
        """Undo a ``switch``, fenced; ``url`` None: there was no entry before."""


class Observer(Protocol):
    """Tells what the balancer does.

    Attributes:
        name: The product, as in the configuration.
        propagation_s: Longest time from an acknowledged etcd write to its effect, in seconds.
        exact: Its word is about the last change that was written, not about some moment: a yes counts at once, also
            when a change is undone. And who can't tell is known by name: no time replaces a word that is missing, so
            draining waits for its deadline.
    """

    name: str
    propagation_s: float
    exact: bool

    def confirm(self, *, present: frozenset[str], absent: frozenset[str]) -> bool | None:
        """Ask the balancer itself, every instance of it, once and with a time limit.

        Returns:
            True when every balancer sends to all of ``present`` and to none of ``absent`` (addresses); False when
            one surely doesn't yet; None when it can't be told (no API configured, or no answer).
        """

    def doubt(self) -> str:
        """Who did not follow or did not answer at the last ``confirm``, for people; empty when nobody is known."""

    def open_requests(self, urls: frozenset[str]) -> int | None:
        """How many requests the balancers have open to these addresses; None when they don't count them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancer:
    """Both sides of one balancer, for one instance."""

    entry: Entry
    observer: Observer
