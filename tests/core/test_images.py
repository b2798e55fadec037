"""References to images, and the payload that stands for one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outrider.core.errors import ConfigError
from outrider.core.images import ImageReference, describe_image, parse_image

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
