"""The REST API's users: for admins alone, but for ``whoami``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from outrider.service.api.models import Items
from outrider.service.api.models_users import NewUser, UserCreated, UserShown, WhoAmI
from outrider.service.api.pagination import DEFAULT_LIMIT, After, Limit, page_of
from outrider.service.context import Context, context_of
from outrider.service.problems import RESPONSES
from outrider.service.store.request import current_request

router = APIRouter(prefix="/api/v1", responses=RESPONSES, tags=["users"])
Ours = Annotated[Context, Depends(context_of)]


@router.get("/whoami")
def whoami() -> WhoAmI:
    """Who the service takes you for, and what you may do."""
    request = current_request()
    assert request is not None, "behind the auth middleware"
    return WhoAmI.model_validate(request.principal)


@router.get("/users")
def list_users(ours: Ours, limit: Limit = DEFAULT_LIMIT, after: After = None) -> Items[UserShown]:
    """All users, by name."""
    page, following = page_of(ours.store.users.list(), limit=limit, after=after, name=lambda user: user.name)
    return Items(items=[UserShown.model_validate(user) for user in page], next=following)


@router.post("/users", responses={201: {"model": UserCreated, "description": "There was none"}})
def create_user(new: NewUser, ours: Ours, response: Response) -> UserCreated:
    """Make a user (201), or give one a new token (200): the old one ends. The token is shown this once."""
    made = ours.store.users.create(new.name, new.role)
    response.status_code = 201 if made.created else 200
    response.headers["Cache-Control"] = "no-store"
    return UserCreated(**UserShown.model_validate(made.user).model_dump(), token=made.token)


@router.get("/users/{name}")
def get_user(name: str, ours: Ours) -> UserShown:
    """One user."""
    return UserShown.model_validate(ours.store.users.get(name))


@router.delete("/users/{name}")
def delete_user(name: str, ours: Ours) -> UserShown:
    """Remove a user. The token ends within a second, in every service process."""
    return UserShown.model_validate(ours.store.users.delete(name))
