"""Omaha v3: what is refused, with one clear line each."""

import pytest

from outrider.core.errors import OmahaError
from outrider.core.omaha import (
    MAX_APPS,
    MAX_EVENTS,
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    parse_request,
    parse_response,
)
from tests.core.omaha.test_read_write import offer, request

BOMB = (
    '<!DOCTYPE r [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
    '<request protocol="3.0"><app appid="&c;"/></request>'
)
REFUSED_REQUESTS = {
    "nothing": (b"", "empty"),
    "blanks": (b" \n", "empty"),
    "JSON": (b'{"request":{}}', "not XML"),
    "another root": (b"<response/>", "expected <request>"),
    "cut off": (request()[:-3], "not XML"),
    "two roots": (request() + request(), "not XML"),
    "no protocol": (request(attributes=""), "protocol ''"),
    "protocol 2": (request(attributes='protocol="2.0"'), "protocol '2.0'"),
    "no app": (request(""), "no <app>"),
    "an app without an id": (request("<app/>"), "without appid"),
    "an app with a blank id": (request('<app appid=" "/>'), "without appid"),
    "a word for an event type": (
        request('<app appid="a"><event eventtype="x"/></app>'),
        "eventtype 'x' isn't a number",
    ),
    "a number beyond reason": (request(f'<app appid="a"><event errorcode="{"9" * 5000}"/></app>'), "isn't a number"),
    "digits of another script": (request('<app appid="a"><event eventtype="\u0663"/></app>'), "isn't a number"),
    "too many apps": (request('<app appid="a"/>' * (MAX_APPS + 1)), f"more than {MAX_APPS} <app>"),
    "too many events of one app": (
        request('<app appid="a">' + "<event/>" * (MAX_EVENTS + 1) + "</app>"),
        f"more than {MAX_EVENTS} <event>",
    ),
    "too many events of two apps": (
        request(('<app appid="a">' + "<event/>" * (MAX_EVENTS // 2 + 1) + "</app>") * 2),
        f"more than {MAX_EVENTS} events",
    ),
    "too deep": (request("<a>" * 5000 + "</a>" * 5000), "not XML"),
    "too long": (request(" " * MAX_REQUEST_BYTES), f"at most {MAX_REQUEST_BYTES}"),
    "a DOCTYPE": (b'<!DOCTYPE request SYSTEM "http://127.0.0.1:9/x.dtd">' + request(), "DOCTYPE"),
    "a DOCTYPE further in": (request("<!DOCTYPE x>"), "DOCTYPE"),
    "a DOCTYPE in UTF-16": (BOMB.encode("utf-16"), "DOCTYPE"),
    "an entity bomb": (BOMB.encode(), "DOCTYPE"),
    "a file by an entity": (
        b'<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/hostname">]><request protocol="3.0"><app appid="&x;"/></request>',
        "DOCTYPE",
    ),
    "an entity without a DTD": (request('<app appid="&x;"/>'), "not XML"),
    "an encoding to hide in": (b'<?xml version="1.0" encoding="UTF-7"?>' + request(), "encoding 'utf-7'"),
    "bytes that aren't UTF-8": (request().replace(b'"a"', b'"\xff"'), "isn't utf-8"),
    "a control character": (request('<app appid="&#1;"/>'), "not XML"),
    "a zero byte": (request().replace(b'"a"', b'"\0"'), "not XML"),
}


@pytest.mark.parametrize(("body", "why"), REFUSED_REQUESTS.values(), ids=REFUSED_REQUESTS)
def test_a_bad_request_is_one_clear_line(body: bytes, why: str) -> None:
    with pytest.raises(OmahaError) as caught:
        parse_request(body)

    line = str(caught.value)
    assert line.startswith("omaha request: ")
    assert why in line
    assert "\n" not in line
    assert len(line) < 400


def test_a_line_number_says_where_the_event_is_wrong() -> None:
    with pytest.raises(OmahaError, match="line 3: eventresult"):
        parse_request(request('<app appid="a">\n\n<event eventtype="3" eventresult="good"/></app>'))


REFUSED_OFFERS = {
    "no urls": (offer(urls=""), "needs <urls>"),
    "a url without codebase": (offer(urls="<urls><url/></urls>"), "needs <urls>"),
    "a line break in an address": (offer(urls='<urls><url codebase="http://h/&#10;x"/></urls>'), "needs <urls>"),
    "no manifest": (offer().replace(b"manifest", b"manifesto"), "needs a <manifest>"),
    "no version": (offer(manifest=""), "with a version"),
    "no package": (offer(package=""), "no <package>"),
    "no name": (offer(package='<package size="7"/>'), "package name ''"),
    "a way out": (offer(package='<package name="../../etc/x" size="7"/>'), "can't be part of an address"),
    "a backslash": (offer(package='<package name="..\\x" size="7"/>'), "can't be part of an address"),
    "size 0": (offer(package='<package name="a" size="0"/>'), "size '0'"),
    "a negative size": (offer(package='<package name="a" size="-7"/>'), "size '-7'"),
    "no size": (offer(package='<package name="a"/>'), "size ''"),
    "a size beyond reason": (offer(package=f'<package name="a" size="{2**60}"/>'), "isn't a number of bytes"),
    "a short digest": (offer(package='<package name="a" size="7" hash_sha256="abcd"/>'), "isn't a SHA-256"),
    "a SHA-1 in hex": (offer(package=f'<package name="a" size="7" hash="{"ab" * 20}"/>'), "isn't a SHA-1"),
    "an action with half a digest": (offer(action='<action event="postinstall" sha256="AA=="/>'), "isn't a SHA-256"),
    "too many urls": (offer(urls="<urls>" + '<url codebase="http://h"/>' * 21 + "</urls>"), "more than 20 <url>"),
    "an app without status": (b'<response protocol="3.0"><app appid="a"/></response>', "without appid or status"),
    "an update check without status": (
        b'<response protocol="3.0"><app appid="a" status="ok"><updatecheck/></app></response>',
        "<updatecheck> without status",
    ),
    "a request": (request(), "expected <response>"),
    "a web page": (b"<!DOCTYPE html><html></html>", "DOCTYPE"),
    "Nebraska's answer to garbage": (b'<?xml version="1.0" encoding="UTF-8"?>\n', "not XML"),
    "too long": (b" " * (MAX_RESPONSE_BYTES + 1), f"at most {MAX_RESPONSE_BYTES}"),
}


@pytest.mark.parametrize(("body", "why"), REFUSED_OFFERS.values(), ids=REFUSED_OFFERS)
def test_a_bad_response_is_one_clear_line(body: bytes, why: str) -> None:
    with pytest.raises(OmahaError) as caught:
        parse_response(body)

    line = str(caught.value)
    assert line.startswith("omaha response: ")
    assert why in line
    assert "\n" not in line
