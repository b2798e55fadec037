"""Requests for actions: what one is going to do, and doing it."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from outrider.core.errors import OutriderError
from outrider.service.api.auth import request_id_of
from outrider.service.problems import status_of
from outrider.service.store.request import RequestContext
from outrider.service.web.desk import SCRIPT, Desk, filled, filled_path
from outrider.service.web.doors import Visitor, check_csrf
from outrider.service.web.site import Action, Doing


class ActionRequests:
    """Answers requests for the forms of actions, and carries actions out."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def of_action(self, action: Action) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            form = await self._desk.form(request) if request.method == "POST" else dict(request.query_params)
            return await run_in_threadpool(self._action, action, request, form)

        return answer

    def _action(self, action: Action, request: Request, form: Mapping[str, str]) -> Response:
        visitor = self._desk.visitor(request)
        names = dict(request.path_params)
        visitor.check(*_operation(action, names))
        if request.method == "POST":
            check_csrf(visitor, form.get("csrf", ""))
            asked = RequestContext(
                principal=visitor.principal,
                did=f"POST {request.url.path}"[:1000],
                request_id=request_id_of(request.headers),
            )
            store = self._desk.context.stores.on_behalf_of(asked)
            try:
                notes = action.do(Doing(store=store, asked=asked, names=names, form=form, ours=self._desk.context))
            except OutriderError as error:
                return self._action_form(action, request, visitor, form, str(error), status_of(error))
            return self._done(action, request, visitor, tuple(notes))
        return self._action_form(action, request, visitor, form, "", 200)

    def _action_form(
        self, action: Action, request: Request, visitor: Visitor, form: Mapping[str, str], problem: str, status: int
    ) -> Response:
        names = dict(request.path_params)
        copy = self._desk.reading.copy(at_least=self._desk.written())
        visit = self._desk.look(visitor, names, form, copy)
        effect = action.effect(visit, form)
        html, _ = self._desk.templates.page(
            action.confirm_template,
            {
                **self._desk.common(request, visitor, filled(action.title, visit.labels)),
                "action": action,
                "action_path": request.url.path,
                "back": filled_path(action.back, names),
                "effect": effect,
                "fields": action.fields(visit),
                "form": form,
                "problem": problem,
                "lint": () if action.lint is None else tuple(action.lint(visit, form)),
                "lint_path": "" if action.lint is None else f"{request.url.path}/lint",
            },
        )
        return self._desk.with_cookies(HTMLResponse(html, status_code=status), request, visitor)

    def of_lint(self, action: Action) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            form = await self._desk.form(request)
            return await run_in_threadpool(lint, request, form)

        def lint(request: Request, form: Mapping[str, str]) -> Response:
            visitor = self._desk.visitor(request)
            names = dict(request.path_params)
            visitor.check(*_operation(action, names))
            check_csrf(visitor, form.get("csrf", ""))
            visit = self._desk.look(visitor, names, form, self._desk.reading.copy())
            assert action.lint is not None
            effect = action.effect(visit, form)
            return JSONResponse(
                {"lint": list(action.lint(visit, form)), "effect": list(effect.lines), "refused": effect.refused}
            )

        return answer

    def _done(self, action: Action, request: Request, visitor: Visitor, notes: tuple[str, ...]) -> Response:
        back, names = filled_path(action.back, dict(request.path_params)), dict(request.path_params)
        if action.is_shown_once and SCRIPT not in request.headers:
            facts = {**self._desk.common(request, visitor, filled(action.title, names)), "told": notes, "back": back}
            html, _ = self._desk.templates.page("done.html", facts)
            return HTMLResponse(html)
        return self._desk.done(request, visitor, back, action.title, notes)


def _operation(action: Action, names: Mapping[str, str]) -> tuple[str, str]:
    method, _, path = action.operation.partition(" ")
    return method, filled(path, names)
