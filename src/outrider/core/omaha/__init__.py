"""Omaha v3, both directions: bytes in, checked type out, and back.

Rules: nothing is fetched, a DTD or an entity is refused, sizes and counts are bounded, unknown elements and
attributes are tolerated, and every refusal is an ``OmahaError`` of one line.

Source: google/omaha doc/ServerProtocolV3.md; flatcar/go-omaha; flatcar/nebraska; captures in tests/data/captures/.
"""

from outrider.core.omaha.events import (
    LOCAL_CODES,
    FailureCode,
    downloaded,
    downloading,
    failed,
    failure_text,
    installed,
    is_local_refusal,
    is_progress,
    running,
    waiting_for_turn,
)
from outrider.core.omaha.read import parse_request, parse_response
from outrider.core.omaha.types import (
    MAX_APPS,
    MAX_EVENTS,
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    PROTOCOL,
    AppAnswer,
    AppRequest,
    CheckError,
    NoUpdate,
    Offer,
    OfferedPackage,
    OmahaEvent,
    OmahaRequest,
    OmahaResponse,
    Report,
    Step,
    UpdateCheck,
    answer_app,
    app_key,
)
from outrider.core.omaha.write import render_request, render_response

__all__ = [
    "LOCAL_CODES",
    "MAX_APPS",
    "MAX_EVENTS",
    "MAX_REQUEST_BYTES",
    "MAX_RESPONSE_BYTES",
    "PROTOCOL",
    "AppAnswer",
    "AppRequest",
    "CheckError",
    "FailureCode",
    "NoUpdate",
    "Offer",
    "OfferedPackage",
    "OmahaEvent",
    "OmahaRequest",
    "OmahaResponse",
    "Report",
    "Step",
    "UpdateCheck",
    "answer_app",
    "app_key",
    "downloaded",
    "downloading",
    "failed",
    "failure_text",
    "installed",
    "is_local_refusal",
    "is_progress",
    "parse_request",
    "parse_response",
    "render_request",
    "render_response",
    "running",
    "waiting_for_turn",
]
