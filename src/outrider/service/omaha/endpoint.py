"""``POST /v1/update`` and ``/v1/update/``: Omaha v3, for our sidekicks and for every other client of the protocol.

Both spellings answer without a redirect, because Go's client turns a redirected POST into a GET. The endpoint ignores
the content type: update_engine, updatectl and go-omaha each send another one. With a secret, both addresses go on with
it; a client's token may come last. Every other path below ``/v1/update`` answers 404.
"""

import hmac
import math
import re
from collections.abc import Callable
from dataclasses import replace

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from loguru import logger
from starlette.exceptions import HTTPException

from outrider.core.client_tokens import ClientToken, parse_token
from outrider.core.errors import ConfigError, OmahaError, OutriderError, Throttled
from outrider.core.omaha import (
    MAX_REQUEST_BYTES,
    NoUpdate,
    Offer,
    OmahaRequest,
    OmahaResponse,
    parse_request,
    render_response,
)
from outrider.service.admission import come_back_s, no_answer_in_time
from outrider.service.context import Context, base_url_of, context_of, is_wanted_by
from outrider.service.cup import PARAMETER
from outrider.service.http1 import Answer
from outrider.service.limits import option_of
from outrider.service.problems import RETRY_HEADERS
from outrider.service.rollouts.batches import TooBusy
from outrider.service.rollouts.checkins import Caller
from outrider.service.rollouts.identity import HEADER, read_claim
from outrider.service.rollouts.rows import MAX_WORD

router = APIRouter(tags=["omaha"])
_SECRET = re.compile(r"[A-Za-z0-9._~-]{8,200}")
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def checked_secret(secret: str | None) -> str | None:
    """Return the secret at the end of the Omaha address; None: no secret.

    Raises:
        ConfigError: it cannot be a part of an address, or is easy to guess.
    """
    if secret and not _SECRET.fullmatch(secret):
        raise ConfigError("omaha secret: use 8 to 200 letters, digits or . _ ~ -")
    return secret or None


@router.post(
    "/v1/update",
    response_class=Response,
    responses={
        200: {
            "description": "An Omaha v3 response with one `<app>` for each `<app>` of the request",
            "content": {"text/xml": {}},
        },
        400: {"description": "Not an Omaha v3 request; the reason, in one line", "content": {"text/plain": {}}},
        404: {"description": "The service has a secret, and the address does not end in it"},
        429: {"description": "Too often, or the group is full: `Retry-After`", "content": {"text/plain": {}}},
        413: {"description": f"More than {MAX_REQUEST_BYTES} bytes", "content": {"text/plain": {}}},
        503: {"description": "etcd is away, or the service is too busy: `Retry-After`", "content": {"text/plain": {}}},
    },
    openapi_extra={"requestBody": {"required": True, "content": {"text/xml": {"schema": {"type": "string"}}}}},
)
@router.post("/v1/update/", response_class=Response, include_in_schema=False)
async def update(request: Request) -> Response:
    """Answer an Omaha v3 request.

    With `--omaha-secret` the address is `/v1/update/SECRET`, and this address answers 404.
    """
    if context_of(request).omaha_secret is not None:
        raise HTTPException(404)
    return await _update(request)


@router.api_route("/v1/update", methods=_METHODS, include_in_schema=False)
@router.api_route("/v1/update/{secret:path}", methods=_METHODS, include_in_schema=False)
async def update_in_secret(request: Request, secret: str = "") -> Response:
    """As ``update``, below a secret, for a client with a token, or both: ``SECRET``, ``TOKEN``, ``SECRET/TOKEN``."""
    expected = context_of(request).omaha_secret
    if expected is None and not secret and request.method != "POST":
        raise HTTPException(405, headers={"Allow": "POST"})
    first, slash, rest = secret.removesuffix("/").partition("/")
    if expected is None:
        first, slash, rest = "", "/", f"{first}{slash}{rest}"
    token = parse_token(rest) if slash else None
    # The same answer, after the same time, for every fault.
    is_known = hmac.compare_digest(first.encode("utf-8", "surrogateescape"), (expected or "").encode())
    if not is_known or (slash and token is None) or request.method != "POST":
        raise HTTPException(404)
    return await _update(request, token)


async def _update(request: Request, token: ClientToken | None = None) -> Response:
    ours = context_of(request)
    admission = ours.admission
    caller = Caller(
        address=request.client.host if request.client else "",
        base_url=base_url_of(request),
        claim=read_claim(request.headers.get(HEADER, ""), token),
    )
    try:
        body = await _read(request)
        if body is None:
            return _line(413, f"omaha request: more than {MAX_REQUEST_BYTES} bytes")
        answer = await admission.run(
            lambda is_busy: _answer(ours, body, caller, is_wanted_by(request), is_busy=is_busy)
        )
    except Throttled as error:
        return _come_later(503, error)
    if ours.cup is not None and (given := request.query_params.get(PARAMETER)):
        answer.headers.update(ours.cup.headers(given, body, bytes(answer.body)))
    return answer


async def _read(request: Request) -> bytes | None:
    """The body, or None as soon as it is too large; no more than the limit is ever in memory."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MAX_REQUEST_BYTES:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_BYTES:
            return None
    return bytes(body)


def _answer(ours: Context, body: bytes, caller: Caller, is_wanted: Callable[[], bool], *, is_busy: bool) -> Response:
    try:
        request = parse_request(body)
        most = ours.limits.max_apps_per_request
        if len(request.apps) > most:
            raise OmahaError(f"omaha request: more than {most} <app> ({option_of('max_apps_per_request')})")
    except OmahaError as error:
        logger.bind(address=caller.address, cause=str(error)).warning("omaha request refused")
        return _line(400, str(error))
    try:
        count_checkins(ours, request, caller)
        response = ours.checkins.answer(request, caller, is_wanted)
    except Throttled as error:
        return _come_later(503 if isinstance(error, TooBusy) else 429, error)
    except OutriderError as error:
        if not is_wanted():
            return _line(503, "the client has gone")
        logger.bind(address=caller.address, error_kind=error.kind, cause=str(error)).error("omaha request not answered")
        return _line(503, f"{error.kind}: {error}", RETRY_HEADERS)
    _log(response, caller)
    # Without a charset, exactly as Nebraska sends it: clients compare it.
    headers = {"Content-Type": "text/xml"}
    if is_busy:
        response, later = _asking_to_come_later(response)
        headers |= later
    return Response(render_response(response), headers=headers)


def written(response: OmahaResponse, caller: Caller, *, is_busy: bool) -> Answer:
    """The answer of a check-in as it is sent."""
    _log(response, caller)
    lines = b"content-type: text/xml\r\n"
    if is_busy:
        response, later = _asking_to_come_later(response)
        lines += b"".join(f"{name.lower()}: {value}\r\n".encode() for name, value in later.items())
    return 200, lines, render_response(response)


def not_answered(error: OutriderError, caller: Caller) -> Answer:
    """What is said to a client whose check-in came to nothing."""
    if isinstance(error, Throttled):
        return _as_sent(_come_later(503 if isinstance(error, TooBusy) else 429, error))
    logger.bind(address=caller.address, error_kind=error.kind, cause=str(error)).error("omaha request not answered")
    return _as_sent(_line(503, f"{error.kind}: {error}", RETRY_HEADERS))


def late() -> Answer:
    """What is said when there is no answer in time."""
    return _as_sent(_come_later(503, no_answer_in_time()))


def _as_sent(response: Response) -> Answer:
    lines = (name + b": " + value + b"\r\n" for name, value in response.raw_headers if name != b"content-length")
    return response.status_code, b"".join(lines), bytes(response.body)


def count_checkins(ours: Context, request: OmahaRequest, caller: Caller) -> None:
    """Count the check-ins of each instance of the request: with each proof, and without one from each address.

    So nobody keeps an instance out by checking in under its name.

    Raises:
        Throttled: one of them checks in too often.
    """
    for app in request.apps:
        whose = caller.claim.digest[:32] or caller.address
        wait_s = ours.checkin_buckets.take(f"{whose}/{app.app_key}/{app.machine_id}"[:300])
        if wait_s:
            most = ours.limits.max_checkins_per_s
            raise Throttled(
                f"more than {most} check-ins per second of instance {app.machine_id[:MAX_WORD]}"
                f" ({option_of('max_checkins_per_s')})",
                retry_after_s=math.ceil(wait_s),
            )


def _come_later(status: int, error: Throttled) -> PlainTextResponse:
    seconds = str(max(1, int(error.retry_after_s)))
    return _line(status, str(error), {"Retry-After": seconds, "X-Retry-After": seconds})


def _asking_to_come_later(response: OmahaResponse) -> tuple[OmahaResponse, dict[str, str]]:
    """Tell polling clients when to come back: ``PollInterval`` for update_engine, the header for the others.

    A client that gets an update, or reports one, comes back by itself.
    """
    checks = [answer.update_check for answer in response.apps]
    if not all(isinstance(check, NoUpdate) for check in checks):
        return response, {}
    seconds = come_back_s()
    apps = tuple(
        replace(answer, update_check=replace(answer.update_check, poll_interval_s=seconds))
        if isinstance(answer.update_check, NoUpdate) and answer.update_check.poll_interval_s is None
        else answer
        for answer in response.apps
    )
    return replace(response, apps=apps), {"X-Retry-After": str(seconds)}


def _log(response: OmahaResponse, caller: Caller) -> None:
    for answer in response.apps:
        match answer.update_check:
            case Offer(version=version):
                logger.bind(app=answer.app_id, address=caller.address, version=version).info("update granted")
            case NoUpdate(reason=reason):
                logger.bind(app=answer.app_id, address=caller.address, why=reason).debug("no update")
            case _:
                logger.bind(app=answer.app_id, address=caller.address, events=answer.events).debug("events booked")


def _line(status: int, text: str, headers: dict[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(" ".join(text.split()) + "\n", status_code=status, headers=headers)
