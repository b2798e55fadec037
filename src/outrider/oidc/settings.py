"""The file that ``outrider serve --oidc`` names: which provider is trusted, and who gets which role."""

import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from outrider.core.addresses import http_problem, is_loopback
from outrider.core.errors import ConfigError
from outrider.model.documents import Role

MAX_SKEW_S = 300.0
MAX_SESSION_H = 168.0


class RoleRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[roles]]``: who has ``value`` in the role claim gets ``role``.

    Attributes:
        apps: The role holds for these alone; empty: for all.
    """

    value: str
    role: Role
    apps: tuple[str, ...] = ()


class OidcSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file.

    Attributes:
        issuer: Of the provider, as its tokens name it; what it says of itself is below it.
        client_id: Of the web page; tokens must be for it, for ``cli_client_id`` or for one of ``audiences``.
        client_secret_file: Of the web page's client, unless that is a public one.
        cli_client_id: Of ``outrider login``, a public client that may use the device flow; empty: ``client_id``.
        audiences: For whom tokens may be besides, as programs have them.
        name_claim: What a user is called by. ``email`` counts only when the provider has verified it.
        role_claim: Where the values of ``roles`` stand; dots lead into objects (``realm_access.roles``).
        scopes: That are asked for, besides ``openid``.
        ca_file: PEM file of the authorities of the provider's certificate.
        clock_skew_s: By how much the provider's clock may differ from ours.
        session_h: Hours after which a session of the page ends, and its user logs in anew.
        roles: The first one that fits counts.
    """

    issuer: str
    client_id: str
    client_secret_file: str = ""
    cli_client_id: str = ""
    audiences: tuple[str, ...] = ()
    name_claim: str = "sub"
    role_claim: str = "groups"
    scopes: tuple[str, ...] = ()
    ca_file: str = ""
    clock_skew_s: float = 60.0
    session_h: float = 8.0
    roles: tuple[RoleRule, ...]

    @property
    def verify(self) -> bool | str:
        """What proves the provider's certificate."""
        return self.ca_file or True

    @property
    def device_client_id(self) -> str:
        """Of ``outrider login``."""
        return self.cli_client_id or self.client_id

    @property
    def all_audiences(self) -> tuple[str, ...]:
        """For whom a token of the API may be."""
        return tuple(dict.fromkeys((self.client_id, self.device_client_id, *self.audiences)))

    def client_secret(self) -> str:
        """Of the web page's client; empty: it is a public one.

        Raises:
            ConfigError: the file can't be read.
        """
        if not self.client_secret_file:
            return ""
        try:
            return Path(self.client_secret_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"client_secret_file {self.client_secret_file}: {error}") from error


def load_oidc(path: Path) -> OidcSettings:
    """Read the file.

    Raises:
        ConfigError: it can't be read, or says something that can't be used.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        settings = msgspec.convert(content, OidcSettings)
        problem = _problem(settings)
        settings.client_secret()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError, ConfigError) as error:
        raise ConfigError(f"--oidc {path}: {error}") from error
    if problem:
        raise ConfigError(f"--oidc {path}: {problem}")
    return settings


def issuer_problem(issuer: str) -> str:
    """What is wrong with the address of a provider; empty: nothing."""
    if problem := http_problem(issuer):
        return problem
    parts = urlsplit(issuer)
    if parts.query or parts.fragment:
        return "an issuer has neither a query nor a fragment"
    if parts.scheme != "https" and not is_loopback(issuer):
        return "plain http beyond this machine: whoever is on the way could let himself in; write https"
    return ""


def _problem(settings: OidcSettings) -> str:
    if problem := issuer_problem(settings.issuer):
        return f"issuer {settings.issuer[:200]!r}: {problem}"
    if not settings.client_id:
        return "client_id is empty"
    if "" in settings.audiences or "" in settings.scopes or not settings.name_claim or not settings.role_claim:
        return "audiences, scopes, name_claim, role_claim: no empty texts"
    if not 0 <= settings.clock_skew_s <= MAX_SKEW_S:
        return f"clock_skew_s: from 0 to {MAX_SKEW_S:g}"
    if not 0 < settings.session_h <= MAX_SESSION_H:
        return f"session_h: more than 0, at most {MAX_SESSION_H:g}"
    if not settings.roles:
        return "nobody gets a role: write [[roles]] with value and role"
    for rule in settings.roles:
        if not rule.value:
            return "roles: an empty value"
        if rule.role == "admin" and rule.apps:
            return f"roles: {rule.value!r}: an admin can't be limited to apps; choose operator, or no apps"
    return ""
