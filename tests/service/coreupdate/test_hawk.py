"""Hawk's header and its signature, against Hawk's own example."""

import pytest

from outrider.core.errors import Unauthorized
from outrider.service.coreupdate.hawk import Signed, is_signed, is_timely, mac_of, parse_header, time_header
from tests.support.coreupdate import HOST, sign

KEY = "werxhqb98rpaxn39848xrunpaw3489ruxnpa98w4rxn"
EXAMPLE = (
    'Hawk id="dh37fgj492je", ts="1353832234", nonce="j4h3g2", ext="some-app-ext-data",'
    ' mac="6R4rV5iE+NPoym+WwjeHzjAGXUtLNIxmo1vpMofpLAE="'
)
GET = {"method": "GET", "raw_path": "/resource/1", "query": "b=1&a=2", "host": "example.com:8000", "https": False}


def test_the_example_of_hawks_own_description_is_signed() -> None:
    signed = parse_header(EXAMPLE)

    assert (1353832234, "j4h3g2", "some-app-ext-data") == (signed.at, signed.nonce, signed.ext)
    assert is_signed(KEY, signed, **GET)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [{"method": "POST"}, {"raw_path": "/resource/2"}, {"query": "b=1&a=3"}, {"query": ""}, {"host": "example.com:8001"},
     {"host": "example.org:8000"}],
    ids=str,
)  # fmt: skip
def test_whatever_is_signed_can_not_be_another(other: dict[str, str]) -> None:
    assert not is_signed(KEY, parse_header(EXAMPLE), **(GET | other))  # type: ignore[arg-type]


def test_another_key_time_nonce_or_extension_is_another_signature() -> None:
    signed = parse_header(EXAMPLE)
    others = [
        EXAMPLE.replace("1353832234", "1353832235"), EXAMPLE.replace("j4h3g2", "j4h3g3"), EXAMPLE.replace("ext-", "x-"),
    ]  # fmt: skip

    assert not is_signed(KEY + "x", signed, **GET)  # type: ignore[arg-type]
    assert [False] * 3 == [is_signed(KEY, parse_header(one), **GET) for one in others]  # type: ignore[arg-type]


@pytest.mark.parametrize("decoded", [True, False])
def test_a_path_is_signed_with_or_without_its_percent_signs(decoded: bool) -> None:
    target = "/_ah/api/update/v1/admin/user/u%40x?alt=json"
    signed = parse_header(sign("admin", KEY, "DELETE", target, at=1, decoded=decoded))

    assert is_signed(
        KEY, signed, method="DELETE", raw_path=target.partition("?")[0], query="alt=json", host=HOST, https=False
    )


@pytest.mark.parametrize(("https", "port"), [(True, 443), (True, 80), (False, 80), (False, 443)])
def test_without_a_port_in_host_both_usual_ones_are_tried(https: bool, port: int) -> None:
    plain = Signed(user="ann", at=5, nonce="n", mac="")
    mac = mac_of(KEY, plain, "GET", "/db/backup", "updates.example", port)
    signed = Signed(user="ann", at=5, nonce="n", mac=mac)

    assert is_signed(KEY, signed, method="GET", raw_path="/db/backup", query="", host="updates.example", https=https)


@pytest.mark.parametrize(
    "header",
    ["", "Hawk", "Hawk id=ann", "Bearer or_x", 'Hawk id="a", ts="1", nonce="n"', 'Hawk id="a", ts="1", mac="m"',
     'Hawk id="a", ts="-1", nonce="n", mac="m"', 'Hawk id="a", ts="1e3", nonce="n", mac="m"',
     'Hawk id="a", id="b", ts="1", nonce="n", mac="m"', 'Hawk id="a", ts="1", nonce="", mac="m"',
     'Hawk id="a", ts="1", nonce="n", mac="m", app="x"', 'Hawk id="a", ts="1", nonce="n", mac="m", more="x"',
     'Hawk id="a\\"b", ts="1", nonce="n", mac="m"', f'Hawk id="a", ts="1", nonce="n", mac="{"m" * 3000}"',
     f'Hawk id="a", ts="{"1" * 13}", nonce="n", mac="m"', f'Hawk id="a", ts="1", nonce="{"n" * 201}", mac="m"'],
)  # fmt: skip
def test_what_is_no_header_of_hawk_is_refused(header: str) -> None:
    with pytest.raises(Unauthorized):
        parse_header(header)


@pytest.mark.parametrize(("now", "good"), [(940, True), (1000, True), (1060, True), (1061, False), (939, False)])
def test_a_minute_either_way_counts(now: int, good: bool) -> None:
    assert good == is_timely(Signed(user="a", at=1000, nonce="n", mac="m"), now)


def test_a_client_with_a_wrong_clock_learns_the_time() -> None:
    assert time_header(KEY, 1353832234.9).startswith('Hawk ts="1353832234", tsm="')
