"""The REST API of `outrider login`: where people log in. It needs no token, since nobody has one yet."""

from fastapi import APIRouter, Request, Response

from outrider.core.errors import NotFound
from outrider.service.api.models import Shown
from outrider.service.context import context_of
from outrider.service.problems import RESPONSES

router = APIRouter(prefix="/api/v1", responses=RESPONSES, tags=["users"])


class IdentityProviderShown(Shown):
    """Where people log in, and as which client."""

    issuer: str
    client_id: str
    scopes: list[str]


@router.get("/identity-provider")
def show_identity_provider(request: Request, response: Response) -> IdentityProviderShown:
    """Show the identity provider whose tokens count here. Nothing of it is secret."""
    tokens = context_of(request).tokens
    if tokens is None:
        raise NotFound("this service has no identity provider; its users have tokens (`outrider admin-user create`)")
    settings = tokens.settings
    return IdentityProviderShown(
        issuer=settings.issuer, client_id=settings.device_client_id, scopes=list(settings.scopes)
    )
