"""Whether a token of the identity provider counts, and who has it.

The signature must be by a key that the provider publishes now, with an asymmetric algorithm; the token must be of this
issuer, for us, and of the present time. Which kind of token it is doesn't matter further: an ID token as people get it,
or an access token in the form of a JWT as programs do. Keys and addresses that a token names itself are never used.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outrider.core.errors import Forbidden, Unauthorized
from outrider.model.documents import Role
from outrider.oidc.provider import Provider
from outrider.oidc.settings import OidcSettings

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
"""None of them works with a secret: a public key must not be one."""
TYPES = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
"""Of a token's ``typ``: one for a logout, or another purpose, isn't one to log in with."""
MAX_BYTES = 12 * 1024
MAX_LIFE_S = 24 * 3600.0
PREFIX = "oidc:"
"""Of such users' names: no user of our own can have one."""
_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_NAME = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who has a token.

    Attributes:
        name: With ``PREFIX``.
        values: Of the role claim, those that some rule names.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The role of somebody, and the apps for which it holds; empty: all."""

    role: Role
    apps: tuple[str, ...]


def looks_like_one(token: str) -> bool:
    """A JWT, by its form: our own tokens have no dots."""
    return _JWT.fullmatch(token) is not None


class Tokens:
    """Checks tokens of one provider."""

    def __init__(self, settings: OidcSettings, provider: Provider, *, now: Callable[[], float] = time.time) -> None:
        self.settings, self.provider, self._now = settings, provider, now

    def identity(self, token: str, *, audiences: Sequence[str] = (), nonce: str = "") -> Identity:
        """Who has the token.

        Args:
            audiences: For whom it must be; none: for anybody of the settings.
            nonce: That it must contain; empty: whichever.

        Raises:
            Unauthorized: it doesn't count; the text says why.
            Unknown: the provider gives no answer, so that nothing can be proved.
        """
        claims = self._claims(token, audiences or self.settings.all_audiences)
        if nonce and claims.get("nonce") != nonce:
            raise Unauthorized("the identity provider's token is of another login")
        return Identity(name=PREFIX + self._name(claims), values=self._values(claims))

    def granted(self, identity: Identity) -> Granted:
        """The role that the settings give.

        Raises:
            Forbidden: none.
        """
        for rule in self.settings.roles:
            if rule.value in identity.values:
                return Granted(role=rule.role, apps=tuple(sorted(rule.apps)))
        raise Forbidden(
            f"{identity.name} has no role here: none of the values that count is in the claim"
            f" {self.settings.role_claim!r} of the token"
        )

    def _claims(self, token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError

        if len(token) > MAX_BYTES or not looks_like_one(token):
            raise Unauthorized("the identity provider's token has not the form of one")
        try:
            found = jwt.decode(token, self._key, algorithms=list(ALGORITHMS))
            self._check(found.claims, audiences)
        except JoseError as error:
            raise Unauthorized(f"the identity provider's token doesn't count: {_words(error)}") from error
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise Unauthorized("the identity provider's token can't be read") from error
        return found.claims

    def _key(self, signed: Any) -> Any:
        """The key that a token names, of those that the provider publishes, and for the algorithm that it names."""
        headers = signed.headers()
        kid, algorithm, kind = headers.get("kid"), headers.get("alg"), headers.get("typ", "")
        if algorithm not in ALGORITHMS:
            raise Unauthorized(f"the identity provider's token doesn't count: the algorithm {str(algorithm)[:20]!r}")
        if not isinstance(kind, str) or kind.lower() not in TYPES:
            raise Unauthorized(f"the identity provider's token doesn't count: it is a {str(kind)[:40]!r}")
        if kid is not None and not isinstance(kid, str):
            raise Unauthorized("the identity provider's token doesn't count: it names no key")
        keys = [key for key in self.provider.keys(kid) if key.get("alg") in (None, algorithm)]
        fitting = [key for key in keys if key.kid == kid] if kid is not None else keys
        if len(fitting) != 1:
            raise Unauthorized("the identity provider's token doesn't count: it is by no key that the provider has now")
        return fitting[0]

    def _check(self, claims: Mapping[str, Any], audiences: Sequence[str]) -> None:
        from joserfc.jwt import JWTClaimsRegistry

        registry = JWTClaimsRegistry(
            now=int(self._now()),
            leeway=int(self.settings.clock_skew_s),
            iss={"essential": True, "value": self.settings.issuer},
            aud={"essential": True, "values": list(audiences)},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        registry.validate(dict(claims))
        party = claims.get("azp")
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and party is not None and party not in audiences:
            raise Unauthorized("the identity provider's token doesn't count: it was made for somebody else (azp)")
        if claims["exp"] - claims["iat"] > MAX_LIFE_S:
            raise Unauthorized(
                f"the identity provider's token doesn't count: it lives longer than {MAX_LIFE_S / 3600:g} hours"
            )

    def _name(self, claims: Mapping[str, Any]) -> str:
        claim = self.settings.name_claim
        name = claims.get(claim)
        if claim == "email" and claims.get("email_verified") is not True:
            raise Unauthorized("the identity provider has not verified the user's email address (email_verified)")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Unauthorized(f"the identity provider's token has no name that can be used in the claim {claim!r}")
        return name

    def _values(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        found: Any = claims.get(self.settings.role_claim)
        if found is None:
            found = claims
            for part in self.settings.role_claim.split("."):
                found = found.get(part) if isinstance(found, dict) else None
        listed = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        named = {rule.value for rule in self.settings.roles}
        return tuple(sorted({value for value in listed if isinstance(value, str) and value in named}))


def _words(error: Exception) -> str:
    kind = getattr(error, "error", "") or type(error).__name__
    words = getattr(error, "description", "") or ""
    return f"{str(kind).replace('_', ' ')}{f': {words}' if words else ''}"[:200]
