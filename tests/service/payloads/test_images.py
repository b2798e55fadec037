"""Packages that are container images, over HTTP."""

import base64
import hashlib
import json
import shutil

import pytest
import requests

from outrider.core.omaha import parse_request
from tests.service.api.test_http import CHECK, post
from tests.support.omaha_clients import CLIENTS, Taken, outcomes
from tests.support.service import Service
from tests.support.service_examples import APP, make_app

IMAGE = "registry:5000/coreos/example:2.0.0"
PINNED = "coreos/example@sha256:" + "ab" * 32


def create(service: Service, image: str, **more: object) -> requests.Response:
    body = {"version": "3.0.0", "image": image} | more
    return requests.post(f"{service.url}/api/v1/apps/{APP}/packages", json=body, timeout=60)


@pytest.mark.parametrize(("image", "digest"), [(IMAGE, None), (PINNED, PINNED.partition("@")[2])])
def test_an_image_is_offered_as_a_file_that_says_what_to_pull(service: Service, image: str, digest: str | None) -> None:
    make_app(service.store)

    made = create(service, image).json()
    service.store.channels.save(APP, "beta", version="3.0.0")
    offer = post(service, CHECK).content

    asked = parse_request(CHECK).apps[0]
    answer = requests.get(made["download_url"], timeout=60)
    assert {"image": image, "digest": digest} == json.loads(answer.content)
    assert "application/vnd.outrider.image+json" == answer.headers["content-type"]
    assert (image, "image.json", len(answer.content)) == (made["image"], made["name"], made["size_bytes"])
    assert hashlib.sha256(answer.content).hexdigest() == made["sha256"]
    assert hashlib.sha1(answer.content).digest() == base64.b64decode(made["sha1"])
    for client, outcome in outcomes(offer, asked).items():
        assert isinstance(outcome, Taken), client
        assert outcome.sha256 in ("", made["sha256"])
        assert outcome.url in ("", made["download_url"])
    assert len(CLIENTS) > 3


def test_a_tag_alone_is_noted_and_a_digest_is_not(service: Service) -> None:
    make_app(service.store)

    by_tag, by_digest = create(service, IMAGE).json(), create(service, PINNED, version="4.0.0").json()

    assert 1 == len(by_tag["notes"])
    assert f"{IMAGE} has no digest yet (this service asks no registry)" in by_tag["notes"][0]
    assert [] == by_digest["notes"]


@pytest.mark.parametrize(
    ("image", "more"),
    [
        ("./web.tar", {}),
        ("coreos/example", {}),
        (IMAGE, {"url": "http://files.example/a.tar"}),
        (IMAGE, {"stored": "0" * 64, "name": "a"}),
        (IMAGE, {"name": "a.tar"}),
        (IMAGE, {"size_bytes": 7}),
        (IMAGE, {"sha256": "0" * 64}),
    ],
)
def test_what_would_not_be_one_image_is_refused(service: Service, image: str, more: dict[str, object]) -> None:
    make_app(service.store)

    answer = create(service, image, **more)

    assert (400, "config") == (answer.status_code, answer.json()["kind"])
    assert 2 == len(service.store.packages.list(APP))


def test_a_descriptor_whose_file_is_lost_is_written_again(service: Service) -> None:
    make_app(service.store)
    made = create(service, IMAGE).json()
    before = requests.get(made["download_url"], timeout=60).content
    shutil.rmtree(service.payload_dir / "sha256")

    assert before == requests.get(made["download_url"], timeout=60).content
