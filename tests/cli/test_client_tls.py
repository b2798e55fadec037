"""What proves a TLS server to the clients: the machine's authorities, a file of others, or nothing when asked for."""

import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from outrider.clients import FakeFleet, FakeSettings
from outrider.config.sections import DownloadSettings
from outrider.core.errors import DriverError
from outrider.core.omaha import AppRequest, NoUpdate, OmahaResponse, answer_app, render_response, running
from outrider.omaha_client import Upstream
from outrider.payloads.store import PayloadStore
from outrider.payloads.transfer import TransferFailed
from tests.support.rest_stub import RestStub, Say

CONTENT = b"payload\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ASKED = AppRequest(app_id="x", version="1.0.0", update_check=True, events=(running(),))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    """A PEM file of an authority that no machine knows, and a server's side with a certificate of it."""
    known = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    known.cert_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    known.issue_cert("127.0.0.1").configure_cert(context)
    return str(path), context


@pytest.fixture
def omaha(authority: tuple[str, ssl.SSLContext]) -> Iterator[RestStub]:
    """An update service behind TLS that has no update for ``x``."""
    body = render_response(OmahaResponse(apps=(answer_app(ASKED, NoUpdate(reason="up to date")),)))
    with RestStub(lambda _: Say(body=body, headers={"Content-Type": "text/xml"}), context=authority[1]) as running:
        yield running


@pytest.fixture
def payloads(authority: tuple[str, ssl.SSLContext]) -> Iterator[RestStub]:
    with RestStub(lambda _: Say(body=CONTENT), context=authority[1]) as running:
        yield running


def check(url: str, verify: bool | str) -> object:
    client = Upstream(urls=(url,), app_id="x", group="y", instance="z", verify=verify)
    return client.check(version="1.0.0", previous_version="", update="u")


def test_an_update_service_of_an_unknown_authority_is_refused(omaha: RestStub) -> None:
    with pytest.raises(DriverError, match="can't connect"):
        check(omaha.url, True)

    assert [] == omaha.asked


def test_an_update_service_is_believed_by_its_authority_or_unseen(
    omaha: RestStub, authority: tuple[str, ssl.SSLContext]
) -> None:
    assert NoUpdate(reason="up to date") == check(omaha.url, authority[0]) == check(omaha.url, False)


def test_simulated_instances_go_by_the_same_rule(omaha: RestStub, authority: tuple[str, ssl.SSLContext]) -> None:
    def told(verify: bool | str) -> str:
        lines: list[str] = []

        def note(client: str, text: str) -> None:
            lines.append(text)
            fleet.stop()

        settings = FakeSettings(
            url=omaha.url, app_id="x", group="y", clients=1, min_sleep_s=0, max_sleep_s=0, verify=verify
        )
        fleet = FakeFleet(settings, note)
        fleet.run()
        return lines[0]

    assert "can't connect" in told(True)
    assert "noupdate: up to date" == told(authority[0])


def test_a_payload_server_goes_by_the_same_rule(
    payloads: RestStub, authority: tuple[str, ssl.SSLContext], tmp_path: Path
) -> None:
    settings = DownloadSettings(timeout_s=5, deadline_s=30)

    with pytest.raises(TransferFailed):
        PayloadStore(tmp_path / "a", settings).fetch("1.0.0", (payloads.url,), len(CONTENT), SHA256)
    path = PayloadStore(tmp_path / "b", settings, verify=authority[0]).fetch(
        "1.0.0", (payloads.url,), len(CONTENT), SHA256
    )

    assert CONTENT == path.read_bytes()
