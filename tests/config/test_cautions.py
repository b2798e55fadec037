"""What works and is a risk is said at the start, and shown to the fleet."""

import pytest

from outrider.config.cautions import cautions, trust_cautions, unproved, unverified
from outrider.config.load import load_settings
from outrider.config.sections import ServiceSettings, TrustSettings
from outrider.core.errors import ConfigError
from tests.trust.minisigning import VECTORS

INSTANCE = {
    "OUTRIDER_INSTANCE_APP": "shop",
    "OUTRIDER_INSTANCE_GROUP": "web",
    "OUTRIDER_INSTANCE_BALANCER": "none",
    "OUTRIDER_PROCESS_COMMAND": "./app",
}


@pytest.mark.parametrize("url", ["http://updates.example:8000", "http://10.0.0.7", "HTTP://[fd00::1]:8000"])
def test_plain_http_to_another_machine_is_a_risk(url: str) -> None:
    (line,) = cautions(ServiceSettings(urls=("http://127.0.0.1:8000", url)))

    assert line.startswith(f"service.urls: {url!r} is plain http")


@pytest.mark.parametrize(
    "url", ["https://updates.example", "http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"]
)
def test_https_and_loopback_are_none(url: str) -> None:
    assert [] == list(cautions(ServiceSettings(urls=(url,))))


def test_it_is_among_the_warnings_of_the_settings() -> None:
    loaded = load_settings((), INSTANCE | {"OUTRIDER_SERVICE_URLS": "http://updates.example"})

    assert any("is plain http" in line for line in loaded.warnings)


def test_an_unverified_foreign_server_is_shown_to_the_fleet() -> None:
    service = ServiceSettings(kind="omaha", allow_unverified=True, urls=("http://n:8000",))

    assert "payloads are not verified: http://n:8000 is plain http" == unverified(service)
    assert "" == unverified(ServiceSettings(kind="omaha", allow_unverified=True, urls=("https://n",)))
    assert "" == unverified(ServiceSettings(kind="omaha", urls=("http://n",)))


@pytest.mark.parametrize(
    ("urls", "allowed", "said"),
    [
        (("http://n:8000",), False, True),
        (("https://n", "http://127.0.0.1:8000", "http://[::1]:80"), False, False),
        (("https://n", "http://n:8000"), False, True),
        (("http://n:8000",), True, False),
    ],
)
def test_where_check_ins_cannot_be_proved_the_fleet_is_told(urls: tuple[str, ...], allowed: bool, said: bool) -> None:
    service = ServiceSettings(urls=urls, allow_plain_identity=allowed)

    assert said is ("http://n:8000 are not proved" in unproved(service))
    assert said is any("check-ins there are not proved" in line for line in cautions(service))
    assert "" == unproved(ServiceSettings(kind="omaha", urls=urls, allow_unverified=True))


def test_a_clients_token_in_an_address_is_hidden() -> None:
    token = f"oc_{'a' * 12}_{'s' * 43}"

    (line,) = cautions(ServiceSettings(urls=(f"http://n:8000/v1/update/{token}",)))

    assert ("s" * 9 in line, "oc_aaaaaaaaaaaa_***" in line) == (False, True)


def test_our_own_service_is_always_verified() -> None:
    with pytest.raises(ConfigError, match=r"has no effect, for service\.kind is outrider"):
        load_settings((), INSTANCE | {"OUTRIDER_SERVICE_ALLOW_UNVERIFIED": "true"})


def test_signatures_that_bind_to_no_app_are_a_risk() -> None:
    key = str(VECTORS / "ann.pub")
    trust = INSTANCE | {"OUTRIDER_TRUST_KEYS": f'["{key}"]', "OUTRIDER_TRUST_ALLOW_UNBOUND_MINISIGN": "true"}

    assert any(line.startswith("trust.allow_unbound_minisign: ") for line in load_settings((), trust).warnings)
    assert [] == list(trust_cautions(TrustSettings(keys=(key,))))


@pytest.mark.parametrize(
    ("trust", "problem"),
    [
        ({"ALLOW_UNBOUND_MINISIGN": "true"}, "trust.allow_unbound_minisign: has no effect without trust.keys"),
        ({"KEYS": f'["{VECTORS}/bound.minisig"]'}, "bound.minisig: minisign public key: 4 lines instead of 2"),
        ({"KEYS": f'["{VECTORS}/payload"]'}, "payload: neither a public key in PEM nor one of minisign"),
        (
            {"KEYS": f'["{VECTORS}/ann.pub", "{VECTORS}/bob.pub"]', "THRESHOLD": "3"},
            "trust.threshold: 3 signatures can't come from 2 keys",
        ),
    ],
)
def test_trust_that_cannot_work_is_refused(trust: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings((), INSTANCE | {f"OUTRIDER_TRUST_{key}": value for key, value in trust.items()})
    assert problem in str(refused.value)
