"""Whatever comes, Omaha's readers return a type or raise ``OmahaError``; whatever we write, they read."""

import re
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from outrider.core.errors import OmahaError
from outrider.core.omaha import (
    MAX_EVENTS,
    MAX_REQUEST_BYTES,
    AppAnswer,
    AppRequest,
    CheckError,
    NoUpdate,
    Offer,
    OfferedPackage,
    OmahaEvent,
    OmahaRequest,
    OmahaResponse,
    parse_request,
    parse_response,
    render_request,
    render_response,
)
from tests.support.captures import captured_files, read_http

SEEDS = [read_http(name).body for name in captured_files("**/*.bin")]
NASTY = [
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
    b"&b;",
    b"&#0;",
    b"&#xD800;",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"<?xml encoding='utf-16'?>",
    b"<x:app xmlns:x='y'>",
    b"x:appid='a'",
    b"\xff\xfe",
    b"\0",
    b"</app>",
    b"<app",
    b'="',
    b"9" * 400,
    b"-",
    b"<a>" * 300,
]


# A busy machine is no finding: the test run's own time limit is enough.
patient = settings(deadline=None, max_examples=50)
# the long form of tests/service/omaha/test_fuzz.py sends ten thousand inputs through the same readers
few = settings(patient, max_examples=20)


def refusal(parse: Callable[[bytes], object], body: bytes) -> str:
    """Why ``body`` was refused; empty when it was read."""
    try:
        parse(body)
    except OmahaError as error:
        return str(error) or "refused without a word"
    return ""


def check_reading(body: bytes) -> None:
    """Both readers, on anything: a type or ``OmahaError`` of one short line."""
    for parse in (parse_request, parse_response):
        line = refusal(parse, body)
        assert "\n" not in line
        assert len(line) < 1000


@few
@given(st.binary(max_size=2000))
def test_garbage_is_refused_and_nothing_worse(body: bytes) -> None:
    check_reading(body)


@few
@given(st.text(max_size=500), st.sampled_from(["utf-8", "utf-16", "utf-16-le", "latin-1"]))
def test_garbage_in_any_encoding_is_refused_and_nothing_worse(text: str, encoding: str) -> None:
    declared = f'<?xml version="1.0" encoding="{encoding}"?><request protocol="3.0">{text}</request>'

    check_reading(declared.encode(encoding, errors="replace"))


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A recorded message with some bytes replaced, removed, doubled, or something nasty put in."""
    body = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 40)))
        piece = draw(st.one_of(st.sampled_from(NASTY), st.binary(max_size=8), st.just(body[start:end] * 2)))
        body = body[:start] + piece + body[end:]
    return body


@few
@given(mutations())
def test_a_damaged_message_is_read_or_refused_and_nothing_worse(body: bytes) -> None:
    check_reading(body)


@st.composite
def trees(draw: st.DrawFn) -> bytes:
    """Well-formed XML of the right words in wrong places, with wrong values."""
    tags = ["app", "ping", "updatecheck", "event", "os", "urls", "url", "manifest", "packages", "package", "actions"]
    names = ["appid", "status", "protocol", "version", "size", "hash", "hash_sha256", "codebase", "eventtype", "name"]
    values = st.one_of(
        st.sampled_from(["ok", "3.0", "1", "0", "-1", "noupdate", "error-internal", "", " ", "postinstall", "a" * 64]),
        st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF), max_size=10),
    )
    root = etree.Element(
        draw(st.sampled_from(["request", "response"])), {"protocol": draw(st.sampled_from(["3.0", "x"]))}
    )
    elements = [root]
    for _ in range(draw(st.integers(0, 25))):
        parent = draw(st.sampled_from(elements))
        child = etree.SubElement(parent, draw(st.sampled_from(tags)))
        for name, value in draw(st.dictionaries(st.sampled_from(names), values, max_size=4)).items():
            child.set(name, value)
        elements.append(child)
    return etree.tostring(root)


@few
@given(trees())
def test_the_right_words_in_wrong_places_are_read_or_refused_and_nothing_worse(body: bytes) -> None:
    check_reading(body)


PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co"]), max_size=12)
ANY = st.text(st.characters(), max_size=12)
WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
NUMBER = st.integers(0, 10**9)
EVENTS = st.builds(
    OmahaEvent,
    type=NUMBER,
    result=NUMBER,
    error_code=st.integers(-(2**31), 2**32),
    previous_version=PLAIN,
    next_version=PLAIN,
)
APPS = st.builds(
    AppRequest,
    app_id=WORD,
    version=PLAIN,
    track=PLAIN,
    machine_id=PLAIN,
    boot_id=PLAIN,
    alias=PLAIN,
    oem=PLAIN,
    board=PLAIN,
    ping=st.booleans(),
    update_check=st.booleans(),
    events=st.lists(EVENTS, max_size=4).map(tuple),
)
REQUESTS = st.builds(
    OmahaRequest,
    apps=st.lists(APPS, min_size=1, max_size=4).map(tuple),
    updater=PLAIN,
    updater_version=PLAIN,
    install_source=PLAIN,
    session_id=PLAIN,
    user_id=PLAIN,
    request_id=PLAIN,
    platform=PLAIN,
    os_version=PLAIN,
    service_pack=PLAIN,
    arch=PLAIN,
)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
PACKAGES = st.builds(
    OfferedPackage, name=WORD, size_bytes=st.integers(1, 2**53), sha256=DIGESTS, required=st.booleans()
)
OFFERS = st.builds(
    Offer,
    version=WORD,
    codebases=st.lists(WORD.map(lambda word: f"http://{word}/"), min_size=1, max_size=3).map(tuple),
    packages=st.lists(PACKAGES, min_size=1, max_size=3).map(tuple),
)
CHECKS = st.one_of(
    st.none(),
    OFFERS,
    st.builds(NoUpdate, reason=PLAIN, poll_interval_s=st.none() | NUMBER),
    st.builds(CheckError, status=st.just("error-internal")),
)
ANSWERS = st.builds(
    AppAnswer,
    app_id=WORD,
    status=WORD,
    ping=st.booleans(),
    update_check=CHECKS,
    events=st.integers(0, MAX_EVENTS),
)
RESPONSES = st.builds(OmahaResponse, apps=st.lists(ANSWERS, max_size=4).map(tuple), server=WORD, elapsed_seconds=NUMBER)


@patient
@given(REQUESTS)
def test_every_request_means_the_same_after_being_written_and_read(request: OmahaRequest) -> None:
    assert request == parse_request(render_request(request))


@patient
@given(RESPONSES)
def test_every_response_means_the_same_after_being_written_and_read(response: OmahaResponse) -> None:
    assert response == parse_response(render_response(response))


@patient
@given(ANY, ANY)
def test_any_text_at_all_can_be_written(one: str, other: str) -> None:
    """Our own texts may hold what XML can't: a reason with an escape sequence out of a log, a broken alias."""
    answer = AppAnswer(app_id=f"a{one}", update_check=NoUpdate(reason=other))

    read = parse_response(render_response(OmahaResponse(apps=(answer,))))
    sent = parse_request(render_request(OmahaRequest(apps=(AppRequest(app_id=f"a{one}", alias=other),))))

    legal = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
    assert NoUpdate(reason=legal.sub("\ufffd", other)) == read.apps[0].update_check
    assert legal.sub("\ufffd", other) == sent.apps[0].alias


@few
@given(st.sampled_from(SEEDS), st.integers(1, 400))
def test_what_is_too_long_is_refused_unread(body: bytes, times: int) -> None:
    long = body + b" " * MAX_REQUEST_BYTES + b"<" * times

    assert f"omaha request: {len(long)} bytes, at most {MAX_REQUEST_BYTES} are read" == refusal(parse_request, long)
