"""The proof of who checks in is sent where nobody else can read it, and a token in an address is shown to nobody."""

from collections.abc import Iterator

import pytest
from loguru import logger

from outrider.core.errors import DriverError, OutriderError, Unknown
from outrider.omaha_client import Upstream
from tests.support.update_service import REPORT, Answer, Service, check, dead_url

SECRET = "k" * 43
TOKEN = f"oc_{'a' * 12}_{'t' * 43}"


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as running:
        yield running


def proving(*urls: str, allow_plain: bool = False) -> Upstream:
    return Upstream(
        urls=urls, app_id="shop", group="web", instance="a", timeout_s=5.0, proof=lambda within_s: SECRET,
        allow_plain=allow_plain,
    )  # fmt: skip


def sent(service: Service) -> list[str | None]:
    return [headers.get("x-outrider-identity") for _, _, headers in service.heads]


def test_checks_and_reports_on_this_machine_carry_the_proof(service: Service) -> None:
    client = proving(service.url)

    check(client)
    client.send(REPORT)

    assert [SECRET, SECRET] == sent(service)


def test_plain_http_that_leaves_the_machine_carries_none_unless_that_is_allowed(service: Service) -> None:
    # 0.0.0.0 leads to this machine, and nothing about it says so
    elsewhere = service.url.replace("127.0.0.1", "0.0.0.0")

    check(proving(elsewhere))
    check(proving(elsewhere, allow_plain=True))

    assert [None, SECRET] == sent(service)


def test_nothing_is_asked_before_there_is_a_proof(service: Service) -> None:
    waits: list[float] = []

    def not_yet(within_s: float) -> str:
        waits.append(within_s)
        raise Unknown("not yet")

    client = Upstream(urls=(service.url,), app_id="shop", group="web", instance="a", timeout_s=5.0, proof=not_yet)

    for ask in (lambda: check(client), lambda: client.send(REPORT)):
        with pytest.raises(Unknown, match="not yet"):
            ask()
    assert ([], [2.5, 2.5]) == (service.heads, waits)


def test_an_unproved_report_is_kept_and_tried_again(service: Service) -> None:
    service.answer = Answer(app_status="error-unproved")

    with pytest.raises(DriverError, match="report not taken: error-unproved; it doesn't know who reported it") as told:
        proving(service.url).send(REPORT)

    assert not isinstance(told.value, Unknown)


@pytest.mark.parametrize("status", [200, 400, 404, 503, 302])
def test_a_token_in_an_address_and_the_proof_are_in_no_error_and_no_log(service: Service, status: int) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message.record)), level=0)
    service.answer = Answer(status=status, headers={"Content-Type": "text/plain"}, body=b"no")
    errors = []
    try:
        for url in (service.url, dead_url()):
            with pytest.raises(OutriderError) as told:
                check(proving(f"{url}/v1/update/{TOKEN}"))
            errors.append(str(told.value))
    finally:
        logger.remove(sink)

    assert all(f"/v1/update/oc_{'a' * 12}_***" in error for error in errors)
    assert [] == [word for word in ("t" * 9, SECRET) if word in "".join([*lines, *errors])]
    assert [("POST", f"/v1/update/{TOKEN}")] == [head[:2] for head in service.heads]
