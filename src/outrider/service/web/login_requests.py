"""Requests that begin and end sessions."""

import re
from collections.abc import Mapping
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from outrider.core.errors import Forbidden, Unauthorized
from outrider.service.store.request import Principal
from outrider.service.store.sessions import unused_link
from outrider.service.web.desk import Desk, address
from outrider.service.web.doors import COOKIE, SECURE_COOKIE, check_csrf, is_secure

_OWN_PATH = re.compile(r"/(?![/\\])[\x21-\x7e]{0,500}")


class LoginRequests:
    """Answers requests that begin and end sessions."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def login(self, request: Request) -> Response:
        form = await self._desk.form(request) if request.method == "POST" else {}
        return await run_in_threadpool(self._log_in, request, form)

    def _log_in(self, request: Request, form: Mapping[str, str]) -> Response:
        self._desk.doors.check_host(request)
        to = _own_path(form.get("to") or request.query_params.get("to", ""))
        if request.method == "GET":
            return self.login_page(request, to, "", 200)
        try:
            user = self._desk.doors.user_of_token(form.get("token", ""))
        except (Unauthorized, Forbidden) as error:
            return self.login_page(request, to, str(error), 401)
        asked = self._desk.asked(request, Principal(name=user.name, role=user.role, address=address(request)))
        begun = self._desk.context.stores.on_behalf_of(asked).sessions.begin(user, for_s=self._desk.doors.session_s)
        return self._let_in(request, begun.cookie, to)

    async def link(self, request: Request) -> Response:
        form = await self._desk.form(request) if request.method == "POST" else {}
        return await run_in_threadpool(self._follow_link, request, form)

    def _follow_link(self, request: Request, form: Mapping[str, str]) -> Response:
        """A link is used up by a button, not by looking at it: what previews links must not."""
        self._desk.doors.check_host(request)
        secret = request.path_params["link"]
        try:
            link = unused_link(self._desk.context.stores.context, secret)
            principal = self._desk.doors.principal_of(link.user, link.token_sha256, address(request))
            if request.method == "POST":
                asked = self._desk.asked(request, principal)
                begun = self._desk.context.stores.on_behalf_of(asked).sessions.redeem(
                    secret, for_s=self._desk.doors.session_s
                )
                return self._let_in(request, begun.cookie, "/")
        except Unauthorized as error:
            return self.login_page(request, "/", str(error), 401)
        return self.login_page(request, "/", "", 200, link=link.user)

    def _let_in(self, request: Request, cookie: str, to: str) -> Response:
        response = RedirectResponse(to, status_code=303)
        self._desk.set_session(response, request, cookie)
        return response

    async def logout(self, request: Request) -> Response:
        form = await self._desk.form(request)
        return await run_in_threadpool(self._log_out, request, form)

    def _log_out(self, request: Request, form: Mapping[str, str]) -> Response:
        visitor = self._desk.visitor(request)
        check_csrf(visitor, form.get("csrf", ""))
        if visitor.has_session:
            asked = self._desk.asked(request, visitor.principal)
            self._desk.context.stores.on_behalf_of(asked).sessions.end(visitor.cookie)
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(
            SECURE_COOKIE if is_secure(request) else COOKIE, path="/", secure=is_secure(request), httponly=True
        )
        return response

    def login_page(self, request: Request, to: str, problem: str, status: int, *, link: str = "") -> Response:
        html, _ = self._desk.templates.page(
            "login.html",
            {
                **self._desk.common(request, None, "Log in"),
                "to": to,
                "problem": problem,
                "link": link,
                "nav": "",
                "stream": "",
                "have": "",
            },
        )
        return HTMLResponse(html, status_code=status)


def _own_path(text: str) -> str:
    """A path of this service, so that nobody is led elsewhere after the login."""
    return text if _OWN_PATH.fullmatch(text) and not text.startswith(("/login", "/logout", "/live", "/static")) else "/"


def here(request: Request) -> str:
    if request.method != "GET":
        return "/"
    query = f"?{request.url.query}" if request.url.query else ""
    return _own_path(f"{quote(request.url.path)}{query}")
