"""What the service asks a registry, and what it believes of the answers."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from outrider.core.images import parse_image
from outrider.service.payloads.registry import HttpRegistries, NoRegistries, RegistryError
from tests.support.registry_stub import RegistryStub, credentials, digest_of, replied
from tests.support.servers import make_tls_files

CONFIG = b'{"os": "linux", "architecture": "amd64"}'


@pytest.fixture
def stub() -> Iterator[RegistryStub]:
    running = RegistryStub()
    yield running
    running.close()


def resolve(stub: RegistryStub, reference: str = "a/b:1.0.0", **options: object) -> object:
    return HttpRegistries(**{"timeout_s": 10.0, **options}).resolve(  # type: ignore[arg-type]
        parse_image(f"{stub.host}/{reference}")
    )


def test_a_tag_is_resolved_to_the_index_with_manifest_and_configuration_of_each_platform(stub: RegistryStub) -> None:
    digest = stub.add("a/b", "1.0.0", ("linux/amd64", "linux/arm/v7"))

    found = HttpRegistries().resolve(parse_image(f"{stub.host}/a/b:1.0.0"))

    assert digest == found.digest
    assert ["linux/amd64", "linux/arm/v7"] == [one.platform for one in found.platforms], "attestations are left out"
    assert {742} == {one.size_bytes for one in found.platforms}
    assert 4 == len({one.manifest for one in found.platforms} | {one.config for one in found.platforms})


def test_an_image_without_an_index_has_the_platform_of_its_configuration(stub: RegistryStub) -> None:
    digest = stub.add("a/b", "1.0.0", index=False)

    found = HttpRegistries().resolve(parse_image(f"{stub.host}/a/b:1.0.0"))

    (platform,) = found.platforms
    assert (digest, digest, "linux/amd64") == (found.digest, platform.manifest, platform.platform)


def test_a_digest_is_asked_for_by_digest(stub: RegistryStub) -> None:
    digest = stub.add("a/b", "1.0.0")
    stub.add("a/b", "1.0.0", ("linux/s390x",))

    assert digest == HttpRegistries().resolve(parse_image(f"{stub.host}/a/b:1.0.0@{digest}")).digest


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_credentials_are_given_in_the_way_that_the_registry_asks_for(
    stub: RegistryStub, auth: str, tmp_path: Path
) -> None:
    stub.auth = auth
    stub.add("a/b", "1.0.0")
    file = tmp_path / "auth.json"
    file.write_bytes(credentials(stub.host))

    assert resolve(stub, auth_file=file)
    assert "" == stub.seen[0][1], "nothing before it is asked for"


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_missing_and_wrong_credentials_are_told_apart(stub: RegistryStub, auth: str, tmp_path: Path) -> None:
    stub.auth = auth
    stub.add("a/b", "1.0.0")
    file = tmp_path / "auth.json"
    file.write_bytes(credentials(stub.host, password="wrong"))

    with pytest.raises(RegistryError, match=r"it asks for credentials \(--registry-auth\)"):
        resolve(stub)
    with pytest.raises(RegistryError, match="the credentials were refused"):
        resolve(stub, auth_file=file)
    file.write_bytes(b"[]")
    with pytest.raises(RegistryError, match=r"auth\.json: not a file like Docker's config\.json"):
        resolve(stub, auth_file=file)


@pytest.mark.parametrize("auth", ["", "basic", "bearer"])
def test_a_registry_with_an_authority_of_its_own_is_believed_with_the_file_of_it(auth: str, tmp_path: Path) -> None:
    tls = make_tls_files(tmp_path)
    stub = RegistryStub(tls)
    try:
        stub.auth = auth
        digest = stub.add("a/b", "1.0.0")
        file = tmp_path / "auth.json"
        file.write_bytes(credentials(stub.host))

        found = HttpRegistries(auth_file=file, ca_file=tls.ca).resolve(parse_image(f"{stub.host}/a/b:1.0.0"))

        assert digest == found.digest
        with pytest.raises(RegistryError, match=r"certificate .*--registry-ca"):
            resolve(stub, auth_file=file)
        with pytest.raises(RegistryError, match=r"--registry-ca \S+auth\.json: holds no certificate"):
            resolve(stub, auth_file=file, ca_file=file)
        with pytest.raises(RegistryError, match=r"--registry-ca \S+nowhere: No such file"):
            resolve(stub, auth_file=file, ca_file=tmp_path / "nowhere")
    finally:
        stub.close()


def test_credentials_never_go_to_a_token_service_without_tls_of_a_registry_with_it(stub: RegistryStub) -> None:
    stub.auth = "bearer"
    registries = HttpRegistries(timeout_s=5)

    with (
        pytest.raises(RegistryError, match="token service that is not safe"),
        registries._session("registry.example/a/b") as session,
    ):
        session._token({"realm": f"http://{stub.host}/token"}, ("u", "p"))


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"<html>", "text/html", "sent no JSON: is it a registry?"),
        (b"[]", "application/json", "sent JSON that is no object"),
        (b'{"schemaVersion":1}', "application/json", r"none that we know \(schema 2 or OCI\)"),
        (b'{"config":{"digest":"latest"}}', "application/json", "none that we know"),
        (b" " * (4 * 1024 * 1024 + 1), "application/json", "sent more than 4194304 bytes"),
    ],
)
def test_what_is_no_manifest_is_refused(stub: RegistryStub, body: bytes, kind: str, said: str) -> None:
    stub.before = lambda request: replied(request, 200, body, {"Content-Type": kind})

    with pytest.raises(RegistryError, match=said):
        resolve(stub)


@pytest.mark.parametrize(
    "body",
    [
        b'{"manifests": 5}',
        b'{"manifests": {"digest": "x"}}',
        b'{"manifests": [5, null, {"platform": "linux"}, {"platform": {"os": "linux"}, "digest": 7}]}',
        b'{"manifests": [{"platform": {"os": 5, "architecture": []}, "digest": "sha256:%s"}]}' % (b"ab" * 32),
        b'{"config": 5}',
        b'{"config": {"digest": ["x"]}}',
        b'{"tags": 5}',
        b'{"tags": "latest"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda body: body[:40].decode(),
)
def test_whatever_a_registry_sends_the_error_is_its_own(stub: RegistryStub, body: bytes) -> None:
    """Any other error would end the thread that follows tags, and be the update service's own in a request."""
    stub.before = lambda request: replied(request, 200, body, {"Content-Type": "application/json"})

    with pytest.raises(RegistryError, match=stub.host):
        resolve(stub)
    with contextlib.suppress(RegistryError):
        HttpRegistries(timeout_s=10.0).tags(f"{stub.host}/a/b")


@pytest.mark.parametrize("size", ["1e400", '"x"', "[]", "null"])
def test_a_layer_without_a_size_is_refused(stub: RegistryStub, size: str) -> None:
    digest = f"sha256:{'ab' * 32}"
    manifest = (
        f'{{"config": {{"digest": "{digest_of(CONFIG)}"}}, "layers": [{{"digest": "{digest}", "size": {size}}}]}}'
    )

    def answer(request: BaseHTTPRequestHandler) -> bool:
        return replied(request, 200, CONFIG if "/blobs/" in request.path else manifest.encode())

    stub.before = answer

    with pytest.raises(RegistryError, match="its layers have no size"):
        resolve(stub)


def test_bytes_that_are_not_what_their_digest_says_are_refused(stub: RegistryStub) -> None:
    wanted = digest_of(b"this")
    stub.before = lambda request: replied(request, 200, b'{"schemaVersion":2}')

    with pytest.raises(RegistryError, match="sent another manifest"):
        resolve(stub, f"a/b@{wanted}")


@pytest.mark.parametrize(("status", "said"), [(404, r"a/b: has no 1\.0\.0"), (500, "answered 500"), (429, "429")])
def test_other_answers_are_told(stub: RegistryStub, status: int, said: str) -> None:
    stub.before = lambda request: replied(request, status, b"{}")

    with pytest.raises(RegistryError, match=said):
        resolve(stub)


def test_a_registry_that_is_away_or_silent_is_told_in_time(stub: RegistryStub) -> None:
    stub.silent = threading.Event()

    with pytest.raises(RegistryError, match=r"no answer(: nothing in 0\.3 s| in 0\.3 s|: connection closed)"):
        resolve(stub, timeout_s=0.3)
    with pytest.raises(RegistryError, match="no answer: connection refused"):
        HttpRegistries().resolve(parse_image("127.0.0.1:1/a:1"))


def test_plain_http_is_for_loopback_and_for_who_is_named() -> None:
    registries = HttpRegistries(plain=frozenset({"registry:5000"}))

    assert ("https", "http") == registries._schemes("localhost:5000") == registries._schemes("[::1]:5000")
    assert ("http",) == registries._schemes("registry:5000")
    assert ("https",) == registries._schemes("localhost.example") == registries._schemes("docker.io")


def test_all_pages_of_a_list_of_tags_are_read(stub: RegistryStub) -> None:
    for tag in ("1.0.0", "1.1.0", "latest"):
        stub.add("a/b", tag)
    stub.page = 1

    assert ("1.0.0", "1.1.0", "latest") == HttpRegistries().tags(f"{stub.host}/a/b")


def test_a_service_without_registries_says_so() -> None:
    with pytest.raises(RegistryError, match="asks no registry"):
        NoRegistries().resolve(parse_image("a:1"))
