"""The events that a sidekick reports, with codes that CoreUpdate's and Nebraska's tables have names for.

Order of a good update: ``downloading`` 13:1, ``downloaded`` 14:1, ``waiting_for_turn`` 800:1, ``installed`` 3:1 (only
after the health check: Nebraska takes the first 3:1 as the end of the update), ``running`` 3:2 with the new version.
A bad one ends with ``failed`` 3:0 and a code.

Source: CoreUpdate update-protocol.md; go-omaha client/update_engine_events.go; update_engine action_processor.h.
"""

from collections.abc import Mapping
from enum import IntEnum, unique

from outrider.core.omaha.types import OmahaEvent

UPDATE = 3
DOWNLOADING = 13
DOWNLOADED = 14
HELD_BACK = 800
"""CoreOS' extension: installed, and the instance itself holds the completion back."""

ERROR = 0
SUCCESS = 1
SUCCESS_RUNNING = 2
"""``success reboot`` on the wire: what was installed is what runs now."""


@unique
class FailureCode(IntEnum):
    """update_engine's numbers, reused so that other servers show a name."""

    ERROR = 1
    """``kActionCodeError``: it failed, and there is no better name for how."""
    PROGRAM = 5
    """``kActionCodePostinstallRunnerError``: what was to install it has failed."""
    TRANSFER = 9
    HASH_MISMATCH = 10
    SIZE_MISMATCH = 11
    PAYLOAD_VERIFICATION = 12
    WRITE = 14
    UNSUPPORTED = 35
    """``kActionCodeOmahaUpdateIgnoredPerPolicy``: this machine can't run what was offered; the release isn't tried."""
    UNDECIDED = 36
    """``kActionCodeOmahaUpdateDeferredPerPolicy``: an analysis had too little to go by."""
    ROLLED_BACK = 44
    HTTP_RESPONSE = 2000
    """``kActionCodeOmahaRequestHTTPResponseBase``; what ``updatectl instance fake`` has always failed with."""


_FAILURES: Mapping[int, str] = {
    FailureCode.ERROR: "the update failed",
    FailureCode.PROGRAM: "the update program failed",
    FailureCode.TRANSFER: "download failed",
    FailureCode.HASH_MISMATCH: "wrong digest",
    FailureCode.SIZE_MISMATCH: "wrong size",
    FailureCode.PAYLOAD_VERIFICATION: "payload verification failed",
    FailureCode.WRITE: "could not write the payload to disk",
    FailureCode.UNSUPPORTED: "this machine can't run the release",
    FailureCode.UNDECIDED: "analysis undecided, rolled back",
    FailureCode.ROLLED_BACK: "rolled back",
    FailureCode.HTTP_RESPONSE: "the HTTP request failed",
}


LOCAL_CODES = frozenset({FailureCode.UNSUPPORTED, FailureCode.WRITE, FailureCode.TRANSFER})
"""What a machine's own trouble is reported as."""


def failure_text(code: int) -> str:
    """The failure that ``code`` stands for, with the number: ``rolled back (error code 44)``.

    A code that isn't one of ``FailureCode`` is another client's: then only its number is known.
    """
    known = _FAILURES.get(code)
    return f"{known} (error code {code})" if known else f"error code {code}"


def downloading(*, previous_version: str = "", next_version: str = "") -> OmahaEvent:
    """13:1, the download has begun."""
    return _event(DOWNLOADING, SUCCESS, previous_version, next_version)


def downloaded(*, previous_version: str = "", next_version: str = "") -> OmahaEvent:
    """14:1, the payload is on disk and proved."""
    return _event(DOWNLOADED, SUCCESS, previous_version, next_version)


def waiting_for_turn(*, previous_version: str = "", next_version: str = "") -> OmahaEvent:
    """800:1, ready to swap and waiting for a turn."""
    return _event(HELD_BACK, SUCCESS, previous_version, next_version)


def installed(*, previous_version: str = "", next_version: str = "") -> OmahaEvent:
    """3:1, swapped and healthy."""
    return _event(UPDATE, SUCCESS, previous_version, next_version)


def running(*, previous_version: str = "") -> OmahaEvent:
    """3:2, the version named in the request is the one that runs; also part of every check."""
    return _event(UPDATE, SUCCESS_RUNNING, previous_version, "")


def failed(code: FailureCode, *, previous_version: str = "", next_version: str = "") -> OmahaEvent:
    """3:0, the update to ``next_version`` has failed for good."""
    return OmahaEvent(
        type=UPDATE,
        result=ERROR,
        error_code=int(code),
        previous_version=previous_version,
        next_version=next_version,
    )


def is_local_refusal(event: OmahaEvent) -> bool:
    """Tell whether the instance's own machine was in the way: no verdict on the release.

    It can't run what was offered, can't store it, or doesn't get it over its network.
    """
    return (event.type, event.result) == (UPDATE, ERROR) and event.error_code in LOCAL_CODES


def is_progress(event: OmahaEvent) -> bool:
    """Tell whether the event is only a step on the way: losing it loses no outcome."""
    return event.type in (DOWNLOADING, DOWNLOADED, HELD_BACK)


def _event(event_type: int, result: int, previous_version: str, next_version: str) -> OmahaEvent:
    return OmahaEvent(type=event_type, result=result, previous_version=previous_version, next_version=next_version)
