"""What an identity provider says of itself: its addresses and its keys, asked for rarely and kept for a while.

Keys are read again once an hour, and when a token names one that isn't known; the latter at most every ten seconds, so
that forged tokens make no requests. While the provider gives no answer the keys of the last day count. Then nobody is
let in: without keys nothing can be proved.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from loguru import logger

from outrider.core.errors import ConfigError, DriverError, Unknown
from outrider.http import NoAnswer, get
from outrider.oidc.settings import issuer_problem

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

TIMEOUT_S = 5.0
MAX_BYTES = 256 * 1024
FRESH_S = 3600.0
KEPT_S = 24 * 3600.0
"""For how long keys count that couldn't be read again."""
RETRY_S = 10.0
"""Between two requests that something unknown, or a failure, is the reason of."""
WAIT_S = 5.0
"""For another thread that asks the provider already."""
DISCOVERY = "/.well-known/openid-configuration"
_SIGNING = frozenset({"RSA", "EC", "OKP"})


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What discovery says, as far as it is used."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    device_authorization_endpoint: str = ""


Fetch = Callable[[str], bytes]


def fetcher(verify: bool | str) -> Fetch:
    """Asks over the network, without following redirections."""

    def fetch(url: str) -> bytes:
        try:
            answer = get(url, timeout_s=TIMEOUT_S, max_bytes=MAX_BYTES, verify=verify)
        except NoAnswer as error:
            raise Unknown(f"{url}: {error}") from error
        if answer.status != 200:
            raise Unknown(f"{url}: status {answer.status}")
        if len(answer.body) > MAX_BYTES:
            raise Unknown(f"{url}: more than {MAX_BYTES} bytes")
        return answer.body

    return fetch


def discover(issuer: str, fetch: Fetch) -> Metadata:
    """What a provider says of itself.

    Raises:
        Unknown: it gives no answer, or none that can be believed.
    """
    url = issuer.rstrip("/") + DISCOVERY
    try:
        found = msgspec.json.decode(fetch(url), type=Metadata)
    except msgspec.DecodeError as error:
        raise Unknown(f"{url}: {error}") from error
    if found.issuer != issuer:
        raise Unknown(f"{url} is of the issuer {found.issuer[:200]!r}, not of {issuer!r}")
    for name in ("jwks_uri", "authorization_endpoint", "token_endpoint", "device_authorization_endpoint"):
        address = getattr(found, name)
        if address and (problem := issuer_problem(address.partition("?")[0])):
            raise Unknown(f"{url}: {name} {address[:200]!r}: {problem}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    metadata: Metadata
    keys: "KeySet"
    at_s: float


class Provider:
    """One provider. Safe to use from several threads; asks it as rarely as it can."""

    def __init__(self, issuer: str, fetch: Fetch, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.issuer = issuer
        self._fetch, self._monotonic = fetch, monotonic
        self._lock = threading.Lock()
        self._read: _Read | None = None
        self._tried_s = float("-inf")
        self._problem = "not asked yet"

    def metadata(self) -> Metadata:
        """Its addresses.

        Raises:
            Unknown: it gives no answer.
        """
        return self._known(lambda read: True).metadata

    def keys(self, kid: str | None) -> "KeySet":
        """Its keys; with the one that is called ``kid``, if there is one.

        Raises:
            Unknown: it gives no answer, and no keys are known that still count.
        """
        return self._known(lambda read: kid is None or any(key.kid == kid for key in read.keys)).keys

    def _known(self, suffices: Callable[[_Read], bool]) -> _Read:
        read, now = self._read, self._monotonic()
        if read is not None and now - read.at_s < FRESH_S and suffices(read):
            return read
        if now - self._tried_s >= RETRY_S and self._lock.acquire(timeout=0.0 if read is not None else WAIT_S):
            try:
                self._ask(self._monotonic())
            finally:
                self._lock.release()
        read = self._read
        if read is None or self._monotonic() - read.at_s >= KEPT_S:
            raise Unknown(f"the identity provider {self.issuer} gives no answer: {self._problem}; try again later")
        return read

    def _ask(self, now: float) -> None:
        if now - self._tried_s < RETRY_S:  # another thread was faster
            return
        self._tried_s = now
        try:
            metadata = discover(self.issuer, self._fetch)
            keys = read_keys(self._fetch(metadata.jwks_uri), metadata.jwks_uri)
        except DriverError as error:
            self._problem = str(error)
            logger.bind(issuer=self.issuer, cause=str(error), retry=True).warning("identity provider not read")
            return
        self._read = _Read(metadata=metadata, keys=keys, at_s=now)


def read_keys(body: bytes, where: str) -> "KeySet":
    """The keys that sign tokens: public ones alone. A key that can't be used is left out, as RFC 7517 has it.

    Raises:
        Unknown: it is no set of keys, or there is none to use.
    """
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry, KeySet

    try:
        content: Mapping[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
        listed = msgspec.convert(content.get("keys"), list[dict[str, Any]])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Unknown(f"{where}: {error}") from error
    keys = []
    for one in listed[:100]:
        if one.get("kty") not in _SIGNING or one.get("use") not in (None, "sig"):
            continue
        try:
            keys.append(JWKRegistry.import_key({name: value for name, value in one.items() if name != "d"}))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            logger.bind(kid=str(one.get("kid"))[:100], cause=str(error)).warning("key of the provider not read")
    if not keys:
        raise Unknown(f"{where}: no key that signs tokens")
    return KeySet(keys)


def require_libraries() -> None:
    """Refuse to go on without the extra.

    Raises:
        ConfigError: it is missing.
    """
    try:
        import authlib
        import joserfc
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"an identity provider needs the package {error.name}: pip install 'outrider[oidc]'"
        ) from error
    del authlib, joserfc
