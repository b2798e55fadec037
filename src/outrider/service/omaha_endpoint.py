"""``POST /v1/update`` and ``/v1/update/``: Omaha v3, for our sidekicks and for every other client of the protocol.

Both spellings answer without a redirect, because Go's client turns a redirected POST into a GET. The content type isn't
looked at: update_engine, updatectl and go-omaha each send another one.
"""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from loguru import logger
from starlette.concurrency import run_in_threadpool

from outrider.core.errors import OmahaError, OutriderError
from outrider.core.omaha import MAX_REQUEST_BYTES, NoUpdate, Offer, OmahaResponse, parse_request, render_response
from outrider.service.checkins import Caller, Checkins
from outrider.service.context import base_url_of, context_of
from outrider.service.problems import RETRY_HEADERS

router = APIRouter(tags=["omaha"])


@router.post("/v1/update", response_class=Response, responses={200: {"content": {"text/xml": {}}}})
@router.post("/v1/update/", response_class=Response, include_in_schema=False)
async def update(request: Request) -> Response:
    """Answer an Omaha v3 request: 200 with XML, 400 when it isn't one, 413 when too large, 503 when etcd is away."""
    body = await _read(request)
    if body is None:
        return _line(413, f"omaha request: more than {MAX_REQUEST_BYTES} bytes")
    caller = Caller(address=request.client.host if request.client else "", base_url=base_url_of(request))
    return await run_in_threadpool(_answer, context_of(request).checkins, body, caller)


async def _read(request: Request) -> bytes | None:
    """The body, or None as soon as it is known to be too large; no more than that is ever held."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > MAX_REQUEST_BYTES:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_BYTES:
            return None
    return bytes(body)


def _answer(checkins: Checkins, body: bytes, caller: Caller) -> Response:
    try:
        request = parse_request(body)
    except OmahaError as error:
        logger.bind(address=caller.address, cause=str(error)).warning("omaha request refused")
        return _line(400, str(error))
    try:
        response = checkins.answer(request, caller)
    except OutriderError as error:
        logger.bind(address=caller.address, error_kind=error.kind, cause=str(error)).error("omaha request not answered")
        return _line(503, f"{error.kind}: {error}", RETRY_HEADERS)
    _log(response, caller)
    # Without a charset, letter by letter as Nebraska sends it: clients compare it.
    return Response(render_response(response), headers={"Content-Type": "text/xml"})


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
