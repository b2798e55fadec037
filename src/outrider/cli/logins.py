"""Logins at identity providers, one for each update service: ``logins.json`` beside the contexts, for its owner alone.

A token is shown only to the service for which its user has logged in. One that ends is replaced by itself, if the
provider has given what that needs; commands that run at the same time do that one after the other.
"""

import base64
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from outrider.cli import contexts
from outrider.core.errors import ConfigError, Unauthorized, Unknown

SPARE_S = 30.0
"""A token that ends so soon is replaced: the command may take a moment."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A login.

    Attributes:
        ca_file: PEM file of the authorities of the provider's certificate; empty: those of this machine.
        until_s: When the token ends, in Unix time.
    """

    issuer: str
    client_id: str
    ca_file: str = ""
    token: str
    refresh_token: str = ""
    until_s: float

    @property
    def verify(self) -> bool | str:
        return self.ca_file or True


def path() -> Path:
    """Where the logins are."""
    return contexts.folder() / "logins.json"


def save(server: str, login: Login | None) -> None:
    """Keep the login at ``server``; None: forget it.

    Raises:
        ConfigError: it can't be written down.
    """
    with _locked():
        _save(server, login)


def find(server: str) -> Login | None:
    """The login at ``server``; None: there is none."""
    return _read().get(server)


def token_for(server: str, *, now_s: float | None = None) -> str:
    """The token to show to ``server``; empty: nobody has logged in there. One that ends is replaced.

    Raises:
        Unauthorized: the login is over.
        Unknown: the provider gives no answer.
        ConfigError: the file can't be read, or the extra is missing.
    """
    now_s = time.time() if now_s is None else now_s
    login = find(server)
    if login is None or login.until_s - now_s > SPARE_S:
        return "" if login is None else login.token
    with _locked():
        login = find(server)  # another command may have replaced it
        if login is None or login.until_s - now_s > SPARE_S:
            return "" if login is None else login.token
        return _replaced(server, login, now_s)


def _replaced(server: str, login: Login, now_s: float) -> str:
    over = f"your login at {server} has ended; log in anew: outrider login --server {server}"
    if not login.refresh_token:
        if login.until_s > now_s:
            return login.token
        raise Unauthorized(over)
    from outrider.oidc.flows import refresh
    from outrider.oidc.provider import discover, fetcher, require_libraries

    require_libraries()
    try:
        metadata = discover(login.issuer, fetcher(login.verify))
        fresh = refresh(metadata, login.refresh_token, client_id=login.client_id, verify=login.verify)
    except Unauthorized as error:
        raise Unauthorized(f"{over} ({error})") from error
    except Unknown:
        if login.until_s > now_s:
            return login.token
        raise
    found = msgspec.structs.replace(
        login, token=fresh.id_token, refresh_token=fresh.refresh_token, until_s=end_of(fresh.id_token)
    )
    _save(server, found)
    return found.token


def end_of(token: str) -> float:
    """When a token ends, in Unix time: by its own word, which is enough to know when to ask for another.

    Raises:
        Unknown: it can't be read.
    """
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return float(claims["exp"])
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise Unknown("the identity provider gave a token that can't be read") from error


def _read() -> dict[str, Login]:
    try:
        return msgspec.json.decode(path().read_bytes(), type=dict[str, Login])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path()}: {error}; remove it, and log in anew") from error


def _save(server: str, login: Login | None) -> None:
    known = _read()
    if login is None:
        known.pop(server, None)
    else:
        known[server] = login
    file = path()
    fresh = file.with_name(f".{file.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(msgspec.json.encode(known))
        fresh.replace(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error


@contextmanager
def _locked() -> Iterator[None]:
    file = path().with_name(".logins.lock")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
