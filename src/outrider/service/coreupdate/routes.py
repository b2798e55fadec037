"""How the routes of CoreUpdate's API answer what goes wrong: in the form of Google's APIs, which its client prints."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from outrider.core.errors import OutriderError
from outrider.service.coreupdate.auth import answer, refusal


class CoreUpdateRoute(APIRoute):
    """A route of CoreUpdate's API."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint, with its errors as answers."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except OutriderError as error:
                return refusal(error, request.url.path)
            except RequestValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                return answer(400, f"{where}: {first['msg']}", request.url.path)

        return handle
