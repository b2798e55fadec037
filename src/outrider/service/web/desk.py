"""What all requests of the page need: who asks, the copy of etcd, the form, and the templates."""

import hmac
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from outrider import __version__
from outrider.core.errors import ConfigError, OutriderError
from outrider.service.api.auth import AccessRules, request_id_of
from outrider.service.context import Context
from outrider.service.history.over_time import Past
from outrider.service.operations.readiness import Readiness
from outrider.service.store.request import Principal, RequestContext
from outrider.service.web.all import PAGES
from outrider.service.web.doors import COOKIE, SECURE_COOKIE, Doors, Visitor, check_origin, cookie_of, is_secure
from outrider.service.web.live import Live
from outrider.service.web.reading import Copy, Reading
from outrider.service.web.rendering import Templates
from outrider.service.web.site import Page, Visit

MAX_FORM_BYTES = 256 * 1024
MAX_FIELDS = 400
NOTE_COOKIE = "outrider_note"
"""What the last action has to say, on its way to the next page."""
NOTE_S = 30
SCRIPT = "x-outrider-script"
"""A header of our own scripts: they get JSON instead of a redirection."""


class Desk:
    """The parts of the page in one process."""

    def __init__(self, context: Context, rules: AccessRules, readiness: Readiness) -> None:
        self.context, self._readiness = context, readiness
        self.doors = Doors(context, rules)
        self.reading = Reading(context)
        self.past = Past(context.stores.context, lambda: self.reading.stale_s() == 0.0)
        self.templates = Templates()
        self.live = Live(self.reading, context.limits.max_live_pages)

    def visitor(self, request: Request) -> Visitor:
        return self.doors.visitor(request)

    def look(self, visitor: Visitor, names: Mapping[str, str], query: Mapping[str, str], copy: Copy) -> Visit:
        return Visit(
            visitor=visitor,
            names=names,
            query=query,
            context=copy.context,
            ours=self.context,
            past=self.past,
            problems=self.problems,
        )

    def problems(self) -> tuple[str, ...]:
        try:
            return self._readiness.problems()
        except OutriderError as error:
            return (str(error),)

    def written(self) -> int:
        model = self.context.read_model
        return 0 if model is None else model.written

    def asked(self, request: Request, principal: Principal) -> RequestContext:
        # the path of a link is a secret until it is used, and no news afterwards
        path = "/login/LINK" if request.url.path.startswith("/login/") else request.url.path
        return RequestContext(principal=principal, did=f"POST {path}", request_id=request_id_of(request.headers))

    async def form(self, request: Request) -> dict[str, str]:
        """The fields of a form that a page of ours sent.

        Raises:
            Forbidden: another page sent it.
            ConfigError: it is no form, or too large.
        """
        check_origin(request.headers, self.context.public_url)
        if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            raise ConfigError("send a form: application/x-www-form-urlencoded")
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_FORM_BYTES:
                raise ConfigError(f"this form has more than {MAX_FORM_BYTES} bytes")
        try:
            return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
        except ValueError as error:
            raise ConfigError(f"this form can't be read: {error}") from error

    def common(self, request: Request, visitor: Visitor | None, title: str) -> dict[str, Any]:
        return {
            "title": title,
            "visitor": visitor,
            "pages": [] if visitor is None else pages_in_nav(visitor),
            "path": request.url.path,
            "version": __version__,
            "notes": self.notes(request, visitor),
            "stale_s": self.reading.stale_s(),
            "now": self.context.stores.context.now(),
            "nav": "",
            "stream": "",
            "have": "",
        }

    def notes(self, request: Request, visitor: Visitor | None) -> list[str]:
        """What the last action has to say; the browser kept it, and only what we have signed counts."""
        mark, dot, text = request.cookies.get(NOTE_COOKIE, "").partition(".")
        if visitor is None or not dot or not hmac.compare_digest(mark.encode(), visitor.signed(text).encode()):
            return []
        return [str(note) for note in json.loads(unquote(text))]

    def done(self, request: Request, visitor: Visitor, back: str, title: str, notes: tuple[str, ...]) -> Response:
        """What a form gets that was carried out. ``back``: the path of the page that says the notes."""
        to = f"{back}?at={self.written()}"
        if SCRIPT in request.headers:
            return JSONResponse({"notes": list(notes), "title": title, "back": to})
        response = RedirectResponse(to, status_code=303)
        text = quote(json.dumps(notes)[:3000])
        response.set_cookie(
            NOTE_COOKIE,
            f"{visitor.signed(text)}.{text}",
            max_age=NOTE_S,
            httponly=True,
            samesite="strict",
            secure=is_secure(request),
        )
        return response

    def set_session(self, response: Response, request: Request, cookie: str) -> None:
        secure = is_secure(request)
        response.set_cookie(
            SECURE_COOKIE if secure else COOKIE, cookie, httponly=True, samesite="strict", secure=secure, path="/"
        )

    def with_cookies(self, response: Response, request: Request, visitor: Visitor) -> Response:
        if NOTE_COOKIE in request.cookies:
            response.delete_cookie(NOTE_COOKIE, httponly=True, secure=is_secure(request), samesite="strict")
        if not visitor.has_session and cookie_of(request) != visitor.cookie:
            self.set_session(response, request, visitor.cookie)
        return response


def pages_in_nav(visitor: Visitor) -> list[Page]:
    """Those that the visitor may look at."""
    return [page for page in PAGES if page.nav and visitor.may(*page.operation(visitor, {}, {}))]


def filled(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: names[found[1]], text)


def filled_path(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: quote(names[found[1]], safe=""), text)


def address(request: Request) -> str:
    return request.client.host if request.client else ""
