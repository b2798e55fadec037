"""What a user may reach whose role holds for some apps alone.

What names one of these apps in its path, or in the parameter ``app``, is theirs. What belongs to no app is not, but for
a few operations that give nothing of another app away; a new operation is closed until it is listed here.
"""

import re
from collections.abc import Iterable
from urllib.parse import parse_qs

from outrider.core.errors import ConfigError, Forbidden
from outrider.model.documents import User
from outrider.service.store.context import app_id_of, some
from outrider.service.store.request import Principal

_OF_AN_APP = re.compile(r"/api/v1/apps/([^/]+)(?:/.*)?", re.DOTALL)
_BY_PARAMETER = frozenset({"/api/v1/status", "/api/v1/versions", "/api/v1/activity", "/api/v1/audit"})
_FOR_ALL = frozenset(
    {
        ("GET", "/api/v1/whoami"),
        ("GET", "/api/v1/apps"),
        ("POST", "/api/v1/payloads"),
        ("POST", "/api/v1/page-links"),
    }
)
"""The list of apps shows a user's own ones; an uploaded file belongs to an app once a package names it."""


def check_apps(user: User | Principal, method: str, path: str, query: bytes) -> None:
    """Refuse a request beyond the apps that the user's role holds for.

    Args:
        path: As the router sees it, without percent signs.
        query: The part behind the question mark, as it was sent.

    Raises:
        Forbidden: it reaches further.
    """
    if not user.apps:
        return
    if (method, path) in _FOR_ALL or (method == "HEAD" and ("GET", path) in _FOR_ALL):
        return
    limits = f"{user.name}'s role holds for {some(user.apps)} alone"
    if path in _BY_PARAMETER:
        # every value counts: an endpoint takes one of several
        named = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("app", [])
        if named and _all_among(named, user.apps):
            return
        raise Forbidden(f"{limits}; name one of them with ?app=")
    found = _OF_AN_APP.fullmatch(path)
    if found is None or not _all_among([found[1]], user.apps):
        raise Forbidden(f"{limits}, and this request reaches further")


def _all_among(named: Iterable[str], apps: Iterable[str]) -> bool:
    try:
        return {app_id_of(app) for app in named} <= set(apps)
    except ConfigError:
        return False
