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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from outrider.balancers import Balancer, Server
from outrider.balancers.drivers import BalancerContext
from outrider.balancers.entry import EtcdEntry
from outrider.balancers.keys import ID, ID_WORDS, checked_url
from outrider.config.drivers import Problem
from outrider.config.sections import HTTP_URL, Settings, setting
from outrider.core.addresses import http_problem
from outrider.core.errors import ConfigError

_ENTRYPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

API_TIMEOUT_S = 2.0
"""Time limit of one question to one Traefik. It answers from memory, in a few milliseconds."""

APPLY_S = 0.5
"""Time from the end of the throttle to the effect: 0.26 s was the longest of 60 measured swaps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraefikSettings:
    """[traefik]: Traefik's own facts, when instance.balancer is traefik."""

    root: str = setting(
        "traefik",
        "Traefik's own rootKey.",
        pattern=r"[^/\s](.*[^/\s])?",
        wanted="a key without a slash at either end",
        empty=False,
    )
    api_urls: tuple[str, ...] = setting(
        (),
        "Addresses of the API of every Traefik: then it is asked whether it sends nothing more; else time must do.",
        pattern=HTTP_URL,
        wanted="http://HOST[:PORT] or https://HOST[:PORT]",
    )
    throttle_s: float = setting(2.0, "Traefik's providersThrottleDuration.", least=0)
    rule: str = setting("", "Router rule; with it the router and the service are written if they are absent.")
    entrypoints: tuple[str, ...] = setting(
        ("web",), "Entry points of the router.", pattern=r"[^\s/]+", wanted="a name", empty=False
    )


SETTINGS = TraefikSettings
USES = frozenset({"service", "server_id"})


def problems(settings: Settings) -> tuple[Problem, ...]:
    """Names and addresses that Traefik would choke on."""
    service = settings.balancer.service
    if not service:
        return (("balancer.service", "missing; name the app's service in Traefik, or set instance.balancer to none"),)
    return (*_problems(settings.of(TraefikSettings), service), *_server_id_problem(settings.balancer.server_id))


def make(settings: Settings, context: BalancerContext) -> Balancer:
    """The instance's server in Traefik's service, and the Traefiks that are asked for it.

    Raises:
        ConfigError: what ``problems`` tells.
    """
    own, shared = settings.of(TraefikSettings), settings.balancer
    layout = TraefikKeys(own, service=shared.service)
    entry = EtcdEntry(
        context.cluster,
        layout,
        service=shared.service,
        server_id=shared.server_id,
        keys=context.keys,
        owner=context.owner,
        predecessors=context.predecessors,
    )
    return Balancer(entry=entry, observer=TraefikObserver(own, service=shared.service))


class TraefikKeys:
    """Computes the keys of one Traefik service."""

    def __init__(self, settings: TraefikSettings, *, service: str) -> None:
        """Check the names in ``settings``.

        Raises:
            ConfigError: a service, root or entry point that Traefik would choke on.
        """
        for key, problem in _problems(settings, service):
            raise ConfigError(f"{key}: {problem}")
        self.name = "traefik"
        self._service, self._root = service, settings.root
        self._rule, self._entrypoints = settings.rule.strip(), settings.entrypoints

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
        return {self._url_key(server.id): checked_url(server.url)}

    def owned_prefix(self, server_id: str) -> str:
        """``{root}/http/services/{service}/loadbalancer/servers/{id}/``: by its slash ``web-1`` isn't ``web-10``'s."""
        if not ID.fullmatch(server_id):
            raise ConfigError(f"server id {server_id!r}: {ID_WORDS}")
        return f"{self._root}/http/services/{self._service}/loadbalancer/servers/{server_id}/"

    def pool(self) -> tuple[str, str]:
        """As ``KeyLayout.pool``; Traefik compares names without case, and its own documents write ``loadBalancer``."""
        return f"{self._root}/http/services/{self._service}/", r"(?i:loadbalancer/servers)/(?P<id>[^/]+)/(?P<rest>.+)"

    def url_of(self, server_id: str, found: Mapping[str, str]) -> str | None:
        """The address in the ``url`` key, without a slash at its end."""
        url = found.get(self._url_key(server_id))
        return url.strip().rstrip("/") if url else None

    def _url_key(self, server_id: str) -> str:
        return f"{self.owned_prefix(server_id)}url"


class TraefikObserver:
    """Asks every Traefik what it sends where."""

    def __init__(self, settings: TraefikSettings, *, service: str) -> None:
        """Nothing is contacted."""
        self.name = "traefik"
        self.propagation_s = settings.throttle_s + APPLY_S
        self.exact = False
        self._questions = tuple(
            f"{api.rstrip('/')}/api/http/services/{quote(service)}@etcd" for api in settings.api_urls
        )

    def confirm(self, *, present: frozenset[str], absent: frozenset[str]) -> bool | None:
        """Ask the API of each Traefik for the service's servers; see ``Observer.confirm``.

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

    def doubt(self) -> str:
        """Nothing to add."""
        return ""

    def open_requests(self, urls: frozenset[str]) -> int | None:
        """None: Traefik counts no requests of a server that it no longer lists."""
        return None


def _servers(question: str) -> frozenset[str] | None:
    """The addresses that one Traefik sends to, or None when it can't be told."""
    from outrider.http import ask  # the settings are read without it

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


def _problems(settings: TraefikSettings, service: str) -> Iterator[Problem]:
    if not ID.fullmatch(service):
        yield "balancer.service", f"{service!r}: {ID_WORDS}"
    if not settings.root or settings.root.strip("/ ") != settings.root:
        yield "traefik.root", f"{settings.root!r}: write Traefik's rootKey without a slash at either end"
    for url in settings.api_urls:
        if problem := http_problem(url):
            yield "traefik.api_urls", f"{url!r}: {problem}"
    for entrypoint in settings.entrypoints:
        if not _ENTRYPOINT.fullmatch(entrypoint):
            yield "traefik.entrypoints", f"{entrypoint!r}: use letters, digits or . _ -"


def _server_id_problem(server_id: str) -> Iterator[Problem]:
    if not ID.fullmatch(server_id):
        yield "balancer.server_id", f"{server_id!r}: {ID_WORDS}"
