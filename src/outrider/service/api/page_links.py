"""The REST API of `outrider page`: a link that lets a user into the web page, once."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from outrider.core.errors import Forbidden
from outrider.oidc.tokens import PREFIX
from outrider.service.api.models import Shown
from outrider.service.connections import peer_of
from outrider.service.context import Asked, Bound, Context, base_url_of, context_of
from outrider.service.problems import RESPONSES
from outrider.service.store.sessions import LINK_S

router = APIRouter(prefix="/api/v1", responses=RESPONSES, tags=["users"])
Ours = Annotated[Context, Depends(context_of)]


class PageLinkShown(Shown):
    """A link to the web page."""

    url: str
    user: str = Field(description="Who is let in by it.")
    for_s: float = Field(description="Seconds for which it can be used, once.")


@router.post("/page-links", status_code=201)
def create_page_link(store: Bound, asked: Asked, ours: Ours, request: Request, response: Response) -> PageLinkShown:
    """Create a link that begins one session of yours in the web page: it works once, for a minute."""
    name = asked.principal.name
    if name.startswith(PREFIX):
        raise Forbidden(
            "a link is for users with a token of this service; open the page and log in with your identity provider"
        )
    user = ours.known_users.all().get(name) if asked.principal.is_user else None
    secret = store.sessions.make_link(user, name)
    response.headers["Cache-Control"] = "no-store"
    # at the Unix socket, the Host of a request says nothing
    at_socket = peer_of(request.scope) is not None and ours.own_url is not None
    base = ours.own_url if at_socket and ours.public_url is None else base_url_of(request)
    return PageLinkShown(url=f"{base}/login/{secret}", user=name, for_s=LINK_S)
