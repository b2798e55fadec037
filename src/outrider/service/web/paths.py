"""Which paths belong to the page. The API, Omaha, payloads and health have all others."""

_FIRST = frozenset({"", "activity", "apps", "audit", "live", "login", "logout", "static", "users"})


def is_page(path: str) -> bool:
    """Whether a request for ``path`` is answered by the page."""
    return path.startswith("/") and path[1:].partition("/")[0] in _FIRST
