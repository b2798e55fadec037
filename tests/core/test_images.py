"""References to images, and the payload that stands for one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.core.errors import ConfigError
from outrider.core.images import (
    MAX_DESCRIPTOR_BYTES,
    MAX_PLATFORMS,
    ImagePlatform,
    ImageReference,
    credentials_for,
    describe_image,
    is_descriptor,
    kind_of,
    parse_image,
    read_descriptor,
    registry_of,
)

D = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "name", "tag", "digest"),
    [
        ("coreos/example:1.0.0", "coreos/example", "1.0.0", ""),
        ("nginx:latest", "nginx", "latest", ""),
        (f"nginx@{D}", "nginx", "", D),
        (f"nginx:1.27@{D}", "nginx", "1.27", D),
        (f"registry:5000/a/b@{D}", "registry:5000/a/b", "", D),
        ("localhost/a:1", "localhost/a", "1", ""),
        ("Registry.Example.com:443/a/b_c/d--e.f__g:V_1.0-x", "Registry.Example.com:443/a/b_c/d--e.f__g", "V_1.0-x", ""),
        ("[fd00::1]:5000/a:1", "[fd00::1]:5000/a", "1", ""),
        ("a:" + "x" * 128, "a", "x" * 128, ""),
        ("a@sha512:" + "ab" * 64, "a", "", "sha512:" + "ab" * 64),
    ],
)
def test_a_reference_is_taken_apart_and_put_together_again(text: str, name: str, tag: str, digest: str) -> None:
    reference = parse_image(text)

    assert ImageReference(name=name, tag=tag, digest=digest) == reference
    assert text == str(reference)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "coreos/example",
        "registry:5000/a",
        "Coreos:1.0.0",
        "a/B:1",
        "a//b:1",
        "/a:1",
        "./a.tar:1",
        "../a:1",
        "a/:1",
        "a:",
        "a@",
        "a:1@",
        "a: 1",
        "a:1 ",
        "a:1\n",
        "a:.1",
        "a:" + "x" * 129,
        "a" * 256 + ":1",
        "-a:1",
        "a-:1",
        "a___b:1",
        "a..b:1",
        "a@sha256:abc",
        f"a@{D.upper()}",
        f"a@{D}0",
        "a@md5:" + "0" * 32,
        "http://a/b:1",
        "ä/b:1",
        'a:1"}',
    ],
)
def test_what_is_no_reference_to_one_image_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="image"):
        parse_image(text)


@given(st.text(max_size=60))
def test_any_text_is_read_back_as_it_is_or_refused(text: str) -> None:
    try:
        reference = parse_image(text)
    except ConfigError:
        return

    assert text == str(reference)
    assert text == json.loads(describe_image(reference))["image"]


def test_a_hostile_text_is_refused_quickly() -> None:
    for text in ("a-" * 100_000, "a." * 499, "a_" * 499 + "!", "a" * 999 + "!", "1.a/" * 249 + "!"):
        with pytest.raises(ConfigError):
            parse_image(text)


def test_the_bytes_of_a_descriptor_are_for_ever() -> None:
    """Stored packages have their digest: another way to write the same would make every one of them a forgery."""
    assert b'{"digest":null,"image":"coreos/example:1.0.0"}\n' == describe_image(parse_image("coreos/example:1.0.0"))
    assert b'{"digest":"%s","image":"nginx:1@%s"}\n' % (D.encode(), D.encode()) == describe_image(
        parse_image(f"nginx:1@{D}")
    )


FULL = (
    ImagePlatform(platform="linux/amd64", manifest=D, config="sha256:" + "ab" * 32, size_bytes=742),
    ImagePlatform(platform="linux/arm/v7", manifest="sha256:" + "cd" * 32, config="sha256:" + "ef" * 32),
)


def test_a_descriptor_is_read_as_it_was_written() -> None:
    content = describe_image(parse_image("registry:5000/a/b:1.0.0"), D, FULL)

    read = read_descriptor(content)

    assert is_descriptor(content)
    assert ("registry:5000/a/b:1.0.0", D, FULL) == (str(read.reference), read.digest, read.platforms)
    assert f"registry:5000/a/b@{D}" == read.pull_name
    assert {D, *(one.config for one in FULL), FULL[1].manifest} == read.ids
    assert "" == read_descriptor(describe_image(parse_image("a:1"))).digest
    assert len(describe_image(parse_image("a:1"), D, FULL[:1] * MAX_PLATFORMS)) < MAX_DESCRIPTOR_BYTES


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"[]", b'{"image":"a:1"}', b'{"image":"a","digest":null}', b'{"image":"a:1","digest":"latest"}',
        b'{"image":"a:1","digest":null,"platforms":[{}]}', b'{"image":"a:1","digest":null,"platforms":3}',
    ],
)  # fmt: skip
def test_what_is_no_descriptor_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError):
        read_descriptor(content)


@pytest.mark.parametrize(
    ("name", "registry", "repository"),
    [
        ("busybox", "docker.io", "library/busybox"),
        ("coreos/example", "docker.io", "coreos/example"),
        ("docker.io/busybox", "docker.io", "library/busybox"),
        ("index.docker.io/coreos/example", "docker.io", "coreos/example"),
        ("localhost/a", "localhost", "a"),
        ("registry:5000/a/b", "registry:5000", "a/b"),
        ("quay.io/a/b", "quay.io", "a/b"),
    ],
)
def test_the_registry_of_a_name_is_dockers_own_unless_it_says_another(
    name: str, registry: str, repository: str
) -> None:
    assert (registry, repository) == registry_of(name)


def test_credentials_are_found_as_docker_writes_them() -> None:
    def found(auths: object, registry: str = "registry:5000", **more: object) -> object:
        return credentials_for(registry, json.dumps({"auths": auths, **more}).encode())

    pair = {"username": "u", "password": "p:w"}
    auth = {"auth": "dTpwOnc="}
    assert pair == found({"registry:5000": auth}) == found({"https://registry:5000": auth})
    assert pair == found({"registry:5000": pair})
    assert pair == found({"https://index.docker.io/v1/": auth}, "docker.io")
    assert {"identitytoken": "t"} == found({"registry:5000": {"identitytoken": "t"}})
    assert None is found({"other": auth}) is found({}) is credentials_for("a", b"{}")
    wrong: object
    for wrong in ({"registry:5000": {"auth": "%"}}, {"registry:5000": {"auth": "dQ=="}}, [], {"registry:5000": 3}):
        with pytest.raises(ConfigError, match="not a file like Docker's"):
            found(wrong)
    with pytest.raises(ConfigError, match="in a helper program"):
        found({}, credsStore="pass")


def test_a_payload_is_known_by_the_name_of_its_file() -> None:
    assert ["image", "image-tar", "archive"] == [kind_of(name) for name in ("x/image.json", "image.tar", "web.tar")]
