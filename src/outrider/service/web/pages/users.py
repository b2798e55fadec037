"""The users: for admins alone."""

from collections.abc import Mapping
from typing import Any

from outrider.model.documents import App, User
from outrider.service.api.pagination import page_of
from outrider.service.web.site import Page, Visit

ON_A_PAGE = 100
API_USERS = "/api/v1/users"


def view(visit: Visit) -> Mapping[str, Any]:
    """All users, by name."""
    found = visit.context.children(User, visit.keys.users())
    page, following = page_of(
        found, limit=ON_A_PAGE, after=visit.query.get("after") or None, name=lambda user: user.name
    )
    apps = visit.context.children(App, visit.keys.apps())
    return {
        "users": page,
        "labels": {one.id: one.label or one.id for one in apps},
        "known": len(found),
        "following": following,
        "is_first": not visit.query.get("after"),
    }


PAGE = Page(path="/users", template="users.html", reads=f"GET {API_USERS}", view=view, title="Users", nav="Users")
