"""An issuer of tokens in this process: keys and signatures by jwcrypto, which is not what checks them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jwcrypto import jwk, jwt

from outrider.core.errors import Unknown
from outrider.oidc.provider import DISCOVERY, Provider
from outrider.oidc.settings import OidcSettings, RoleRule
from outrider.oidc.tokens import Tokens

ISSUER = "https://login.example.com/realm"
NOW = 1_790_000_000
RULES = (
    RoleRule(value="sre", role="admin"),
    RoleRule(value="shop-devs", role="operator", apps=("shop",)),
    RoleRule(value="staff", role="viewer"),
)
SETTINGS = OidcSettings(
    issuer=ISSUER, client_id="outrider", cli_client_id="outrider-cli", audiences=("robots",), roles=RULES
)


@dataclass
class Issuer:
    """Its keys, and whether it answers.

    Attributes:
        published: That it shows; the first one signs.
        asked: Addresses that were asked for.
        now_s: Its own clock, and that of who checks.
    """

    published: list[Any] = field(default_factory=lambda: [new_key("one")])
    asked: list[str] = field(default_factory=list)
    away: bool = False
    now_s: float = NOW
    since_s: float = 0.0
    metadata: dict[str, Any] = field(
        default_factory=lambda: {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/keys",
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
        }
    )

    def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if self.away:
            raise Unknown(f"{url}: connection refused")
        if url == ISSUER + DISCOVERY:
            return json.dumps(self.metadata).encode()
        return json.dumps({"keys": [json.loads(key.export_public()) for key in self.published]}).encode()

    def tokens(self, settings: OidcSettings = SETTINGS) -> Tokens:
        """What checks its tokens."""
        provider = Provider(ISSUER, self.fetch, monotonic=lambda: self.since_s)
        return Tokens(settings, provider, now=lambda: self.now_s)

    def token(self, *, key: Any = None, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A good token, but for what is said; a claim that is None is left out."""
        key = key or self.published[0]
        heading = {"alg": "RS256", "typ": "JWT", "kid": key.get("kid")} | dict(header or {})
        said = {
            "iss": ISSUER, "aud": "outrider", "sub": "u-1", "iat": int(self.now_s), "exp": int(self.now_s) + 600,
            "groups": ["staff"],
        } | claims  # fmt: skip
        made = jwt.JWT(
            header={name: value for name, value in heading.items() if value is not None},
            claims={name: value for name, value in said.items() if value is not None},
            algs=["RS256", "ES256", "HS256", "PS256", "EdDSA"],
        )
        made.make_signed_token(key)
        return str(made.serialize())


def new_key(kid: str, **more: Any) -> Any:
    """An RSA key pair, or of another kind."""
    return jwk.JWK.generate(**({"kty": "RSA", "size": 2048, "alg": "RS256"} | more), kid=kid, use="sig")
