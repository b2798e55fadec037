"""Requests that begin and end sessions."""

import re
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import quote, unquote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from outrider.core.errors import Forbidden, NotFound, Unauthorized, Unknown
from outrider.oidc.flows import Attempt, authorization_url, token_of_code
from outrider.oidc.tokens import Identity, Tokens
from outrider.service.store.request import Principal
from outrider.service.store.sessions import unused_link
from outrider.service.web.desk import Desk, address
from outrider.service.web.doors import COOKIE, SECURE_COOKIE, check_csrf, is_secure

ATTEMPT_COOKIE = "outrider_login"
SECURE_ATTEMPT_COOKIE = "__Host-outrider_login"
ATTEMPT_S = 600
"""For a login at the identity provider."""
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

    async def begin_at_provider(self, request: Request) -> Response:
        return await run_in_threadpool(self._begin_at_provider, request)

    def _begin_at_provider(self, request: Request) -> Response:
        """Send the browser to the identity provider, with a cookie by which it is known when it comes back."""
        self._desk.doors.check_host(request)
        tokens, redirect_uri = self._provider()
        attempt, to = Attempt(), _own_path(request.query_params.get("to", ""))
        url = authorization_url(
            tokens.provider.metadata(),
            attempt,
            client_id=tokens.settings.client_id,
            redirect_uri=redirect_uri,
            scopes=tokens.settings.scopes,
        )
        response = RedirectResponse(url, status_code=303)
        secure = is_secure(request)
        response.set_cookie(
            SECURE_ATTEMPT_COOKIE if secure else ATTEMPT_COOKIE,
            f"{attempt.secret}.{quote(to, safe='')}",
            max_age=ATTEMPT_S,
            httponly=True,
            samesite="lax",  # the browser comes back from another site, and must have it
            secure=secure,
            path="/",
        )
        return response

    async def come_back(self, request: Request) -> Response:
        return await run_in_threadpool(self._come_back, request)

    def _come_back(self, request: Request) -> Response:
        """Let a browser in that comes back from the identity provider, or say at the login why not."""
        self._desk.doors.check_host(request)
        tokens, redirect_uri = self._provider()
        secret, _, to = request.cookies.get(
            SECURE_ATTEMPT_COOKIE if is_secure(request) else ATTEMPT_COOKIE, ""
        ).partition(".")
        to = _own_path(unquote(to))
        try:
            identity = self._identity(request, tokens, redirect_uri, secret)
            tokens.granted(identity)
        except (Unauthorized, Forbidden, Unknown) as error:
            status = 503 if isinstance(error, Unknown) else 403 if isinstance(error, Forbidden) else 401
            return self._attempt_over(self.login_page(request, to, str(error), status), request)
        principal = Principal(name=identity.name, role=tokens.granted(identity).role, address=address(request))
        asked = self._desk.asked(request, principal)
        begun = self._desk.context.stores.on_behalf_of(asked).sessions.begin_by_provider(
            identity.name,
            issuer=tokens.settings.issuer,
            values=identity.values,
            for_s=self._desk.doors.session_s,
            longest=timedelta(hours=tokens.settings.session_h),
        )
        return self._attempt_over(self._let_in(request, begun.cookie, to), request)

    def _identity(self, request: Request, tokens: Tokens, redirect_uri: str, secret: str) -> Identity:
        """Who comes back.

        Raises:
            Unauthorized: another browser began this login, it is over, or the provider said no.
            Unknown: the provider gives no answer.
        """
        query, settings = request.query_params, tokens.settings
        attempt = Attempt(secret)
        if not secret or not attempt.is_of(query.get("state", "")):
            raise Unauthorized("this login was begun by another browser, or is over; begin it anew")
        if query.get("iss", settings.issuer) != settings.issuer:  # RFC 9207
            raise Unauthorized("this answer is of another identity provider")
        if "error" in query:
            raise Unauthorized(f"the identity provider refuses this login: {query['error'][:100]}")
        token = token_of_code(
            tokens.provider.metadata(),
            attempt,
            query.get("code", ""),
            client_id=settings.client_id,
            client_secret=settings.client_secret(),
            redirect_uri=redirect_uri,
            verify=settings.verify,
        )
        return tokens.identity(token, audiences=(settings.client_id,), nonce=attempt.nonce)

    def _provider(self) -> tuple[Tokens, str]:
        """The provider's tokens, and where its browsers come back.

        Raises:
            NotFound: there is none, or the page has no address of its own.
        """
        context = self._desk.context
        if context.tokens is None or context.public_url is None:
            raise NotFound("no identity provider lets anybody in here (`outrider serve --oidc`, with --public-url)")
        return context.tokens, f"{context.public_url}/login/oidc/callback"

    def _provider_name(self) -> str:
        context = self._desk.context
        if context.tokens is None or context.public_url is None:
            return ""
        return urlsplit(context.tokens.settings.issuer).netloc

    def _attempt_over(self, response: Response, request: Request) -> Response:
        secure = is_secure(request)
        response.delete_cookie(
            SECURE_ATTEMPT_COOKIE if secure else ATTEMPT_COOKIE, path="/", secure=secure, httponly=True, samesite="lax"
        )
        return response

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
                "provider": self._provider_name(),
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
