"""Caddy 2: the upstreams of one ``reverse_proxy`` handler, changed through the admin API.

``GET`` gives the handler with an ``Etag``; ``PATCH`` with ``If-Match`` replaces it only if nobody has changed it since.
A server without an entry keeps its place with weight 0 (``weighted_round_robin`` passes it over) as long as
``num_requests`` of ``/reverse_proxy/upstreams`` says that it has requests. Caddy forgets an upstream that it no longer
has, and its count with it. Measured on 2.11: with weights ``[0, 1]`` every new request goes to the second one, and
counts go on through a reload.

Every change is a reload of Caddy's configuration: it ends websockets, unless ``stream_close_delay`` is set, and Caddy
may drop a request that arrives in that moment (measured; a GET is sent again, a POST is lost). So a swap is one change:
what has drained stays with weight 0 until the next one.

The answer to a change doesn't wait for the configuration before it, which serves its connections to their end. So a
request that it is still reading goes to a server that is leaving, and no count shows that request before. Therefore a
server that leaves counts as busy for ``SETTLE_S`` after each change.
"""

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from outrider.balancers.agent.driver import AgentServer, Away, CannotFollow, Report

TIMEOUT_S = 10.0
POLICY = "weighted_round_robin"
SETTLE_S = 1.0
"""How long the configuration before a change may still be reading a request that it has accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One upstream; weight 0: it gets no new requests; -1: another policy decides."""

    dial: str
    weight: int = 1
    open: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaddyState:
    """What Caddy does with one handler.

    Attributes:
        handler: The handler's JSON as Caddy has it.
        etag: Of that.
    """

    upstreams: tuple[Upstream, ...]
    etag: str = ""
    handler: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Replace the handler by one with these upstreams, if it is still what ``etag`` says."""

    upstreams: tuple[tuple[str, int], ...]
    etag: str
    handler: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(f"{dial} weight {weight}" for dial, weight in self.upstreams) or "no upstream"


def plan(servers: tuple[AgentServer, ...], state: CaddyState) -> tuple[Patch, ...]:
    """One change with all servers, and with those that may have requests open still, at weight 0.

    What has drained alone is no reason for a change, but goes with the next one.
    """
    wanted = {server.address: server.weight for server in servers}
    serving = sorted((one.dial, one.weight) for one in state.upstreams if one.weight)
    is_empty = not state.upstreams
    if serving == sorted(wanted.items()) and (wanted or is_empty):
        return ()
    kept = [one.dial for one in state.upstreams if one.dial not in wanted and (one.weight or one.open)]
    if not wanted:
        kept = []  # Caddy sends to an only upstream whatever its weight is
    upstreams = (*wanted.items(), *((dial, 0) for dial in kept))
    return (Patch(upstreams=upstreams, etag=state.etag, handler=state.handler),)


def report(servers: tuple[AgentServer, ...], state: CaddyState) -> Report:
    """Weight 0 drains, the others serve."""
    urls = {server.address: server.url for server in servers}

    def url(dial: str) -> str:
        return urls.get(dial) or f"http://{dial}"

    return Report(
        serving=frozenset(url(one.dial) for one in state.upstreams if one.weight),
        draining={url(one.dial): one.open for one in state.upstreams if not one.weight},
        version=state.version,
    )


def handler_with(handler: Mapping[str, Any], upstreams: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """The handler with these upstreams; what else an operator set for each of them, and for balancing, stays."""
    known = {one.get("dial"): one for one in handler.get("upstreams") or () if isinstance(one, dict)}
    made = {**handler, "upstreams": [{**known.get(dial, {}), "dial": dial} for dial, _ in upstreams]}
    balancing = dict(handler.get("load_balancing") or {})
    balancing["selection_policy"] = {"policy": POLICY, "weights": [weight for _, weight in upstreams]}
    if not upstreams:
        balancing.pop("selection_policy")
    made["load_balancing"] = balancing
    return made


def upstreams_in(handler: Mapping[str, Any], open_at: Mapping[str, int]) -> tuple[Upstream, ...]:
    """The handler's upstreams. Without our policy all of them get requests."""
    dials = [str(one.get("dial", "")) for one in handler.get("upstreams") or () if isinstance(one, dict)]
    policy = (handler.get("load_balancing") or {}).get("selection_policy") or {}
    told = policy.get("weights") if policy.get("policy") == POLICY else None
    weights = [int(weight) for weight in told] if isinstance(told, list) and len(told) == len(dials) else None
    if weights is not None and len(weights) == 1:
        weights = [max(1, weights[0])]  # with fewer than two Caddy takes the first upstream, whatever its weight is
    return tuple(
        Upstream(dial=dial, weight=-1 if weights is None else weights[number], open=open_at.get(dial))
        for number, dial in enumerate(dials)
    )


def unsettled(upstream: Upstream) -> Upstream:
    """So soon after a change one request more than those that are counted may be on its way to a server that leaves."""
    if upstream.weight or upstream.open is None:
        return upstream
    return replace(upstream, open=max(1, upstream.open))


class CaddyDriver:
    """One ``reverse_proxy`` handler of one Caddy."""

    def __init__(self, *, admin_url: str, handler: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is contacted. Who changed Caddy last, and when, isn't known: it counts as changed now.

        Args:
            admin_url: ``http://127.0.0.1:2019``.
            handler: Path of the handler in the admin API: ``id/example`` when it has that ``@id``, else
                ``config/apps/http/servers/...``.
            clock: Monotonic seconds.
        """
        self._clock = clock
        self._changed_at = clock()
        self.name = "caddy"
        parts = urlsplit(admin_url)
        self._host, self._port = parts.hostname or "", parts.port or 2019
        self._path = "/" + handler.strip("/")

    def look(self) -> CaddyState:
        """Ask for the handler and the counts; see ``AgentDriver.look``."""
        status, headers, body = self._ask("GET", self._path)
        handler = _json(body)
        if status == 404 or handler is None:
            raise CannotFollow(
                f"Caddy has nothing at {self._path}: give the reverse_proxy handler that @id, or name its path"
            )
        if status != 200:
            raise CannotFollow(f"Caddy has nothing at {self._path} (status {status}): {_error_in(handler)}")
        if not isinstance(handler, dict) or handler.get("handler") != "reverse_proxy":
            kind = handler.get("handler") if isinstance(handler, dict) else None
            raise CannotFollow(
                f"Caddy's {self._path} isn't a reverse_proxy handler{f', but {kind}' if kind else ''}: name one, as"
                " config/apps/http/servers/NAME/routes/0/handle/0"
            )
        if handler.get("dynamic_upstreams"):
            raise CannotFollow(
                f"Caddy's {self._path} has dynamic_upstreams, which Caddy prefers to those of the agent: remove them"
            )
        status, _, body = self._ask("GET", "/reverse_proxy/upstreams")
        told = _json(body) if status == 200 else []
        open_at = {
            str(one["address"]): int(one.get("num_requests", 0))
            for one in (told if isinstance(told, list) else [])
            if isinstance(one, dict) and "address" in one
        }
        upstreams = upstreams_in(handler, open_at)
        if self._clock() - self._changed_at < SETTLE_S:
            upstreams = tuple(unsettled(one) for one in upstreams)
        return CaddyState(upstreams=upstreams, etag=headers.get("etag", ""), handler=handler)

    def plan(self, servers: tuple[AgentServer, ...], state: CaddyState) -> tuple[Patch, ...]:
        """See the function ``plan``."""
        return plan(servers, state)

    def report(self, servers: tuple[AgentServer, ...], state: CaddyState) -> Report:
        """See the function ``report``."""
        return report(servers, state)

    def perform(self, command: Patch) -> None:
        """See ``AgentDriver.perform``. When somebody was faster, the next look says what is to be done."""
        body = json.dumps(handler_with(command.handler, command.upstreams)).encode()
        headers = {"Content-Type": "application/json", "If-Match": command.etag}
        try:
            status, _, answer = self._ask("PATCH", self._path, body, headers)
        finally:
            self._changed_at = self._clock()
        if status not in (200, 412):
            raise CannotFollow(
                f"Caddy refuses the change of {self._path} (status {status}): {_error_in(_json(answer))}"
            )

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or error
            raise Away(f"Caddy's admin API doesn't answer at {self._host}:{self._port}: {why}") from error
        finally:
            connection.close()


def _error_in(told: Any) -> str:
    """What Caddy says went wrong."""
    return str(told.get("error") or "no reason given") if isinstance(told, dict) else "no reason given"


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
