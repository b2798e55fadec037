"""The REST API of users: only for admins, except ``whoami``."""

from fastapi import APIRouter, Response

from outrider.service.api.models import Items
from outrider.service.api.models_users import NewUser, UserCreated, UserShown, WhoAmI
from outrider.service.api.pagination import DEFAULT_LIMIT, After, Limit, page_of
from outrider.service.context import Asked, Bound
from outrider.service.problems import RESPONSES

router = APIRouter(prefix="/api/v1", responses=RESPONSES, tags=["users"])


@router.get("/whoami")
def whoami(asked: Asked) -> WhoAmI:
    """Show the user that your token belongs to, and its role."""
    return WhoAmI.model_validate(asked.principal)


@router.get("/users")
def list_users(store: Bound, limit: Limit = DEFAULT_LIMIT, after: After = None) -> Items[UserShown]:
    """List all users, by name."""
    page, following = page_of(store.users.list(), limit=limit, after=after, name=lambda user: user.name)
    return Items(items=[UserShown.model_validate(user) for user in page], next=following)


@router.post("/users", responses={201: {"model": UserCreated, "description": "Created: there was none"}})
def create_user(new: NewUser, store: Bound, response: Response) -> UserCreated:
    """Create a user (201), or replace its token (200). Only this answer contains the token."""
    made = store.users.create(new.name, new.role, new.apps, hawk=new.hawk)
    response.status_code = 201 if made.created else 200
    response.headers["Cache-Control"] = "no-store"
    return UserCreated(**UserShown.model_validate(made.user).model_dump(), token=made.token, hawk_key=made.hawk_key)


@router.get("/users/{name}")
def get_user(name: str, store: Bound) -> UserShown:
    """Show one user."""
    return UserShown.model_validate(store.users.get(name))


@router.delete("/users/{name}")
def delete_user(name: str, store: Bound) -> UserShown:
    """Remove a user. Every service process refuses the token within a second."""
    return UserShown.model_validate(store.users.delete(name))
