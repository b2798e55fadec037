"""What happened, for people: one record each below ``activity/``, kept for a while (design, section 5).

Any process may write a record, and it is written once: its key is made from the etcd revision at which the thing
happened, and it is written only while that key is absent. So any number of processes may tell the same. What a process
that was killed halfway left out is written by the next one.
"""

from datetime import datetime
from typing import Literal

import msgspec

from outrider.model.documents import Document
from outrider.model.keys import Keys

Severity = Literal["success", "info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("success", "info", "warning", "error")
"""From the harmless to what a person must look at, as Nebraska ranks them."""

ACTIVITY_KEPT_S = 30 * 24 * 3600.0


class Activity(Document, frozen=True, kw_only=True):
    """One thing that happened.

    Attributes:
        kind: Short stable word for programs, ``channel-moved`` for example.
        app, group, instance, version: What it is about; empty where it is about none.
        text: For a person, one line.
        by: User or instance that caused it, if known.
        facts: What a program may want besides, by name.
    """

    at: datetime
    severity: Severity
    kind: str
    app: str
    group: str = ""
    instance: str = ""
    version: str = ""
    text: str
    by: str = ""
    facts: dict[str, str] = msgspec.field(default_factory=dict)


def activity_key(keys: Keys, activity: Activity, revision: int) -> str:
    """Where what happened at ``revision`` is told; keys of one app are in the order of what happened.

    One revision can hold several things (a transaction writes many keys): they differ in kind, or in what they are
    about.
    """
    about = ".".join(word for word in (activity.group, activity.instance, activity.version) if word)
    return f"{keys.activity(activity.app)}{revision:016x}-{activity.kind}" + (f"-{about}" if about else "")
