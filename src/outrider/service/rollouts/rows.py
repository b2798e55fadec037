"""The stored row of an instance: how a check-in, an event and a verdict change it. Pure.

The statuses have the names that CoreUpdate and Nebraska use.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import assert_never

import msgspec

from outrider.core.omaha import AppRequest, OmahaEvent, failure_text, is_local_refusal
from outrider.core.rollout.policy import Defer, Grant, Verdict
from outrider.core.versions import NOTHING
from outrider.model.documents import Happening, Instance

MAX_HISTORY = 50
MAX_WORD = 128
"""Characters that are kept of a client's words about itself; the endpoint needs no token."""

NOISE = frozenset({"1:0"})
"""updatectl's ``watch`` sends it with every poll; it has no meaning."""
RUNNING = "3:2"
STATUS = {
    "13:1": "downloading",
    "14:1": "downloaded",
    "800:1": "installed",
    "3:1": "complete",
    RUNNING: "complete",
    "3:0": "error",
}
REBOOTS = STATUS | {"3:1": "installed"}
"""Of a client that has only written the update when it says 3:1, and runs it after the next boot."""
AT_IT = frozenset({"update-granted", "downloading", "downloaded", "installed"})
UNDER_WAY = AT_IT | {"on-hold"}


def described(row: Instance, app: AppRequest, *, arch: str, group: str, address: str) -> Instance:
    """The row with the client's description of itself; an empty word never overwrites an earlier one."""
    return msgspec.structs.replace(
        row,
        group=group,
        version=word(app.version) or row.version,
        release=app.release.label if app.release is not None else "" if app.version else row.release,
        alias=word(app.alias) or row.alias,
        oem=word(app.oem) or row.oem,
        arch=arch or row.arch,
        address=address or row.address,
    )


def never_ran(row: Instance, running: str) -> bool:
    """It runs nothing, and by its row it never ran or tried anything: its first update takes nothing out of service."""
    return running == NOTHING and not any(
        line.version not in ("", NOTHING) or line.event in ("3:0", "3:1") for line in row.history
    )


def with_event(
    row: Instance,
    event: OmahaEvent,
    line: Happening,
    ran_before: str,
    most: int = MAX_HISTORY,
    status_of: Mapping[str, str] = STATUS,
) -> Instance:
    """The row after an event; ``line`` is the event as the history keeps it. A repeat changes nothing.

    Args:
        ran_before: What it ran by the row before this check-in.
        most: How many events are kept.
        status_of: What the events of this client mean: ``STATUS`` or ``REBOOTS``.
    """
    if event.code in NOISE or _is_repeat(row.history, line):
        return row
    row = msgspec.structs.replace(row, history=(*row.history, line)[-most:])
    status = status_of.get(event.code)
    if status is None or (event.code == RUNNING and not _arrived(row, row.release or line.version, ran_before)):
        return row
    if row.granted_version is not None and not _is_of(row, event):
        # A late event of an earlier update: it is recorded, but does not change the status.
        return row
    over = status in ("complete", "error")
    refused = row.granted or event.next_release or "the update"
    return msgspec.structs.replace(
        row,
        why=f"its machine cannot take {refused}: {failure_text(event.error_code)}; `outrider why` has the reason"
        if is_local_refusal(event)
        else row.why,
        status=status,
        granted_version=None if over else row.granted_version,
        granted_release="" if over else row.granted_release,
        granted_at=None if over else row.granted_at,
        error_code=event.error_code if status == "error" else 0,
    )


def _is_of(row: Instance, event: OmahaEvent) -> bool:
    """The event is of the granted update, as far as it says."""
    granted = row.granted_version if event.release is None else row.granted
    return event.next_release in ("", granted)


def _arrived(row: Instance, runs: str, ran_before: str) -> bool:
    """Every check-in reports 3:2 for the running release: it ends an update only for another one than before."""
    granted = row.granted if row.release else row.granted_version
    return row.status in ("undefined", "complete") or runs == granted or runs != ran_before


def _is_repeat(history: tuple[Happening, ...], line: Happening) -> bool:
    """A repeated report has the same request id; old clients send none, so two equal lines in a row count as one."""
    newest = history[-1] if history else None
    if newest is not None and _facts(newest) == _facts(line) and (line.event == RUNNING or not line.request_id):
        return True
    if not line.request_id:
        return False
    return any(known.request_id == line.request_id and _facts(known) == _facts(line) for known in history)


def _facts(line: Happening) -> tuple[str, str, str, int]:
    return line.event, line.version, line.release, line.error_code


def with_verdict(row: Instance, verdict: Verdict, now: datetime) -> Instance:
    """The row after the verdict on its update check."""
    replace = msgspec.structs.replace
    row = replace(row, why=_worth_showing(verdict))
    match verdict:
        case Grant(version=version, standing=True) if row.status in AT_IT and row.granted == version:
            return row
        case Grant(version=version, package=package, standing=standing):
            at = row.granted_at if standing and row.granted_at is not None else now
            return replace(
                row,
                status="update-granted",
                granted_version=verdict.package_version,
                granted_release=version if package else "",
                granted_at=at,
            )
        # No package is for its machine: it waits in no queue, but it isn't up to date either.
        case Defer(pending=True) | Defer(by="architecture"):
            # An error stays visible: it is the most frequent reason for a deferral.
            status = row.status if row.status == "error" else "on-hold"
            return replace(row, status=status, granted_version=None, granted_release="", granted_at=None)
        case Defer():
            # A client that never reports 3:2 finishes here: it checks in with the granted version.
            if row.status in UNDER_WAY:
                return replace(row, status="complete", granted_version=None, granted_release="", granted_at=None)
            return row
        case _:
            assert_never(verdict)


def _worth_showing(verdict: Verdict) -> str:
    if isinstance(verdict, Grant):
        return verdict.note
    return verdict.reason if verdict.by != "current" else ""


def word(text: str) -> str:
    """A client's word, shortened, without characters that can't be printed."""
    return "".join(letter for letter in text[:MAX_WORD] if letter.isprintable())
