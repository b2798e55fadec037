"""Traefik 3 with its etcd provider: which keys make a server, and what Traefik says it does with them.

Rules that come from Traefik (measured on 3.7, see ``docs/use/balancers.md``):

- Names are compared without case and may not hold ``@``, so ids are lower case here.
- All keys of a server come and go together. ``url`` is the only one we write: a ``weight`` that outlives its ``url``
  answers 500 for that server's share of the traffic.
- One value that Traefik can't decode, anywhere below its root, stops all its updates, for every service. So each
  value is checked before it is written.
- Every event below the root, even a put of the same value, arms the throttle and delays the next change by up to
  ``throttle_s``. So nothing is written without need, and nothing of ours lives below the root.
"""

import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlsplit

from outrider.balancers import Server
from outrider.balancers.ask import ask
from outrider.config.sections import TraefikSettings
from outrider.core.errors import ConfigError

ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,126}")
ID_WORDS = "use 1 to 127 lower-case letters, digits or . _ - and begin with a letter or a digit"
_ENTRYPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")

API_TIMEOUT_S = 2.0
"""Time limit of one question to one Traefik. It answers from memory, in a few milliseconds."""

APPLY_S = 0.5
"""Time from the end of the throttle to the effect: 0.26 s was the longest of 60 measured swaps."""


class Traefik:
    """Computes the keys of one Traefik service and asks every Traefik what it sends where."""

    def __init__(self, settings: TraefikSettings) -> None:
        """Check the names and addresses in ``settings``; nothing is contacted.

        Raises:
            ConfigError: a service, root, address or entry point that Traefik would choke on.
        """
        self.name = "traefik"
        self.propagation_s = settings.throttle_s + APPLY_S
        self._service = _checked_id("traefik.service", settings.service)
        self._root = settings.root
        if not settings.root or settings.root.strip("/ ") != settings.root:
            raise ConfigError(f"traefik.root {settings.root!r}: write Traefik's rootKey without a slash at either end")
        self._rule = settings.rule.strip()
        for entrypoint in settings.entrypoints:
            if not _ENTRYPOINT.fullmatch(entrypoint):
                raise ConfigError(f"traefik.entrypoints {entrypoint!r}: use letters, digits or . _ -")
        self._entrypoints = settings.entrypoints
        self._questions = tuple(
            f"{api.rstrip('/')}/api/http/services/{quote(self._service)}@etcd" for api in settings.api_urls
        )

    def static_keys(self) -> Mapping[str, str]:
        """The router, and one key that keeps the service alive without servers; empty when no rule is set.

        Without ``passhostheader`` (any key of the load balancer would do) the service vanishes with its last server,
        and Traefik answers 404, which clients take for an answer, in place of 503.
        """
        if not self._rule:
            return {}
        router = f"{self._root}/http/routers/{self._service}"
        return {
            f"{self._root}/http/services/{self._service}/loadbalancer/passhostheader": "true",
            f"{router}/rule": self._rule,
            f"{router}/service": self._service,
            **{f"{router}/entrypoints/{number}": name for number, name in enumerate(self._entrypoints)},
        }

    def server_keys(self, server: Server) -> Mapping[str, str]:
        """The server's one key.

        Raises:
            ConfigError: an id or an address that Traefik wouldn't take, or another service than ours.
        """
        if server.service != self._service:
            raise ConfigError(f"server {server.id}: its service is {server.service!r}, ours is {self._service!r}")
        return {self._url_key(server.id): _checked_url(server.url)}

    def owned_prefix(self, server_id: str) -> str:
        """``{root}/http/services/{service}/loadbalancer/servers/{id}/``: by its slash ``web-1`` isn't ``web-10``'s."""
        checked = _checked_id("server id", server_id)
        return f"{self._root}/http/services/{self._service}/loadbalancer/servers/{checked}/"

    def url_of(self, server_id: str, found: Mapping[str, str]) -> str | None:
        """The address in the ``url`` key, without a slash at its end."""
        url = found.get(self._url_key(server_id))
        return url.strip().rstrip("/") if url else None

    def confirm(self, *, present: frozenset[str], absent: frozenset[str]) -> bool | None:
        """Ask the API of each Traefik for the service's servers; see ``Balancer.confirm``.

        One that hasn't got the service sends to nobody. One that doesn't answer in ``API_TIMEOUT_S``, or not as
        Traefik's API does, makes the result None, unless another surely says no.
        """
        wanted, unwanted = _normalised(present), _normalised(absent)
        sure = bool(self._questions)
        for question in self._questions:
            listed = _servers(question)
            if listed is None:
                sure = False
            elif not wanted <= listed or unwanted & listed:
                return False
        return True if sure else None

    def _url_key(self, server_id: str) -> str:
        return f"{self.owned_prefix(server_id)}url"


def _servers(question: str) -> frozenset[str] | None:
    """The addresses that one Traefik sends to, or None when it can't be told."""
    answer = ask(question, timeout_s=API_TIMEOUT_S)
    if answer is None:
        return None
    try:
        told = json.loads(answer.body)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    if answer.status == 404:
        # Only the API's own 404 counts. The same request to an entry point of Traefik's, where a wrong api_url leads,
        # is answered "404 page not found" as text, and must not be taken for "sends to nobody".
        return frozenset() if str(told.get("message", "")).startswith("service not found") else None
    if answer.status != 200:
        return None
    if told.get("status") == "disabled":  # one bad address disables the whole service
        return frozenset()
    balancer = told.get("loadBalancer")
    if not isinstance(balancer, dict):
        return None  # a weighted or mirroring service by that name: its servers are elsewhere
    servers = balancer.get("servers") or []
    return _normalised(str(server.get("url", "")) for server in servers if isinstance(server, dict))


def _normalised(urls: Iterable[str]) -> frozenset[str]:
    return frozenset(url.rstrip("/") for url in urls)


def _checked_id(what: str, text: str) -> str:
    if not ID.fullmatch(text):
        raise ConfigError(f"{what} {text!r}: {ID_WORDS}")
    return text


def _checked_url(url: str) -> str:
    """Return ``url`` if Traefik surely takes it: ``scheme://host:port`` and nothing else."""
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
