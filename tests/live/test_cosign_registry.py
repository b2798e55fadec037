"""Signatures of cosign on their way from a real registry to a machine, which checks them."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests
from click.testing import CliRunner, Result

from outrider.cli import main
from outrider.cli.rest_client import ServiceClient
from outrider.config.sections import TrustSettings
from outrider.core.images import describe_image, parse_image
from outrider.core.sidekick.memory import Release
from outrider.model.keys import Keys
from outrider.service.payloads.registry import HttpRegistries, RegistryError
from outrider.sidekick.signatures import Known, SignatureCheck, Untrusted
from outrider.trust.cosign import ANNOTATION, MEDIA_TYPE, image_problem, read_signed, tag_of
from tests.support.docker_images import Registry, registry
from tests.support.service import Service
from tests.trust.cosigning import BOUND, CONFIG, INDEX, MANIFEST, CosignSigner, Image, digest_of
from tests.trust.signing import NOON

IMAGE = Image()


@pytest.fixture(scope="module")
def images() -> Iterator[Registry]:
    with registry() as running:
        yield running


def put_blob(images: Registry, name: str, body: bytes) -> str:
    base = f"http://{images.host}/v2/{name}"
    begun = requests.post(f"{base}/blobs/uploads/", timeout=60)
    where = urljoin(base, begun.headers["Location"])
    done = requests.put(f"{where}&digest={digest_of(body)}", data=body, timeout=60)
    assert 201 == done.status_code, done.text
    return digest_of(body)


def put_manifest(images: Registry, name: str, reference: str, body: bytes, kind: str) -> None:
    url = f"http://{images.host}/v2/{name}/manifests/{reference}"
    done = requests.put(url, data=body, headers={"Content-Type": kind}, timeout=60)
    assert 201 == done.status_code, done.text


def push(images: Registry, name: str, image: Image = IMAGE) -> str:
    """Push the image, and return its reference."""
    for config in image.configs.values():
        put_blob(images, name, config)
    for body in image.manifests.values():
        put_manifest(images, name, digest_of(body), body, MANIFEST)
    put_manifest(images, name, "2.0.0", image.index, INDEX)
    return f"{images.host}/{name}:2.0.0"


def push_signatures(images: Registry, name: str, digest: str, signed: list[tuple[bytes, bytes]]) -> None:
    """As cosign pushes them: one manifest, a layer for each."""
    config = put_blob(images, name, b"{}")
    layers = [
        {
            "mediaType": MEDIA_TYPE,
            "size": len(text),
            "digest": put_blob(images, name, text),
            "annotations": {ANNOTATION: base64.b64encode(signature).decode()},
        }
        for text, signature in signed
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "size": 2, "digest": config},
        "layers": layers,
    }
    put_manifest(images, name, tag_of(digest), json.dumps(manifest).encode(), MANIFEST)


def run(service: Service, *words: str) -> Result:
    environment = {"OUTRIDER_SERVER": service.url, "OUTRIDER_ETCD": service.etcd, "OUTRIDER_PREFIX": service.prefix}
    return CliRunner().invoke(main, list(words), env=environment)


def make_package(service: Service, reference: str) -> bytes:
    """Make a package of the image, as the registry tells of it; its payload."""
    resolved = HttpRegistries().resolve(parse_image(reference))
    assert 0 == run(service, "app", "create", "--app-id=shop", "--label=Shop").exit_code
    body = {"version": "2.0.0", "image": reference, "digest": resolved.digest}
    ServiceClient(service.url).post("apps", "shop", "packages", body=body)
    stored = service.store.packages.get("shop", "2.0.0")
    (file,) = [path for path in service.payload_dir.rglob("*") if path.is_file() and stored.sha256 in path.name]
    return file.read_bytes()


def test_what_cosign_pushed_lets_the_image_run_and_nothing_else(
    service: Service, images: Registry, tmp_path: Path
) -> None:
    ann, eve = CosignSigner(), CosignSigner()
    reference = push(images, "good")
    text = ann.text(IMAGE.digest, BOUND)
    push_signatures(images, "good", IMAGE.digest, [(text, eve.sign(text)), (text, ann.sign(text))])
    payload = tmp_path / "payload"
    payload.write_bytes(make_package(service, reference))

    done = run(service, "package", "sign", "--app-id=shop", "--version=2.0.0", "--cosign")

    assert 0 == done.exit_code, done.output
    assert "cosign, image" in done.stdout
    stored = service.store.packages.get("shop", "2.0.0")
    trusted = TrustSettings(keys=(str(ann.public_file(tmp_path / "ann.pub")),))
    check = SignatureCheck(trusted, service.store.context.cluster, Keys(service.prefix), app="shop", clock=lambda: NOON)
    release = Release(version="2.0.0", urls=("http://x/2",), sha256=stored.sha256, size_bytes=stored.size_bytes)
    assert check.check(release, Known(), payload).keys
    stranger = TrustSettings(keys=(str(CosignSigner().public_file(tmp_path / "other.pub")),))
    refusing = SignatureCheck(
        stranger, service.store.context.cluster, Keys(service.prefix), app="shop", clock=lambda: NOON
    )
    with pytest.raises(Untrusted, match="none of the keys"):
        refusing.check(release, Known(), payload)


def test_a_signature_of_another_image_at_the_tag_is_refused_by_the_command(service: Service, images: Registry) -> None:
    ann = CosignSigner()
    reference = push(images, "swapped")
    text = ann.text(Image("evil").digest, BOUND)
    push_signatures(images, "swapped", IMAGE.digest, [(text, ann.sign(text))])
    make_package(service, reference)

    done = run(service, "package", "sign", "--app-id=shop", "--version=2.0.0", "--cosign")

    assert 1 == done.exit_code
    assert f"is for {Image('evil').digest}, not for {IMAGE.digest}" in done.stderr


def test_the_manifests_that_come_with_it_cover_what_the_service_reads_of_the_image(images: Registry) -> None:
    ann = CosignSigner()
    reference = parse_image(push(images, "covered"))
    text = ann.text(IMAGE.digest, BOUND)
    push_signatures(images, "covered", IMAGE.digest, [(text, ann.sign(text))])
    registries = HttpRegistries()

    (found,) = registries.cosign_signatures(reference.name, IMAGE.digest)

    resolved = registries.resolve(reference)
    assert 2 == len(resolved.platforms)
    payload = describe_image(reference, resolved.digest, resolved.platforms)
    assert "" == image_problem(found, read_signed(found.cosign), payload)


def test_an_image_that_nobody_signed_is_said_to_be(images: Registry) -> None:
    push(images, "unsigned")

    with pytest.raises(RegistryError, match=r"has no sha256-[0-9a-f]{64}\.sig"):
        HttpRegistries().cosign_signatures(f"{images.host}/unsigned", IMAGE.digest)
