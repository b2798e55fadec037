"""The REST API of tokens for Omaha clients that have no sidekick."""

from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from outrider.service.api.models import Given, Items, Shown
from outrider.service.api.pagination import DEFAULT_LIMIT, After, Limit, page_of
from outrider.service.context import Bound
from outrider.service.problems import RESPONSES

router = APIRouter(prefix="/api/v1", responses=RESPONSES, tags=["apps"])
INSTANCE = "The only instance that it proves; empty: every instance of the group that never had a sidekick."


class NewClientToken(Given):
    """A token for the clients of a group."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"group": "beta", "instance": "kiosk-7"}]})

    group: str = Field(description="The group whose check-ins it proves.", examples=["beta"])
    instance: str = Field("", description=INSTANCE)
    note: str = Field("", description="For people.")


class ClientTokenShown(Shown):
    """A token, without its text."""

    app: str
    id: str
    group: str
    instance: str = Field(description=INSTANCE)
    token_end: str = Field(description="The token's last four characters.", examples=["x7Qa"])
    note: str
    created: datetime


class ClientTokenCreated(ClientTokenShown):
    """A token with its text, which is shown only once."""

    token: str = Field(description="The last part of the client's update address: `/v1/update/TOKEN`.")


@router.get("/apps/{app}/client-tokens")
def list_client_tokens(
    app: str, store: Bound, limit: Limit = DEFAULT_LIMIT, after: After = None
) -> Items[ClientTokenShown]:
    """List the tokens of an app's clients."""
    tokens = store.client_tokens.list(app)
    page, following = page_of(tokens, limit=limit, after=after, name=lambda token: token.id)
    return Items(items=[ClientTokenShown.model_validate(token) for token in page], next=following)


@router.post("/apps/{app}/client-tokens", status_code=201)
def create_client_token(app: str, new: NewClientToken, store: Bound, response: Response) -> ClientTokenCreated:
    """Create a token for clients of a group. Only this answer contains it."""
    made = store.client_tokens.create(app, new.group, instance=new.instance, note=new.note)
    response.headers["Cache-Control"] = "no-store"
    return ClientTokenCreated(**ClientTokenShown.model_validate(made.stored).model_dump(), token=made.token)


@router.delete("/apps/{app}/client-tokens/{token}")
def delete_client_token(app: str, token: str, store: Bound) -> ClientTokenShown:
    """Revoke a token: the next check-in with it is unproved."""
    return ClientTokenShown.model_validate(store.client_tokens.delete(app, token))
