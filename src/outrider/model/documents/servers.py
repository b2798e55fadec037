"""Servers of the balancers, as sidekicks write them."""

import msgspec

from outrider.model.documents.base import Document


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who wrote a server's entry in the balancer.

    Attributes:
        app: By its canonical key.
        workload: Id of the workload that the entry names; empty when the entry was removed.
        process: Id of the sidekick's process, made anew at each start.
    """

    app: str
    group: str
    instance: str
    workload: str = ""
    process: str = ""


class WriteGuard(Document, frozen=True, kw_only=True):
    """``servers/{service}/{server}``: written with every change of the server's entry in the balancer.

    A change that was sent before the last write guard is refused, by its revision. Its owner alone may write, as long
    as that owner's process has a presence.

    Attributes:
        url: What the entry was last made to be; None: it was removed.
        owner: None when a sidekick wrote it that knew of no owners yet.
        prefix: All of the balancer's keys of this server lie below it; empty when unknown.
        shared: Key of a value in which this server is one of many; empty when it has keys of its own.
    """

    url: str | None
    owner: Owner | None = None
    prefix: str = ""
    shared: str = ""
