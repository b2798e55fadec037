"""An address for Omaha that only those know who were told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from outrider.core.errors import ConfigError
from outrider.etcd.seam import Cluster
from outrider.service.omaha.endpoint import checked_secret
from outrider.service.store.store import Store
from tests.service.api.test_http import CHECK
from tests.support.service import RunningServer
from tests.support.service_examples import make_app, open_store

SECRET = "tell-nobody.42"


@pytest.fixture
def url(cluster: Cluster, prefix: str, tmp_path: Path) -> Iterator[str]:
    below = prefix.rstrip("/")
    make_app(open_store(cluster, below), version="2.0.0")
    with RunningServer(cluster, tmp_path / "payloads", below, omaha_secret=SECRET) as running:
        yield running.url


@pytest.mark.parametrize("path", [f"/v1/update/{SECRET}", f"/v1/update/{SECRET}/"])
def test_who_knows_the_secret_is_answered_without_a_redirect(url: str, path: str) -> None:
    answer = requests.post(url + path, data=CHECK, timeout=60, allow_redirects=False)

    assert (200, "text/xml") == (answer.status_code, answer.headers["content-type"])
    assert b'<updatecheck status="ok">' in answer.content


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/update",
        "/v1/update/",
        "/v1/update//",
        f"/v1/update/{SECRET}x",
        f"/v1/update/{SECRET[:-1]}",
        f"/v1/update/{SECRET.upper()}",
        f"/v1/update/{SECRET}//",
        f"/v1/update/x/{SECRET}",
        "/v1/update/%FF",
        "/v1/update/%E4%F6",
    ],
)
def test_who_does_not_finds_nothing_there(url: str, method: str, path: str) -> None:
    assert 404 == requests.request(method, url + path, data=CHECK, timeout=60, allow_redirects=False).status_code


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_the_secret_place_takes_what_omaha_sends_and_shows_itself_to_nothing_else(url: str, method: str) -> None:
    assert 404 == requests.request(method, f"{url}/v1/update/{SECRET}", timeout=60).status_code


def test_without_a_secret_nothing_is_below_the_address(client: Cluster, store: Store, tmp_path: Path) -> None:
    with RunningServer(client, tmp_path / "payloads", "/outrider/v1") as running:
        assert 404 == requests.post(f"{running.url}/v1/update/anything", data=CHECK, timeout=60).status_code


@pytest.mark.parametrize("secret", ["short", "with/slash", "with blank", "x" * 201, "ümlaut-and-more"])
def test_a_secret_that_cannot_be_one_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError, match="omaha secret"):
        checked_secret(secret)


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_secret_is_none(nothing: str | None) -> None:
    assert checked_secret(nothing) is None
