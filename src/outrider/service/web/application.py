"""The page as an ASGI application, in front of the API: dispatch, headers, errors.

Every answer has the same strict Content-Security-Policy: scripts and styles are files of ours, nothing is inline, and
nothing comes from elsewhere.
"""

from collections.abc import Mapping

from loguru import logger
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outrider.core.errors import OutriderError, Unauthorized
from outrider.service.api.auth import AccessRules
from outrider.service.context import Context
from outrider.service.operations.readiness import Readiness
from outrider.service.problems import RETRY_HEADERS, status_of
from outrider.service.web.action_requests import ActionRequests
from outrider.service.web.all import ACTIONS, DRAWINGS, PAGES
from outrider.service.web.desk import SCRIPT, Desk
from outrider.service.web.doors import Visitor, cookie_of
from outrider.service.web.live import Live
from outrider.service.web.login_requests import LoginRequests, here
from outrider.service.web.page_requests import PageRequests
from outrider.service.web.pages.packages import PATH
from outrider.service.web.paths import is_page
from outrider.service.web.rendering import STATIC
from outrider.service.web.upload_requests import UploadRequests

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # not no-referrer: with it a browser says that our own forms come from nowhere
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
HSTS = "max-age=31536000"
_MEDIA = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "txt": "text/plain"}


class Pages:
    """ASGI middleware: gives the page what is the page's."""

    def __init__(self, application: ASGIApp, web: ASGIApp) -> None:
        self._application, self._web = application, web

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_page(scope["path"]):
            await self._web(scope, receive, send)
        else:
            await self._application(scope, receive, send)


class Web:
    """The application."""

    def __init__(self, context: Context, rules: AccessRules, readiness: Readiness) -> None:
        self._desk = desk = Desk(context, rules, readiness)
        self._logins = logins = LoginRequests(desk)
        pages, actions = PageRequests(desk), ActionRequests(desk)
        routes = [
            Route("/login", logins.login, methods=["GET", "POST"]),
            Route("/login/oidc", logins.begin_at_provider, methods=["GET"]),
            Route("/login/oidc/callback", logins.come_back, methods=["GET"]),
            Route("/login/{link}", logins.link, methods=["GET", "POST"]),
            Route("/logout", logins.logout, methods=["POST"]),
            Route("/static/{name}", _static, methods=["GET"]),
        ]
        for page in PAGES:
            routes.append(Route(page.path, pages.of_page(page), methods=["GET"]))
            if page.is_live:
                routes.append(Route(f"/live{page.path}", pages.of_stream(page), methods=["GET"]))
        routes.append(Route(f"{PATH}/upload", UploadRequests(desk).upload, methods=["POST"]))
        routes += [Route(one.path, pages.of_drawing(one), methods=["GET"]) for one in DRAWINGS]
        for action in ACTIONS:
            routes.append(Route(action.path, actions.of_action(action), methods=["GET", "POST"]))
            if action.lint is not None:
                routes.append(Route(f"{action.path}/lint", actions.of_lint(action), methods=["POST"]))
        self._application = Starlette(
            routes=routes, exception_handlers={OutriderError: self._of_error, HTTPException: self._of_http}
        )
        self._application.router.redirect_slashes = False
        self._application.state.context = context

    @property
    def live(self) -> Live:
        """The streams."""
        return self._desk.live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        secure = scope.get("scheme") == "https"

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if secure:
                    headers["Strict-Transport-Security"] = HSTS
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._application(scope, receive, with_headers)

    async def _of_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, OutriderError)
        status = status_of(error)
        if status >= 500:
            logger.bind(path=request.url.path, error_kind=error.kind, cause=str(error)).error("page failed")
        if SCRIPT in request.headers or request.url.path.startswith("/live/"):
            return JSONResponse({"problem": str(error)}, status_code=status)
        if isinstance(error, Unauthorized):
            return await run_in_threadpool(self._at_the_door, request, str(error))
        headers = RETRY_HEADERS if error.retry else {}
        return await run_in_threadpool(self._error_page, request, status, str(error), headers)

    def _at_the_door(self, request: Request, why: str) -> Response:
        if _came_from_elsewhere(request):
            html, _ = self._desk.templates.page("again.html", {"to": here(request)})
            return HTMLResponse(html)
        is_news = bool(cookie_of(request)) or not self._desk.context.known_users.ever_existed
        return self._logins.login_page(request, here(request), why if is_news else "", 401)

    async def _of_http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        what = {404: "there is no such page", 405: f"{request.method} isn't possible here"}
        words = what.get(error.status_code, error.detail)
        return await run_in_threadpool(self._error_page, request, error.status_code, words, error.headers or {})

    def _error_page(self, request: Request, status: int, words: str, headers: Mapping[str, str]) -> Response:
        try:
            visitor: Visitor | None = self._desk.visitor(request)
        except OutriderError:
            visitor = None
        facts = {**self._desk.common(request, visitor, "Problem"), "words": words, "status": status}
        html, _ = self._desk.templates.page("error.html", facts)
        return HTMLResponse(html, status_code=status, headers=dict(headers))


async def _static(request: Request) -> Response:
    path = STATIC / request.path_params["name"]
    media = _MEDIA.get(path.suffix.removeprefix("."))
    if media is None or path.parent != STATIC or not path.is_file():
        raise HTTPException(404)
    content = await run_in_threadpool(path.read_bytes)
    # an address with a digest of the content has this content forever
    kept = "public, max-age=31536000, immutable" if "v" in request.query_params else "no-cache"
    return Response(content, media_type=media, headers={"Cache-Control": kept})


def _came_from_elsewhere(request: Request) -> bool:
    """A browser that follows a link of another site leaves our cookie out; it has it when our own page leads on."""
    headers = request.headers
    return (
        request.method == "GET"
        and headers.get("sec-fetch-site") == "cross-site"
        and headers.get("sec-fetch-mode") == "navigate"
    )
