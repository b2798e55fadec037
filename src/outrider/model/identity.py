"""Documents about the identity of Omaha clients: their tokens, and check-ins that proved nothing."""

from datetime import datetime, timedelta

import msgspec

from outrider.model.documents import Document

FORGOTTEN = timedelta(days=1)
"""When an unproved check-in that was not repeated is no longer shown."""


class StoredToken(Document, frozen=True, kw_only=True):
    """``client-tokens/{app}/{id}``: a token of Omaha clients that have no sidekick.

    Attributes:
        instance: The only one that it is for; empty: any instance of the group.
        token_sha256: Of the whole token, 64 lower-case hex digits.
        token_end: Its last four characters, for a person who wonders which one it is.
        note: For people.
    """

    app: str
    id: str
    group: str
    instance: str = ""
    token_sha256: str
    token_end: str
    note: str = ""
    created: datetime

    def is_for(self, app: str, group: str, instance: str) -> bool:
        """Whether it proves a check-in of this instance."""
        return (self.app, self.group) == (app, group) and self.instance in ("", instance)


class UnprovedCheckin(msgspec.Struct, frozen=True, kw_only=True):
    """What was said in one instance's name without proof.

    Attributes:
        count: How many of them were noted; of a burst only the first one is.
        last: When the last one was.
    """

    instance: str
    address: str
    count: int = 1
    last: datetime


class UnprovedCheckins(Document, frozen=True, kw_only=True):
    """``apps/{app}/groups/{group}/unproved``: check-ins that changed nothing, because they were not proved.

    Attributes:
        at: When this was written last.
        told_at: When the activity log was told last.
        known: In the names of instances that were proved before, newest last; ``others``: in other names. The service
            bounds both, and how often they are written.
    """

    group: str
    at: datetime
    told_at: datetime
    known: tuple[UnprovedCheckin, ...] = ()
    others: tuple[UnprovedCheckin, ...] = ()

    def of(self, instance: str, now: datetime) -> UnprovedCheckin | None:
        """The one in an instance's name, while it is shown."""
        return next((one for one in self.shown(now) if one.instance == instance), None)

    def shown(self, now: datetime) -> tuple[UnprovedCheckin, ...]:
        """Those of the last day, newest first."""
        lately = (one for one in (*self.known, *self.others) if now - one.last < FORGOTTEN)
        return tuple(sorted(lately, key=lambda one: one.last, reverse=True))
