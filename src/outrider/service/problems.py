"""Errors on the wire: ``application/problem+json`` (RFC 9457) with our stable ``kind``, and never a traceback."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from loguru import logger
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from outrider.core.errors import (
    ConfigError,
    Conflict,
    DriverError,
    Forbidden,
    NotFound,
    OmahaError,
    OutriderError,
    PreconditionFailed,
    Refused,
    Unauthorized,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 10
"""When etcd is away: an election takes about a second, a restart a few."""
RETRY_HEADERS = {"Retry-After": str(RETRY_AFTER_S), "X-Retry-After": str(RETRY_AFTER_S)}

_STATUS: tuple[tuple[type[OutriderError], int], ...] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (PreconditionFailed, 412),
    (ConfigError, 400),
    (OmahaError, 400),
    (Refused, 502),
    (DriverError, 503),
    (OutriderError, 500),
)


_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    412: "Changed meanwhile",
    422: "Wrong shape",
}


class Problem(BaseModel):
    """What went wrong, for a person (``detail``) and for a program (``kind``)."""

    title: str = Field(description="The same for every problem of this kind.")
    status: int
    detail: str = Field(description="One line: what, which, and what to do.")
    kind: str = Field(description="Short stable word.", examples=["not-found", "conflict", "config", "unknown"])


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": title, "content": {MEDIA_TYPE: {}}}
    for status, title in (
        (400, "The request says something that can't be used"),
        (401, "No token, or one that nobody has"),
        (403, "The user's role doesn't allow it"),
        (404, "There is no such thing"),
        (409, "Contradicts what is stored"),
        (412, "The document isn't what `If-Match` says it is"),
        (422, "The request has not the shape that this document describes"),
        (502, "A stored file is damaged, or etcd refuses"),
        (503, "etcd doesn't answer; try again"),
    )
}


def status_of(error: OutriderError) -> int:
    """The HTTP status that says whose fault it is."""
    return next(status for kind, status in _STATUS if isinstance(error, kind))


def problem(status: int, kind: str, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """One problem as a response."""
    title = _TITLES.get(status, "Failed")
    content = {"title": title, "status": status, "detail": " ".join(detail.split()), "kind": kind}
    return JSONResponse(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def problem_of(error: OutriderError, where: str) -> JSONResponse:
    """Answer an error of ours; what is the world's fault is logged with ``where`` it happened."""
    status = status_of(error)
    if status >= 500:
        logger.bind(path=where, error_kind=error.kind, cause=str(error)).error("request failed")
    return problem(status, error.kind, str(error), RETRY_HEADERS if error.retry else None)


def _allowed(request: Request) -> list[str]:
    """What may be done at the request's path: the router names the methods of its first endpoint there alone."""
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


def install(application: FastAPI) -> None:
    """Answer every error of ours, and every misshapen request, with a problem."""

    @application.exception_handler(OutriderError)
    async def of_ours(request: Request, error: OutriderError) -> JSONResponse:
        return problem_of(error, request.url.path)

    @application.exception_handler(RequestValidationError)
    async def of_shape(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem(422, "config", f"{where}: {first['msg']}")

    @application.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        kind = "not-found" if error.status_code == 404 else "usage"
        headers = dict(error.headers or {})
        if error.status_code == 405 and request.method not in (allowed := _allowed(request)):
            headers["Allow"] = ", ".join(allowed)
        return problem(error.status_code, kind, f"{request.method} {request.url.path}: {error.detail}", headers)
