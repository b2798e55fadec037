"""The key layout of a balancer that reads its servers from etcd itself."""

import re
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

from outrider.balancers import Server
from outrider.core.errors import ConfigError

ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,126}")
ID_WORDS = "use 1 to 127 lower-case letters, digits or . _ - and begin with a letter or a digit"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")


class KeyLayout(Protocol):
    """Computes keys; ``EtcdEntry`` alone writes them.

    Attributes:
        name: The product, for error lines.
    """

    name: str

    def static_keys(self) -> Mapping[str, str]:
        """Keys of the route and the pool, written once if absent and only if the operator asked for it."""

    def server_keys(self, server: Server) -> Mapping[str, str]:
        """All keys of one server; they are written and removed together, in one transaction."""

    def owned_prefix(self, server_id: str) -> str:
        """Prefix of all that belongs to one server, with a slash at its end: removed as a range, without an orphan.

        Without a slash at its end it is the server's one key itself.
        """

    def pool(self) -> tuple[str, str]:
        """Where all servers of the service are, whoever wrote them: a prefix, and a pattern for what follows it.

        The pattern's groups: ``id``, the server's, and ``rest``, what follows where ``owned_prefix`` ends, in any case.
        An empty prefix: they can't be told from other keys.
        """

    def url_of(self, server_id: str, found: Mapping[str, str]) -> str | None:
        """The server's address in what was read below ``owned_prefix``; None when it isn't registered."""


def checked_url(url: str) -> str:
    """Return ``url`` if a balancer surely takes it: ``scheme://host:port`` and nothing else.

    Raises:
        ConfigError: it is something else.
    """
    problem = f"server address {url!r}: write http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(problem) from None
    host = parts.netloc.rpartition(":")[0]
    if parts.scheme not in ("http", "https") or not port or not _HOST.fullmatch(host):
        raise ConfigError(problem)
    if url != f"{parts.scheme}://{host}:{port}":
        raise ConfigError(problem)
    return url
