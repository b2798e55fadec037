"""Making users, giving them new tokens and roles, and removing them. A token is shown once, and kept nowhere."""

from collections.abc import Mapping, Sequence

from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.model.documents import App, Role, User
from outrider.service.store.users import ROLES
from outrider.service.web.pages.users import API_USERS
from outrider.service.web.site import Action, Doing, Effect, Field, Visit

_WORDS = (
    ("viewer", "viewer: reads"),
    ("approver", "approver: also judges releases that wait for it"),
    ("operator", "operator: also changes rollouts"),
    ("admin", "admin: also manages users and removes apps"),
)


def _user(visit: Visit) -> User:
    found = visit.context.get_or_none(User, visit.keys.user(visit.names["name"]))
    if found is None:
        raise NotFound(f"there is no user {visit.names['name']!r}")
    return found


def _fields(role: Role, apps: Sequence[str]) -> tuple[Field, ...]:
    return (
        Field(name="role", label="Role", kind="select", value=role, choices=_WORDS),
        Field(
            name="apps",
            label="Only for these apps",
            value=" ".join(apps),
            help="Ids of apps with spaces between them; empty: the role holds for all. An admin's holds for all.",
        ),
    )


def _create_fields(visit: Visit) -> tuple[Field, ...]:
    name = Field(name="name", label="Name", required=True, help="1 to 64 letters, digits or . _ @ + -")
    return (name, *_fields("operator", ()))


def _create_effect(visit: Visit, form: Mapping[str, str]) -> Effect:
    lines = ["the token is shown once, in the answer to this form"]
    name = form.get("name", "").strip()
    if name and any(user.name == name for user in visit.context.children(User, visit.keys.users())):
        return Effect(instances=None, lines=(), refused=f"there is a user {name} already; give it a new token instead")
    return Effect(instances=None, lines=tuple(lines))


def _lint(visit: Visit, form: Mapping[str, str]) -> Sequence[str]:
    known = {app.id for app in visit.context.children(App, visit.keys.apps())}
    strange = [app for app in form.get("apps", "").split() if app not in known]
    found = [f"there is no app {app} here" for app in strange]
    if form.get("role") == "admin" and form.get("apps", "").strip():
        found.append("an admin's role can't be limited to apps")
    return found


def _role(text: str) -> Role:
    for role in ROLES:
        if role == text:
            return role
    raise ConfigError(f"role {text[:40]!r}: there is {', '.join(ROLES)}")


def _make(doing: Doing, name: str) -> Sequence[str]:
    form = doing.form
    made = doing.store.users.create(name, _role(form.get("role", "")), form.get("apps", "").split())
    what = "is made" if made.created else "has a new token; the old one is refused"
    limits = f" for {', '.join(made.user.apps)} alone" if made.user.apps else ""
    return (f"user {made.user.name} ({made.user.role}{limits}) {what}", f"token, shown only now: {made.token}")


def _create(doing: Doing) -> Sequence[str]:
    name = doing.form.get("name", "").strip()
    if any(user.name == name for user in doing.store.users.list()):
        raise Conflict(f"there is a user {name} already; give it a new token instead")
    return _make(doing, name)


def _renew_effect(visit: Visit, form: Mapping[str, str]) -> Effect:
    user = _user(visit)
    lines = [
        f"{user.name} is {user.role} now; its token that ends with {user.token_end}, and its sessions, end",
        "the new token is shown once, in the answer to this form",
    ]
    if user.hawk_key:
        lines.append("its Hawk key ends; `outrider admin-user create --hawk` makes another")
    return Effect(instances=None, lines=tuple(lines))


def _renew_fields(visit: Visit) -> tuple[Field, ...]:
    user = _user(visit)
    return _fields(user.role, user.apps)


def _renew(doing: Doing) -> Sequence[str]:
    return _make(doing, doing.store.users.get(doing.names["name"]).name)


def _delete_effect(visit: Visit, form: Mapping[str, str]) -> Effect:
    user = _user(visit)
    lines = [f"{user.name} ({user.role}) is removed; its token and its sessions end within a second"]
    if user.name == visit.visitor.principal.name:
        lines.append("this is you: you are logged out")
    admins = [one.name for one in visit.context.children(User, visit.keys.users()) if one.role == "admin"]
    refused = "this is the last admin; make another one first" if admins == [user.name] else ""
    return Effect(instances=None, lines=tuple(lines), refused=refused)


def _delete(doing: Doing) -> Sequence[str]:
    gone = doing.store.users.delete(doing.names["name"])
    return (f"user {gone.name} is removed",)


CREATE = Action(
    path="/users/create",
    operation=f"POST {API_USERS}",
    title="Create a user",
    button="Create",
    back="/users",
    effect=_create_effect,
    do=_create,
    fields=_create_fields,
    lint=_lint,
    is_shown_once=True,
)
RENEW = Action(
    path="/users/of/{name}/token",
    operation=f"POST {API_USERS}",
    title="New token and role of {name}",
    button="Make a new token",
    back="/users",
    effect=_renew_effect,
    do=_renew,
    fields=_renew_fields,
    lint=_lint,
    danger=True,
    is_shown_once=True,
)
DELETE = Action(
    path="/users/of/{name}/delete",
    operation=f"DELETE {API_USERS}/{{name}}",
    title="Delete user {name}",
    button="Delete",
    back="/users",
    effect=_delete_effect,
    do=_delete,
    danger=True,
)
ACTIONS = (CREATE, RENEW, DELETE)
