"""Tokens of the identity provider: which count, and every way to forge one that was thought of."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from jwcrypto import jwk

from outrider.core.errors import ConfigError, Forbidden, Unauthorized, Unknown
from outrider.oidc.provider import KEPT_S, RETRY_S, discover
from outrider.oidc.settings import OidcSettings, load_oidc
from outrider.oidc.tokens import Granted, looks_like_one
from tests.oidc.issuer import ISSUER, NOW, SETTINGS, Issuer, new_key


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


def part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def test_who_has_a_token_is_called_by_its_claim_and_has_the_first_role_that_fits(issuer: Issuer) -> None:
    tokens = issuer.tokens()

    found = tokens.identity(issuer.token(groups=["staff", "shop-devs", "others"]))

    assert ("oidc:u-1", ("shop-devs", "staff")) == (found.name, found.values)
    assert Granted(role="operator", apps=("shop",)) == tokens.granted(found)


@pytest.mark.parametrize("audience", ["outrider", "outrider-cli", "robots", ["others", "robots"]])
def test_a_token_may_be_for_each_of_the_audiences(issuer: Issuer, audience: object) -> None:
    assert "oidc:u-1" == issuer.tokens().identity(issuer.token(aud=audience)).name


@pytest.mark.parametrize(("kty", "algorithm"), [("EC", "ES256"), ("OKP", "EdDSA"), ("RSA", "PS256")])
def test_other_asymmetric_algorithms_count(issuer: Issuer, kty: str, algorithm: str) -> None:
    kinds: dict[str, dict[str, Any]] = {"EC": {"crv": "P-256"}, "OKP": {"crv": "Ed25519"}, "RSA": {"size": 2048}}
    issuer.published = [jwk.JWK.generate(kty=kty, kid="other", **kinds[kty])]

    assert "oidc:u-1" == issuer.tokens().identity(issuer.token(header={"alg": algorithm})).name


def test_a_role_claim_is_found_inside_of_objects_and_by_a_name_with_dots(issuer: Issuer) -> None:
    inside = msgspec.structs.replace(SETTINGS, role_claim="realm_access.roles")
    named = msgspec.structs.replace(SETTINGS, role_claim="https://example.com/roles")
    claims: dict[str, Any] = {"https://example.com/roles": "sre"}

    assert ("sre",) == issuer.tokens(inside).identity(issuer.token(realm_access={"roles": ["sre"]})).values
    assert ("sre",) == issuer.tokens(named).identity(issuer.token(**claims)).values


@pytest.mark.parametrize("groups", [None, [], "strangers", ["SRE"], [["sre"]], {"sre": True}, 7, "sre,staff"])
def test_without_a_value_that_a_rule_names_nobody_has_a_role(issuer: Issuer, groups: object) -> None:
    tokens = issuer.tokens()

    with pytest.raises(Forbidden, match="has no role here"):
        tokens.granted(tokens.identity(issuer.token(groups=groups)))


def alg_none(issuer: Issuer) -> str:
    claims = {"iss": ISSUER, "aud": "outrider", "sub": "u-1", "iat": NOW, "exp": NOW + 600, "groups": ["sre"]}
    return f"{part({'alg': 'none'})}.{part(claims)}."


def alg_none_with_signature(issuer: Issuer) -> str:
    good = issuer.token().split(".")
    return ".".join([part({"alg": "NONE", "kid": "one"}), *good[1:]])


def public_key_as_secret(issuer: Issuer) -> str:
    """HS256, with the bytes of the published key as the secret."""
    pem = issuer.published[0].export_to_pem()
    secret = jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(pem).decode().rstrip("="), kid="one")
    return issuer.token(key=secret, header={"alg": "HS256"}, groups=["sre"])


def own_key_in_the_header(issuer: Issuer) -> str:
    own = new_key("one")
    return issuer.token(key=own, header={"jwk": json.loads(own.export_public())}, groups=["sre"])


def own_key_by_address(issuer: Issuer) -> str:
    own = new_key("mine")
    return issuer.token(key=own, header={"jku": "https://evil.example/keys", "x5u": "https://evil.example/x"})


def same_kid_other_key(issuer: Issuer) -> str:
    return issuer.token(key=new_key("one"))


def changed_claims(issuer: Issuer) -> str:
    head, claims, signature = issuer.token().split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    return f"{head}.{part(said | {'groups': ['sre']})}.{signature}"


def ecdsa_of_zeros(issuer: Issuer) -> str:
    """A signature of zeros, as verifiers of ECDSA once took (CVE-2022-21449)."""
    issuer.published = [jwk.JWK.generate(kty="EC", crv="P-256", kid="ec")]
    head, claims, _ = issuer.token(header={"alg": "ES256"}).split(".")
    return f"{head}.{claims}.{base64.urlsafe_b64encode(bytes(64)).decode().rstrip('=')}"


def algorithm_of_another_key_type(issuer: Issuer) -> str:
    ec = jwk.JWK.generate(kty="EC", crv="P-256", kid="one")
    return issuer.token(key=ec, header={"alg": "ES256"})


def unknown_critical_header(issuer: Issuer) -> str:
    head, claims, signature = issuer.token().split(".")
    said = json.loads(base64.urlsafe_b64decode(head + "=="))
    return f"{part(said | {'crit': ['exp'], 'exp': 1})}.{claims}.{signature}"


FORGED: tuple[Callable[[Issuer], str], ...] = (
    alg_none, alg_none_with_signature, public_key_as_secret, own_key_in_the_header, own_key_by_address,
    same_kid_other_key, changed_claims, ecdsa_of_zeros, algorithm_of_another_key_type, unknown_critical_header,
)  # fmt: skip


@pytest.mark.parametrize("forge", FORGED, ids=lambda one: one.__name__)
def test_a_forged_token_is_refused_and_leads_nowhere(issuer: Issuer, forge: Callable[[Issuer], str]) -> None:
    tokens = issuer.tokens()
    token = forge(issuer)

    with pytest.raises(Unauthorized):
        tokens.identity(token)
    assert all(url.startswith(ISSUER) for url in issuer.asked)


WRONG: tuple[tuple[str, dict[str, Any]], ...] = (
    ("another issuer", {"iss": "https://login.example.com/other"}),
    ("the issuer with a slash", {"iss": f"{ISSUER}/"}),
    ("no issuer", {"iss": None}),
    ("issuers in a list", {"iss": [ISSUER, "https://evil.example"]}),
    ("another audience", {"aud": "somebody-else"}),
    ("no audience", {"aud": None}),
    ("an empty audience", {"aud": ""}),
    ("an empty list of audiences", {"aud": []}),
    ("an audience that is like ours", {"aud": "outrider "}),
    ("several, made for somebody else", {"aud": ["outrider", "others"], "azp": "others"}),
    ("expired", {"iat": NOW - 4000, "exp": NOW - 61}),
    ("no end", {"exp": None}),
    ("an end in words", {"exp": "tomorrow"}),
    ("an end that is true", {"exp": True}),
    ("not valid yet", {"nbf": NOW + 61}),
    ("made in the future", {"iat": NOW + 61}),
    ("no beginning", {"iat": None}),
    ("for a year", {"exp": NOW + 365 * 86400}),
    ("nobody", {"sub": None}),
    ("an empty name", {"sub": ""}),
    ("a name in parentheses with a space", {"sub": "(this machine)"}),
    ("a name with a line break", {"sub": "ann\nadmin"}),
    ("a name too long", {"sub": "a" * 201}),
    ("a name that is a number", {"sub": 1}),
)


@pytest.mark.parametrize("claims", [claims for _, claims in WRONG], ids=[words for words, _ in WRONG])
def test_a_token_that_is_not_for_us_now_is_refused(issuer: Issuer, claims: dict[str, Any]) -> None:
    tokens = issuer.tokens()

    with pytest.raises(Unauthorized):
        tokens.identity(issuer.token(**claims))


@pytest.mark.parametrize(
    "claims",
    [{"iat": NOW - 4000, "exp": NOW - 59}, {"nbf": NOW + 59}, {"iat": NOW + 59}],
    ids=["just over", "just not yet", "from a clock that goes before ours"],
)
def test_a_clock_may_differ_a_little(issuer: Issuer, claims: dict[str, Any]) -> None:
    assert "oidc:u-1" == issuer.tokens().identity(issuer.token(**claims)).name


@pytest.mark.parametrize("kind", ["logout+jwt", "dpop+jwt", "secevent+jwt", "JOSE"])
def test_a_token_of_another_purpose_is_none_to_log_in_with(issuer: Issuer, kind: str) -> None:
    tokens = issuer.tokens()

    with pytest.raises(Unauthorized, match="it is a"):
        tokens.identity(issuer.token(header={"typ": kind}))


def test_an_access_token_in_the_form_of_a_jwt_counts(issuer: Issuer) -> None:
    assert "oidc:u-1" == issuer.tokens().identity(issuer.token(header={"typ": "at+jwt"}, aud="robots")).name


@pytest.mark.parametrize("verified", [None, False, "true", 1])
def test_an_address_counts_only_when_the_provider_has_verified_it(issuer: Issuer, verified: object) -> None:
    tokens = issuer.tokens(msgspec.structs.replace(SETTINGS, name_claim="email"))

    with pytest.raises(Unauthorized, match="email_verified"):
        tokens.identity(issuer.token(email="ann@example.com", email_verified=verified))
    assert "oidc:ann@example.com" == tokens.identity(issuer.token(email="ann@example.com", email_verified=True)).name


def test_a_page_takes_its_own_tokens_alone_and_of_this_login(issuer: Issuer) -> None:
    tokens = issuer.tokens()

    assert tokens.identity(issuer.token(nonce="n1"), audiences=("outrider",), nonce="n1")
    with pytest.raises(Unauthorized, match="another login"):
        tokens.identity(issuer.token(nonce="n2"), audiences=("outrider",), nonce="n1")
    with pytest.raises(Unauthorized, match="another login"):
        tokens.identity(issuer.token(), audiences=("outrider",), nonce="n1")
    with pytest.raises(Unauthorized, match="aud"):
        tokens.identity(issuer.token(aud="outrider-cli", nonce="n1"), audiences=("outrider",), nonce="n1")


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_new_key_counts_at_once_and_one_that_is_gone_within_the_hour(issuer: Issuer) -> None:
    tokens = issuer.tokens()
    old = issuer.token()
    tokens.identity(old)
    issuer.published = [new_key("two")]
    issuer.since_s += RETRY_S

    assert tokens.identity(issuer.token())
    with pytest.raises(Unauthorized, match="no key that the provider has now"):
        tokens.identity(old)


def test_forged_keys_make_few_requests(issuer: Issuer) -> None:
    tokens = issuer.tokens()
    tokens.identity(issuer.token())
    asked = len(issuer.asked)
    for number in range(50):
        with pytest.raises(Unauthorized):
            tokens.identity(issuer.token(header={"kid": f"forged-{number}"}))

    assert asked == len(issuer.asked)
    issuer.since_s += RETRY_S
    for number in range(50):
        with pytest.raises(Unauthorized):
            tokens.identity(issuer.token(header={"kid": f"forged-{number}"}))
    assert asked + 2 == len(issuer.asked)


def test_while_the_provider_is_away_known_keys_count_for_a_day_and_then_nobody_is_let_in(issuer: Issuer) -> None:
    tokens = issuer.tokens()
    tokens.identity(issuer.token())
    issuer.away = True

    issuer.since_s = KEPT_S - 1
    assert tokens.identity(issuer.token())
    issuer.since_s = KEPT_S
    with pytest.raises(Unknown, match=r"gives no answer: .*connection refused"):
        tokens.identity(issuer.token())
    issuer.away, issuer.since_s = False, KEPT_S + RETRY_S
    assert tokens.identity(issuer.token())


def test_a_provider_that_was_never_there_lets_nobody_in(issuer: Issuer) -> None:
    issuer.away = True
    tokens = issuer.tokens()

    for _ in range(20):
        with pytest.raises(Unknown, match="gives no answer"):
            tokens.identity(issuer.token())
    assert 1 == len(issuer.asked)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"issuer": "https://evil.example"}, "is of the issuer"),
        ({"jwks_uri": "http://login.example.com/keys"}, "plain http"),
        ({"token_endpoint": "file:///etc/passwd"}, "token_endpoint"),
        ({"jwks_uri": None}, "jwks_uri"),
    ],
)
def test_what_a_provider_says_of_itself_is_not_believed_blindly(
    issuer: Issuer, said: dict[str, object], words: str
) -> None:
    issuer.metadata |= said

    with pytest.raises(Unknown, match=words):
        discover(ISSUER, issuer.fetch)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"keys": 7}', b'{"keys": []}', b'{"keys": [{"kty": "RSA"}]}', b"\xff"]
)
def test_keys_that_are_none_are_no_answer(issuer: Issuer, body: bytes) -> None:
    plain = issuer.fetch
    issuer.fetch = lambda url: body if url.endswith("/keys") else plain(url)  # type: ignore[method-assign]

    with pytest.raises(Unknown):
        issuer.tokens().identity(issuer.token())


def test_a_secret_among_the_keys_is_never_one_of_them(issuer: Issuer) -> None:
    """A provider that publishes a symmetric key by mistake."""
    secret = jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(b"k" * 32).decode().rstrip("="), kid="oct")
    plain = issuer.fetch

    def fetch(url: str) -> bytes:
        body = json.loads(plain(url))
        if url.endswith("/keys"):
            body["keys"].append(json.loads(secret.export()))
        return json.dumps(body).encode()

    issuer.fetch = fetch  # type: ignore[method-assign]
    with pytest.raises(Unauthorized):
        issuer.tokens().identity(issuer.token(key=secret, header={"alg": "HS256"}))


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=200), junk=st.binary(max_size=200))
def test_junk_is_refused_and_nothing_else(text: str, junk: bytes) -> None:
    issuer = Issuer(published=[KEY])
    tokens = issuer.tokens()
    pieces = [base64.urlsafe_b64encode(junk).decode().rstrip("=") or "x"] * 3
    head, claims, signature = issuer.token().split(".")
    for token in (text, ".".join(pieces), f"{head}.{pieces[0]}.{signature}", f"{pieces[0]}.{claims}.{signature}"):
        with pytest.raises(Unauthorized):
            tokens.identity(token)


KEY = new_key("one")


def test_our_own_tokens_do_not_look_like_one() -> None:
    from outrider.service.store.users import new_token

    assert not any(looks_like_one(new_token()) for _ in range(200))


# --- the file -------------------------------------------------------------------------------------------------------

GOOD = f'issuer = "{ISSUER}"\nclient_id = "outrider"\n[[roles]]\nvalue = "sre"\nrole = "admin"\n'


def loaded(folder: Path, text: str) -> OidcSettings:
    path = folder / "oidc.toml"
    path.write_text(text)
    return load_oidc(path)


def test_a_short_file_is_enough(tmp_path: Path) -> None:
    found = loaded(tmp_path, GOOD)

    assert (("outrider",), "groups", "sub") == (found.all_audiences, found.role_claim, found.name_claim)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("https://", "http://"), "plain http"),
        (GOOD.replace("client_id", "clientid"), "clientid"),
        (GOOD.replace('"admin"', '"root"'), "root"),
        (GOOD + 'apps = ["shop"]\n', "can't be limited"),
        (GOOD.replace('"sre"', '""'), "empty value"),
        (GOOD.split("[[", maxsplit=1)[0], "roles"),
        (GOOD.split("[[", maxsplit=1)[0] + "roles = []\n", "nobody gets a role"),
        ("clock_skew_s = 3600\n" + GOOD, "clock_skew_s"),
        ("session_h = 0\n" + GOOD, "session_h"),
        ('client_secret_file = "/nonexistent"\n' + GOOD, "client_secret_file"),
        (GOOD.replace('"outrider"', '""'), "client_id is empty"),
        ("issuer =", "oidc.toml"),
    ],
)
def test_a_file_that_cannot_be_used_says_what(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        loaded(tmp_path, text)


def test_the_key_of_the_attack_is_what_the_provider_publishes(issuer: Issuer) -> None:
    """So that ``public_key_as_secret`` tries what it says."""
    pem = issuer.published[0].export_to_pem()

    assert serialization.load_pem_public_key(pem)
