"""Requests for pages, and for what has changed on them."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from urllib.parse import quote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from outrider.core.errors import Forbidden, Unauthorized
from outrider.service.web.desk import Desk, filled
from outrider.service.web.doors import Visitor
from outrider.service.web.live import Have, new_name
from outrider.service.web.rendering import Fragments
from outrider.service.web.site import Drawing, Page, Visit


class PageRequests:
    """Answers requests for pages and their streams."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def of_page(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await run_in_threadpool(self._page, page, request)

        return answer

    def _page(self, page: Page, request: Request) -> Response:
        visitor = self._desk.visitor(request)
        visit = self._visit(page, request, visitor)
        facts = page.view(visit)
        at_least = request.query_params.get("at", "")
        own_query = [(name, value) for name, value in request.query_params.multi_items() if name != "at"]
        stream = f"/live{quote(request.url.path)}" + (f"?{urlencode(own_query)}" if own_query else "")
        have = new_name() if page.is_live else ""
        html, fragments = self._desk.templates.page(
            page.template,
            {
                **self._desk.common(request, visitor, filled(page.title, visit.labels)),
                **facts,
                "nav": page.nav,
                "stream": stream if page.is_live else "",
                "have": have,
                "now": visit.now,
            },
        )
        if page.is_live:
            self._desk.live.remember(Have.of(fragments), have)
        response = HTMLResponse(html)
        if at_least:
            response.headers["X-Outrider-At"] = at_least
        return self._desk.with_cookies(response, request, visitor)

    def _visit(self, page: Page | Drawing, request: Request, visitor: Visitor) -> Visit:
        names, query = dict(request.path_params), dict(request.query_params)
        if isinstance(page, Page):
            visitor.check(*page.operation(visitor, names, query))
        else:
            visitor.check("GET", filled(page.reads.partition(" ")[2], names))
        at_least = request.query_params.get("at", "")
        copy = self._desk.reading.copy(at_least=int(at_least) if at_least.isdecimal() and len(at_least) < 19 else 0)
        return self._desk.look(visitor, names, query, copy)

    def of_drawing(self, drawing: Drawing) -> Callable[[Request], Awaitable[Response]]:
        def draw(request: Request) -> Response:
            visitor = self._desk.visitor(request)
            drawn = drawing.draw(self._visit(drawing, request, visitor))
            return Response(drawn, media_type="image/svg+xml", headers={"Cache-Control": "private, max-age=60"})

        async def answer(request: Request) -> Response:
            return await run_in_threadpool(draw, request)

        return answer

    def of_stream(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            visitor = await run_in_threadpool(self._desk.visitor, request)
            await run_in_threadpool(self._visit, page, request, visitor)
            principal, had = visitor.principal, request.query_params.get("have", "")
            query = {name: value for name, value in request.query_params.items() if name != "have"}
            key = (
                page.path,
                *sorted(request.path_params.items()),
                *sorted(query.items()),
                principal.role,
                principal.apps,
            )

            def make() -> tuple[Fragments, int, datetime]:
                copy = self._desk.reading.copy()
                visit = self._desk.look(visitor, dict(request.path_params), query, copy)
                facts = {**page.view(visit), "now": visit.now}
                return self._desk.templates.fragments(page.template, facts), copy.revision, visit.now

            async def made() -> tuple[Fragments, int, datetime]:
                return await run_in_threadpool(make)

            async def still() -> bool:
                try:
                    now = await run_in_threadpool(self._desk.visitor, request)
                except (Unauthorized, Forbidden):
                    return False
                return now.principal == principal

            if request.headers.get("accept", "").startswith("application/json"):
                turn = await self._desk.live.turn(key, made)
                return JSONResponse(self._desk.live.message(turn, had)[1])
            if self._desk.live.is_full(visitor.cookie):
                return Response("", status_code=204)  # a browser's EventSource does not come back after that
            stream = self._desk.live.stream(key, made, had, visitor.cookie, still)
            return StreamingResponse(
                stream, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            )

        return answer
