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
    Misdirected,
    NotFound,
    OmahaError,
    OutriderError,
    PreconditionFailed,
    Refused,
    Unauthorized,
)
from outrider.etcd.seam import ReadOnly

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 10
"""For an etcd that is away: an election takes about a second, a restart a few."""
RETRY_HEADERS = {"Retry-After": str(RETRY_AFTER_S), "X-Retry-After": str(RETRY_AFTER_S)}

_STATUS: tuple[tuple[type[OutriderError], int], ...] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (PreconditionFailed, 412),
    (Misdirected, 421),
    (ConfigError, 400),
    (OmahaError, 400),
    (ReadOnly, 503),
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
    412: "Precondition failed",
    413: "Too large",
    421: "Misdirected request",
    429: "Too many requests",
    422: "Wrong shape",
}


class Problem(BaseModel):
    """A problem, described for a person (``detail``) and for a program (``kind``)."""

    title: str = Field(description="The same for every problem of this kind.")
    status: int
    detail: str = Field(description="One line: what, where, and what to do.")
    kind: str = Field(description="A short stable word.", examples=["not-found", "conflict", "config", "unknown"])


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": title, "content": {MEDIA_TYPE: {}}}
    for status, title in (
        (400, "The request contains an invalid value"),
        (401, "No token, or an invalid or revoked one"),
        (403, "The user's role does not allow it"),
        (404, "There is no such resource"),
        (409, "The request contradicts the stored state"),
        (412, "The resource does not match the `ETag` in `If-Match`"),
        (413, "The request is larger than the service takes"),
        (421, "The name in `Host` is not this service's"),
        (422, "The request does not have the shape that this document describes"),
        (429, "This address asks too often"),
        (502, "A stored file is damaged, or etcd refused"),
        (503, "etcd does not answer; try again"),
    )
}


def status_of(error: OutriderError) -> int:
    """The HTTP status for an error."""
    return next(status for kind, status in _STATUS if isinstance(error, kind))


def problem(status: int, kind: str, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """One problem as a response."""
    title = _TITLES.get(status, "Failed")
    content = {"title": title, "status": status, "detail": " ".join(detail.split()), "kind": kind}
    return JSONResponse(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def problem_of(error: OutriderError, where: str) -> JSONResponse:
    """Answer one of our errors; a status of 500 or more is also logged, with the path ``where``."""
    status = status_of(error)
    if status >= 500:
        logger.bind(path=where, error_kind=error.kind, cause=str(error)).error("request failed")
    return problem(status, error.kind, str(error), RETRY_HEADERS if error.retry else None)


def _allowed(request: Request) -> list[str]:
    """All methods of the request's path: the router names only those of the first endpoint there."""
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


def install(application: FastAPI) -> None:
    """Answer each of our errors, and each request of the wrong shape, with a problem."""

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
