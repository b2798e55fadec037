"""Connections to etcd's nodes: which one to ask, for how long, and as whom.

Rules, each for a trap that was measured (docs/decisions/0002-etcd-client.md):

- No call without a time limit; one limit over all endpoints.
- A connection is *proved* before it carries a request: by one ``Status`` call, which needs no consensus. A frozen
  node, a node without a leader and a refused connection are found out before a write was sent, so the next node may
  have it.
- A write that was sent and got no answer is ``Unknown``, never repeated here. What may be repeated goes to the next
  node.
- A node that failed is asked last for 1.5 s, not barred: it may be the only one left.
- Tokens die with the server and after five idle minutes: they are renewed when etcd says so, once per call.
- Signing in costs etcd a tenth of a second of CPU (bcrypt), and many come at once after its restart. So an attempt
  outlives the call that began it, and the next call takes what came of it: to begin anew would make the crowd larger.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from etcd3 import etcdrpc
from loguru import logger

from outrider.core.errors import ConfigError, Refused
from outrider.etcd.credentials import Credentials, Proof
from outrider.etcd.errors import NoAnswer, NotSent, StaleToken, checked
from outrider.etcd.seam import Endpoint, EtcdAddress, Unreachable

SIGN_IN_S = 30.0
AVOIDED_S = 1.5  # long enough that a burst of calls doesn't ask a frozen node again and again, short enough to forget

_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),  # etcd closes the connection of whoever pings more often than every 5 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # without it a dead peer is noticed after 70 s instead of 15 s (grpcio 1.85)
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # how long one attempt to connect may take; gRPC's own 20 s is too long
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),  # else a new channel to the same node gets the old, broken connection
    ("grpc.enable_http_proxy", 0),  # http_proxy in the environment is not meant for the store
    ("grpc.enable_retries", 0),
)
LOSES_CHANGES = "this etcd version can lose or corrupt data after a crash; use 3.4.22, 3.5.6 or newer"

R = TypeVar("R")


class Connection:
    """One channel to one node.

    Attributes:
        proved: It answered since it was made, or since its last failure.
        proof: The certificates with which it was made.
        version: The server's, ``(0, 0, 0)`` before it was proved.
    """

    def __init__(self, endpoint: Endpoint, proof: Proof) -> None:
        self.proof = proof
        credentials = proof.channel
        self.name = f"{endpoint.host}:{endpoint.port}"
        # gRPC wants IPv6 addresses in brackets
        target = f"[{endpoint.host}]:{endpoint.port}" if ":" in endpoint.host else self.name
        self.channel = (
            grpc.insecure_channel(target, _OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, _OPTIONS)
        )
        self.kv = etcdrpc.KVStub(self.channel)
        self.lease = etcdrpc.LeaseStub(self.channel)
        self.watch = etcdrpc.WatchStub(self.channel)
        self.auth = etcdrpc.AuthStub(self.channel)
        self.maintenance = etcdrpc.MaintenanceStub(self.channel)
        self.proved = False
        self.version = (0, 0, 0)
        self.token: str | None = None
        self.signing_in = threading.Lock()
        self.attempt: Any = None
        """To sign in; it is under way, or its result wasn't looked at yet."""
        self.users = 0
        self.retired = False

    def metadata(self) -> tuple[tuple[str, str], ...]:
        # as metadata only: gRPC refuses call credentials on a channel without TLS
        return (("token", self.token),) if self.token is not None else ()


class _Node:
    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.connection: Connection | None = None
        self.avoided_until = 0.0
        self.warned_of: tuple[int, ...] | None = None


class Nodes:
    """All nodes of one etcd; every method may be called by any thread."""

    def __init__(self, address: EtcdAddress) -> None:
        """Raises ``ConfigError`` for an address that can't work; nothing is connected yet."""
        if not address.endpoints:
            raise ConfigError("etcd has no endpoints: name at least one HOST:PORT")
        self.timeout_s = address.timeout_s
        self._address = address
        self._credentials = Credentials(address)
        self._nodes = [_Node(endpoint) for endpoint in address.endpoints]
        self._preferred = self._nodes[0]
        self._lock = threading.Lock()
        self._closed = False

    @property
    def user(self) -> str | None:
        """As whom we sign in; None: without a password."""
        return self._address.user

    def __str__(self) -> str:
        return "etcd at " + ", ".join(f"{each.host}:{each.port}" for each in self._address.endpoints)

    def call(self, what: str, ask: Callable[[Connection, float, Any], R], *, repeatable: bool) -> R:
        """Ask one node, or several in turn when nothing can have happened twice.

        Args:
            what: The call in a word, for errors.
            ask: Gets the connection, its time limit in seconds and the metadata to send.
            repeatable: Asking twice does no harm, so a node that doesn't answer is no reason to stop.

        Raises:
            Unknown: no answer in ``timeout_s``.
            Refused: a node refused the request.
        """
        deadline = time.monotonic() + self.timeout_s
        order = self._order()
        problems: list[str] = []
        for position, node in enumerate(order):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            share_s = left_s / (len(order) - position)
            try:
                connection = self._take_proved(node, share_s)
                try:
                    limit_s = share_s if repeatable else deadline - time.monotonic()
                    answer = self._ask(connection, ask, max(limit_s, 0.001))
                finally:
                    self._give_back(connection)
            except NotSent as problem:
                problems.append(f"{_name(node)}: {problem}")
            except NoAnswer as problem:
                problems.append(f"{_name(node)}: {problem}")
                if not repeatable:
                    break
            else:
                self._preferred = node
                return answer
        raise Unreachable(what, problems or [f"no answer in {self.timeout_s:g} s"])

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """A proved connection with a fresh token, for a stream; it stays open as long as the block runs.

        Raises:
            Unknown: no node answered in ``timeout_s``.
            Refused: wrong user or password.
        """
        deadline = time.monotonic() + self.timeout_s
        order = self._order()
        problems: list[str] = []
        for position, node in enumerate(order):
            share_s = (deadline - time.monotonic()) / (len(order) - position)
            try:
                connection = self._take_proved(node, max(share_s, 0.001))
            except NotSent as problem:
                problems.append(f"{_name(node)}: {problem}")
                continue
            self._preferred = node
            try:
                yield connection
            finally:
                self._give_back(connection)
            return
        raise Unreachable("connect", problems)

    def distrust(self, connection: Connection, *, dead: bool) -> None:
        """Ask this node last for a while, and prove the connection anew; a ``dead`` one is replaced by a new one."""
        with self._lock:
            connection.proved = False
            for node in self._nodes:
                if node.connection is connection:
                    node.avoided_until = time.monotonic() + AVOIDED_S
                    if dead:
                        node.connection = None
            if dead:
                connection.retired = True
                if connection.users == 0:
                    connection.channel.close()

    def forget_token(self, connection: Connection, token: str | None) -> None:
        """The server doesn't know ``token``: sign in again before the next use."""
        if connection.token == token:
            connection.token = None
            connection.proved = False

    def close(self) -> None:
        """Close all channels; calls under way end with ``Unknown``."""
        with self._lock:
            self._closed = True
            for node in self._nodes:
                if node.connection is not None:
                    node.connection.channel.close()

    def _order(self) -> list[_Node]:
        """The node that answered last first, the ones that failed a moment ago last."""
        now = time.monotonic()
        start = self._nodes.index(self._preferred)
        turned = self._nodes[start:] + self._nodes[:start]
        return sorted(turned, key=lambda node: node.avoided_until > now)

    def _take_proved(self, node: _Node, limit_s: float) -> Connection:
        connection = self._take(node)
        try:
            self._prove(node, connection, limit_s)
        except BaseException:
            self._give_back(connection)
            raise
        return connection

    def _take(self, node: _Node) -> Connection:
        with self._lock:
            if self._closed:
                raise NotSent("the connection was closed")
            if node.connection is not None and not node.connection.proved:
                self._replace_if_rotated(node, node.connection)
            if node.connection is None:
                node.connection = Connection(node.endpoint, self._credentials.proof())
            node.connection.users += 1
            return node.connection

    def _replace_if_rotated(self, node: _Node, connection: Connection) -> None:
        """Drop a connection in doubt whose certificates are not the current ones; the lock is held."""
        if self._credentials.proof() is not connection.proof:
            node.connection, connection.retired = None, True
            if connection.users == 0:
                connection.channel.close()

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            connection.users -= 1
            if connection.retired and connection.users == 0:
                connection.channel.close()

    def _prove(self, node: _Node, connection: Connection, limit_s: float) -> None:
        """Return when the node answers, has a leader and knows us; raise ``NotSent`` when it doesn't."""
        if connection.proved:
            return
        deadline = time.monotonic() + limit_s
        try:
            status = _answer(connection.maintenance.Status, etcdrpc.StatusRequest(), limit_s, connection.metadata())
            if status.leader == 0:
                self.distrust(connection, dead=False)
                raise NotSent("it has no leader")
            connection.version = version_of(status.version)
            self._warn_of(node, connection.version)
            if self._address.user is not None and connection.token is None:
                self._sign_in(connection, None, deadline - time.monotonic())
        except NoAnswer as problem:
            self.distrust(connection, dead=True)
            raise NotSent(str(problem)) from problem
        except NotSent:
            self.distrust(connection, dead=False)
            raise
        except StaleToken as stale:
            raise NotSent(f"it asks for a user and a password: {stale}") from stale
        connection.proved = True

    def _ask(self, connection: Connection, ask: Callable[[Connection, float, Any], R], limit_s: float) -> R:
        deadline = time.monotonic() + limit_s
        token = connection.token
        try:
            try:
                return checked(lambda: ask(connection, limit_s, connection.metadata()))
            except StaleToken as stale:
                if self._address.user is None:
                    raise Refused(f"etcd at {connection.name} needs a user and a password ({stale})") from stale
                self._sign_in(connection, token, deadline - time.monotonic())
                left_s = max(deadline - time.monotonic(), 0.001)
                return checked(lambda: ask(connection, left_s, connection.metadata()))
        except (NoAnswer, NotSent):
            self.distrust(connection, dead=False)
            raise
        except StaleToken as stale:
            raise Refused(f"etcd at {connection.name} refused the token: {stale}") from stale

    def _sign_in(self, connection: Connection, stale: str | None, limit_s: float) -> None:
        """Get a new token, unless another thread got one since ``stale``."""
        with connection.signing_in:
            if connection.token != stale:
                return
            attempt = connection.attempt
            if attempt is None:
                request = etcdrpc.AuthenticateRequest(name=self._address.user, password=self._credentials.password())
                attempt = _begin(connection.auth.Authenticate, request)
                connection.attempt = attempt
        try:
            answer = checked(lambda: attempt.result(timeout=max(limit_s, 0.001)))
        except grpc.FutureTimeoutError as problem:  # it goes on; signing in changes nothing but the token
            raise NotSent("no answer while signing in") from problem
        except grpc.FutureCancelledError as problem:
            self._attempt_ended(connection, attempt)
            raise NotSent("the connection was closed") from problem
        except NoAnswer as problem:
            self._attempt_ended(connection, attempt)
            raise NotSent(f"signing in: {problem}") from problem
        except Refused as no:
            self._attempt_ended(connection, attempt)
            if "authentication is not enabled" not in str(no):
                raise Refused(f"user {self._address.user!r} can't sign in at {connection.name}: {no}") from no
            logger.warning("etcd asks for no user; the configured one is not used")
            return
        except (NotSent, StaleToken):
            self._attempt_ended(connection, attempt)
            raise
        self._attempt_ended(connection, attempt, token=answer.token)

    def _attempt_ended(self, connection: Connection, attempt: Any, token: str | None = None) -> None:
        """Of all that have waited for it, the first one notes what came of it."""
        with connection.signing_in:
            if connection.attempt is attempt:
                connection.attempt = None
                connection.token = token if token is not None else connection.token

    def _warn_of(self, node: _Node, version: tuple[int, ...]) -> None:
        if loses_changes(version) and node.warned_of != version:
            node.warned_of = version
            logger.bind(endpoint=_name(node), version=".".join(map(str, version))).warning(LOSES_CHANGES)


def _begin(call: Any, request: Any) -> Any:
    return checked(lambda: call.future(request, timeout=SIGN_IN_S))


def _answer(call: Any, request: Any, limit_s: float, metadata: Any) -> Any:
    return checked(lambda: call(request, timeout=limit_s, metadata=metadata))


def loses_changes(version: tuple[int, ...]) -> bool:
    """Whether such a server can lose changes after a crash (etcd's post-mortem of 3.5; 3.4 up to 3.4.21)."""
    return (3, 5, 0) <= version <= (3, 5, 2) or version == (3, 5, 5) or (0, 0, 0) < version <= (3, 4, 21)


def version_of(text: str) -> tuple[int, int, int]:
    """``3.5.16`` as numbers; zeros: it is none."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def _name(node: _Node) -> str:
    return f"{node.endpoint.host}:{node.endpoint.port}"
