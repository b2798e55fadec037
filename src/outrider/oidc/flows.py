"""Two ways to a token: a browser that comes back with a code (RFC 6749 with PKCE), and another device (RFC 8628)."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import requests

from outrider.core.errors import DriverError, Unauthorized, Unknown
from outrider.oidc.provider import MAX_BYTES, TIMEOUT_S, Metadata

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
LONGEST_S = 1800.0


class Attempt:
    """One login of one browser: all that must fit together is made of the secret that its cookie holds.

    So nothing is kept by the service, every process of it can end what another began, and who has only seen an address
    of the login (its state, its code) can do nothing with it.
    """

    def __init__(self, secret: str = "") -> None:
        self.secret = secret or secrets.token_urlsafe(32)

    @property
    def state(self) -> str:
        """Comes back with the browser."""
        return self._made("state")

    @property
    def nonce(self) -> str:
        """Comes back in the token."""
        return self._made("nonce")

    @property
    def verifier(self) -> str:
        """Of PKCE: only who has it gets a token for the code."""
        return self._made("verifier")

    def is_of(self, state: str) -> bool:
        """The browser that comes back is the one that began."""
        return hmac.compare_digest(self.state.encode(), state.encode("utf-8", "surrogateescape"))

    def _made(self, what: str) -> str:
        return hmac.new(self.secret.encode(), f"outrider login {what}".encode(), hashlib.sha256).hexdigest()


def _session(client_id: str, secret: str, verify: bool | str, **more: Any) -> Any:
    from authlib.integrations.requests_client import OAuth2Session

    method = "client_secret_basic" if secret else "none"
    session = OAuth2Session(
        client_id, secret or None, token_endpoint_auth_method=method, default_timeout=TIMEOUT_S, **more
    )
    session.trust_env = False
    session.verify = verify
    return session


@contextmanager
def _asked(what: str) -> Iterator[None]:
    """What a provider says no to is the user's; that it says nothing is nobody's."""
    from authlib.integrations.base_client import OAuthError

    try:
        yield
    except OAuthError as error:
        words = f"{error.error or 'refused'}{f': {error.description}' if error.description else ''}"
        raise Unauthorized(f"the identity provider refuses {what}: {words[:200]}") from error
    except (requests.RequestException, ValueError) as error:
        raise Unknown(f"the identity provider gives no answer to {what}: {str(error)[:200]}") from error


def authorization_url(
    metadata: Metadata, attempt: Attempt, *, client_id: str, redirect_uri: str, scopes: tuple[str, ...]
) -> str:
    """Where the browser goes.

    Raises:
        Unknown: the provider has no such address.
    """
    if not metadata.authorization_endpoint or not metadata.token_endpoint:
        raise Unknown(f"the identity provider {metadata.issuer} lets no browser in: it names no authorization_endpoint")
    session = _session(
        client_id, "", True, scope=_scope(scopes), redirect_uri=redirect_uri, code_challenge_method="S256"
    )
    url, _ = session.create_authorization_url(
        metadata.authorization_endpoint, state=attempt.state, nonce=attempt.nonce, code_verifier=attempt.verifier
    )
    return str(url)


def token_of_code(
    metadata: Metadata,
    attempt: Attempt,
    code: str,
    *,
    client_id: str,
    client_secret: str,
    redirect_uri: str,
    verify: bool | str,
) -> str:
    """The ID token for the code with which a browser came back.

    Raises:
        Unauthorized: the provider refuses it, as it was used, or is another browser's.
        Unknown: it gives no answer.
    """
    session = _session(client_id, client_secret, verify, redirect_uri=redirect_uri)
    with session, _asked("this login"):
        found = session.fetch_token(
            metadata.token_endpoint,
            grant_type="authorization_code",
            code=code,
            code_verifier=attempt.verifier,
            allow_redirects=False,
        )
    return _id_token(found)


class DeviceCode(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider says at the beginning of a login on another device."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str = ""
    expires_in: float = LONGEST_S
    interval: float = 5.0


def begin_device(metadata: Metadata, *, client_id: str, scopes: tuple[str, ...], verify: bool | str) -> DeviceCode:
    """Begin a login on another device.

    Raises:
        DriverError: the provider knows no such login.
        Unknown: it gives no answer.
    """
    if not metadata.device_authorization_endpoint:
        raise DriverError(f"the identity provider {metadata.issuer} has no device flow (device_authorization_endpoint)")
    try:
        answer = requests.post(
            metadata.device_authorization_endpoint,
            data={"client_id": client_id, "scope": _scope(scopes)},
            headers={"Accept": "application/json"},
            timeout=TIMEOUT_S,
            verify=verify,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise Unknown(f"the identity provider gives no answer: {str(error)[:200]}") from error
    if answer.status_code != 200:
        raise DriverError(f"the identity provider refuses the login (status {answer.status_code}): {answer.text[:200]}")
    try:
        return msgspec.json.decode(answer.content[:MAX_BYTES], type=DeviceCode)
    except msgspec.DecodeError as error:
        raise Unknown(f"the identity provider's answer can't be read: {error}") from error


class DeviceTokens(msgspec.Struct, frozen=True, kw_only=True):
    """What a login brought. ``refresh_token`` is empty where the provider gives none."""

    id_token: str
    refresh_token: str = ""


def await_device(
    metadata: Metadata,
    code: DeviceCode,
    *,
    client_id: str,
    verify: bool | str,
    sleep: Callable[[float], object] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> DeviceTokens:
    """Ask until the user has said yes or no on the other device, or the time is over.

    Raises:
        Unauthorized: the user said no, or nothing in time.
        Unknown: the provider gives no answer.
    """
    from authlib.integrations.base_client import OAuthError

    until, pause_s = monotonic() + min(code.expires_in, LONGEST_S), max(code.interval, 1.0)
    with _session(client_id, "", verify) as session:
        while monotonic() < until:
            sleep(pause_s)
            with _asked("this login"):
                try:
                    found = session.fetch_token(
                        metadata.token_endpoint,
                        grant_type=DEVICE_GRANT,
                        device_code=code.device_code,
                        client_id=client_id,
                        allow_redirects=False,
                    )
                except OAuthError as error:
                    if error.error == "slow_down":
                        pause_s += 5.0  # RFC 8628, 3.5
                    elif error.error != "authorization_pending":
                        raise
                    continue
            return DeviceTokens(id_token=_id_token(found), refresh_token=str(found.get("refresh_token") or ""))
    raise Unauthorized("nobody has confirmed the login in time; begin anew with `outrider login`")


def refresh(metadata: Metadata, refresh_token: str, *, client_id: str, verify: bool | str) -> DeviceTokens:
    """New tokens in place of those that end.

    Raises:
        Unauthorized: the provider refuses: the login has ended.
        Unknown: it gives no answer.
    """
    with _session(client_id, "", verify) as session, _asked("another token"):
        found = session.fetch_token(
            metadata.token_endpoint,
            grant_type="refresh_token",
            refresh_token=refresh_token,
            client_id=client_id,
            allow_redirects=False,
        )
    return DeviceTokens(id_token=_id_token(found), refresh_token=str(found.get("refresh_token") or refresh_token))


def _id_token(found: Mapping[str, Any]) -> str:
    token = found.get("id_token")
    if not isinstance(token, str) or not token:
        raise Unauthorized("the identity provider gave no ID token; it must know the scope openid for this client")
    return token


def _scope(scopes: tuple[str, ...]) -> str:
    return " ".join(dict.fromkeys(("openid", *scopes)))
