"""Addresses as people copy them are taken or refused in words; nothing else comes out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider.core.addresses import HostPort, http_problem, parse_endpoint, parse_endpoints


@pytest.mark.parametrize(
    ("text", "host", "port", "scheme"),
    [
        ("127.0.0.1:2379", "127.0.0.1", 2379, None),
        ("127.0.0.1:2379/", "127.0.0.1", 2379, None),
        ("http://etcd-1.example:2379", "etcd-1.example", 2379, "http"),
        ("http://etcd:2379/", "etcd", 2379, "http"),
        ("HTTPS://Etcd:2379/", "Etcd", 2379, "https"),
        ("[::1]:2379", "::1", 2379, None),
        ("https://[fe80::1%eth0]:2379/", "fe80::1%eth0", 2379, "https"),
        (" etcd:1 ", "etcd", 1, None),
        ("etcd.example.:65535", "etcd.example.", 65535, None),
    ],
)
def test_an_endpoint_is_taken_with_scheme_and_slash(text: str, host: str, port: int, scheme: str | None) -> None:
    assert HostPort(host=host, port=port, scheme=scheme) == parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.0.0.1", "no port"),
        ("http://10.0.0.1", "no port"),
        ("[::1]", "no port"),
        ("", "no port"),
        ("etcd:2379/v2", "has a path"),
        ("http://etcd:2379/v3/kv", "has a path"),
        ("etcd:2379//", "has a path"),
        ("etcd:2379?timeout=1", "has a path"),
        ("etcd:2379#x", "has a path"),
        ("unix:///run/etcd.sock", "the scheme 'unix' is unknown"),
        ("grpc://etcd:2379", "the scheme 'grpc' is unknown"),
        ("https//etcd:2379", "has a path"),
        ("http:/etcd:2379", "has a path"),
        ("://etcd:2379", "has a path"),
        ("etcd:70000", "ports are 1 to 65535"),
        ("etcd:0", "ports are 1 to 65535"),
        ("etcd:²", "not a number"),
        ("etcd:", "not a number"),
        ("etcd:+1", "not a number"),
        ("::1:2379", "needs brackets"),
        ("[::1:2379", "no IPv6 address"),
        ("[etcd]:2379", "no IPv6 address"),
        ("[]:2379", "no IPv6 address"),
        (":2379", "no host"),
        ("http://:2379", "no host"),
        ("a:1,b:2", "several addresses"),
        ("a b:2379", "can't be used"),
        ("a..b:2379", "can't be used"),
        ("ä:2379", "can't be used"),
        ("a" * 64 + ":2379", "can't be used"),
        ("root:secret@etcd:2379", "contains a user"),
        ("x" * 5000, "no port"),
    ],
)
def test_any_other_endpoint_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_endpoint(text)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert "secret" not in str(caught.value)


@settings(max_examples=100)
@given(st.text(alphabet="aZ0:/[]@%.?#-² ,\n\0é\\") | st.text())
def test_no_text_leads_to_another_error(text: str) -> None:
    try:
        found = parse_endpoint(text)
    except ValueError as problem:
        assert str(problem).isprintable()  # noqa: PT017 - both outcomes are right
    else:
        assert 1 <= found.port <= 65535
        assert found.host


@pytest.mark.parametrize(
    ("texts", "tls", "encrypted"),
    [
        (["a:1"], False, False),
        (["http://a:1", "b:1"], False, False),
        (["https://a:1"], False, True),
        (["https://a:1", "b:1"], False, True),
        (["a:1"], True, True),
    ],
)
def test_https_anywhere_or_a_file_of_certificates_means_tls_for_all(
    texts: list[str], tls: bool, encrypted: bool
) -> None:
    assert encrypted is parse_endpoints(texts, tls=tls)[1]


@pytest.mark.parametrize(
    ("texts", "tls", "words"),
    [
        (["http://a:1", "https://b:1"], False, "write the same for all"),
        (["a:1", "http://b:1"], True, "http:// is without TLS"),
        ([], False, "is empty"),
    ],
)
def test_endpoints_that_contradict_each_other_are_refused(texts: list[str], tls: bool, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_endpoints(texts, tls=tls)


@pytest.mark.parametrize(
    "url", ["http://a", "https://a:8443/", "http://[::1]:8000/v1/update/secret", "http://10.0.0.9:8000/x"]
)
def test_an_address_of_a_service_is_taken(url: str) -> None:
    assert http_problem(url) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("10.0.0.9:8000", "no http address"),
        ("ftp://a", "no http address"),
        ("http://", "no http address"),
        ("http://a:70000", "no address: Port out of range"),
        ("http://a:x", "no address: Port could not be cast"),
        ("http://a:0", "ports are 1 to 65535"),
        ("http://[::1", "no address: Invalid IPv6 URL"),
        ("http://me:pw@a", "contains a user"),
        ("http://a/?x=1", "has a query"),
        ("http://a b", "spaces"),
        ("http://a..b", "can't be used"),
        ("http://ä", "can't be used"),
    ],
)
def test_any_other_address_of_a_service_is_refused_in_words(url: str, words: str) -> None:
    problem = http_problem(url)

    assert problem is not None
    assert words in problem


@settings(max_examples=100)
@given(st.text(alphabet="htps:/[]@%.?#-² ,\n\0é\\0") | st.text())
def test_no_address_of_a_service_ends_in_an_error(text: str) -> None:
    problem = http_problem(f"http://{text}")

    assert problem is None or problem.isprintable()
