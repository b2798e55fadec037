"""Omaha v3 by values: what is read, what is refused, and what is written."""

import base64
import hashlib
from dataclasses import replace

import pytest

from outrider.core.errors import OmahaError
from outrider.core.omaha import (
    AppAnswer,
    AppRequest,
    CheckError,
    FailureCode,
    NoUpdate,
    Offer,
    OfferedPackage,
    OmahaEvent,
    OmahaRequest,
    OmahaResponse,
    downloaded,
    downloading,
    failed,
    installed,
    is_progress,
    parse_request,
    parse_response,
    render_request,
    render_response,
    running,
    waiting_for_turn,
)

SHA256 = hashlib.sha256(b"payload").hexdigest()
SHA256_BASE64 = base64.b64encode(bytes.fromhex(SHA256)).decode()
OTHER_SHA256 = hashlib.sha256(b"another").hexdigest()

FULL_REQUEST = OmahaRequest(
    apps=(
        AppRequest(
            app_id="{ABC}",
            version="1.0.0",
            track="stable",
            machine_id="m1",
            boot_id="b1",
            alias="Küche",
            oem="qemu",
            board="amd64-usr",
            ping=True,
            update_check=True,
            target_version_prefix="1.2",
            events=(
                OmahaEvent(type=3, result=2, previous_version="0.9.0"),
                OmahaEvent(type=3, result=0, error_code=44, previous_version="1.0.0", next_version="1.1.0"),
            ),
        ),
        AppRequest(app_id="other"),
    ),
    updater="outrider-1",
    updater_version="outrider-1",
    install_source="ondemandupdate",
    session_id="s1",
    user_id="u1",
    request_id="r1",
    platform="linux",
    os_version="12",
    service_pack="x",
    arch="x64",
)
FULL_RESPONSE = OmahaResponse(
    apps=(
        AppAnswer(
            app_id="{ABC}",
            ping=True,
            update_check=Offer(
                version="1.2.3-rc.1",
                codebases=("http://one.example/p/", "http://two.example/p/"),
                packages=(
                    OfferedPackage(name="a.tar", size_bytes=7, sha1="mAFznarkTsUpPU4fU9P00tQm2Rw=", sha256=SHA256),
                    OfferedPackage(name="b.txt", size_bytes=1, sha256=OTHER_SHA256, required=False),
                ),
            ),
            events=2,
        ),
        AppAnswer(app_id="two", update_check=NoUpdate(reason='held <back> & "so"', poll_interval_s=90)),
        AppAnswer(app_id="three", status="error-internal", update_check=CheckError(status="error-internal")),
        AppAnswer(app_id="four", ping=True),
    ),
    server="ours",
    elapsed_seconds=86399,
)


def request(inside: str = '<app appid="a"/>', attributes: str = 'protocol="3.0"') -> bytes:
    return f"<request {attributes}>{inside}</request>".encode()


def offer(
    *,
    urls: str = '<urls><url codebase="http://h/p"/></urls>',
    package: str = f'<package name="a.tar" size="7" hash_sha256="{SHA256}"/>',
    action: str = "",
    manifest: str = 'version="1.2.3"',
) -> bytes:
    return (
        '<response protocol="3.0"><app appid="a" status="ok"><updatecheck status="ok">'
        f"{urls}<manifest {manifest}><packages>{package}</packages><actions>{action}</actions></manifest>"
        "</updatecheck></app></response>"
    ).encode()


def read_offer(body: bytes) -> Offer:
    check = parse_response(body).apps[0].update_check
    assert isinstance(check, Offer)
    return check


def test_a_request_means_the_same_after_being_written_and_read() -> None:
    assert FULL_REQUEST == parse_request(render_request(FULL_REQUEST))


def test_a_response_means_the_same_after_being_written_and_read() -> None:
    assert FULL_RESPONSE == parse_response(render_response(FULL_RESPONSE))


def test_update_engines_full_check_is_read() -> None:
    """As its source writes it: a blank before the bracket, indents, attributes that we have no use for."""
    body = b"""<?xml version="1.0" encoding="UTF-8"?>
<request protocol="3.0" version="update_engine-0.4.10" updaterversion="update_engine-0.4.10" installsource="scheduler"
ismachine="1">
    <os version="Chateau" platform="CoreOS" sp="1.0.0_x86_64"></os>
    <app appid="{e96281a6-d1af-4bde-9a0a-97b76e56dc57}" version="1.0.0" track="stable" bootid="{b}" oem="qemu"
    oemversion="" alephversion="1.0.0" machineid="m" machinealias="" lang="en-US" board="amd64-usr" hardware_class=""
    delta_okay="false" >
        <ping active="1"></ping>
        <updatecheck></updatecheck>
        <event eventtype="3" eventresult="2" previousversion=""></event>
    </app>
</request>
"""

    read = parse_request(body)

    (app,) = read.apps
    assert ("update_engine-0.4.10", "scheduler", False) == (read.updater, read.install_source, read.on_demand)
    assert ("CoreOS", "Chateau", "1.0.0_x86_64") == (read.platform, read.os_version, read.service_pack)
    assert ("e96281a6-d1af-4bde-9a0a-97b76e56dc57", "amd64-usr", "qemu") == (app.app_key, app.board, app.oem)
    assert (True, True, ("3:2",)) == (app.ping, app.update_check, tuple(event.code for event in app.events))


@pytest.mark.parametrize(
    "app_id", ["abc", "{ABC}", " {aBc} ", "{ abc }"], ids=["plain", "braces", "blanks outside", "blanks inside"]
)
def test_an_app_id_is_kept_as_sent_and_found_in_any_spelling(app_id: str) -> None:
    (app,) = parse_request(request(f'<app appid="{app_id}"/>')).apps

    assert (app_id, "abc") == (app.app_id, app.app_key)


def test_unknown_elements_and_attributes_are_tolerated() -> None:
    plain = parse_request(request('<app appid="a"><ping/></app>'))

    odd = parse_request(
        request(
            '<hw memory="4"/><app appid="a" cohort="x"><data name="i"/>text<ping rd="3"/><x><event/></x></app><!-- -->',
            'protocol="3.0" brand="GGLS"',
        )
    )

    assert plain == odd


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + request('<app appid="\u00e9"/>'),
        b'<?xml version="1.0"?>' + request('<app appid="\u00e9"/>'),
        b"<?xml version='1.0' encoding='utf-8'?>\n" + request('<app appid="\u00e9"/>'),
        request('<app appid="\u00e9"/>').decode().encode("utf-16"),
        request('<app appid="\u00e9"/>').decode().encode("utf-16-le"),
        ('<?xml version="1.0" encoding="UTF-16"?>' + request('<app appid="\u00e9"/>').decode()).encode("utf-16-be"),
        ('<?xml version="1.0" encoding="ISO-8859-1"?>' + request('<app appid="\u00e9"/>').decode()).encode("latin-1"),
        b'<?xml version="1.0" encoding="UTF-16"?>' + request('<app appid="\u00e9"/>'),
    ],
    ids=["utf-8 mark", "no encoding", "utf-8", "utf-16 mark", "utf-16 bare", "utf-16 declared", "latin-1", "wrong"],
)
def test_the_encoding_is_found_by_mark_declaration_or_default(body: bytes) -> None:
    assert "\u00e9" == parse_request(body).apps[0].app_id


@pytest.mark.parametrize("protocol", ["3.0", "3.1"])
def test_any_third_protocol_is_served(protocol: str) -> None:
    assert protocol == parse_request(request(attributes=f'protocol="{protocol}"')).protocol


def test_both_dialects_of_a_sha256_are_read() -> None:
    hexadecimal = read_offer(offer(package=f'<package name="a" size="7" hash_sha256="{SHA256.upper()}"/>'))
    in_base64 = read_offer(offer(package=f'<package name="a" size="7" hash_sha256="{SHA256_BASE64}"/>'))

    assert SHA256 == hexadecimal.sha256
    assert SHA256 == in_base64.sha256


def test_the_postinstall_action_names_the_digest_when_the_package_does_not() -> None:
    found = read_offer(
        offer(
            package='<package name="a" size="7"/><package name="b" size="1"/>',
            action=f'<action event="install"/><action event="postinstall" sha256="{SHA256_BASE64}"/>',
        )
    )

    assert SHA256 == found.sha256
    assert "" == found.packages[1].sha256


def test_old_names_in_an_action_are_tolerated() -> None:
    old = f'<action event="postinstall" sha256="{SHA256_BASE64}" ChromeOSVersion="1" IsDelta="false" needsadmin="x"/>'

    assert SHA256 == read_offer(offer(package='<package name="a" size="7"/>', action=old)).sha256


def test_two_different_digests_for_one_payload_are_refused() -> None:
    wrong = base64.b64encode(bytes.fromhex(OTHER_SHA256)).decode()

    with pytest.raises(OmahaError, match="different SHA-256"):
        read_offer(offer(action=f'<action event="postinstall" sha256="{wrong}"/>'))


def test_an_offer_without_any_sha256_is_read_as_such() -> None:
    assert "" == read_offer(offer(package='<package name="a" size="7"/>')).sha256


@pytest.mark.parametrize("codebase", ["http://h/p", "http://h/p/", "http://h/p//"])
@pytest.mark.parametrize("name", ["a.tar", "/a.tar"])
def test_codebase_and_name_are_joined_with_one_slash(codebase: str, name: str) -> None:
    body = offer(
        urls=f'<urls><url codebase="{codebase}"/><url codebase="http://other"/></urls>',
        package=f'<package name="{name}" size="7"/>',
    )

    assert ("http://h/p/a.tar", "http://other/a.tar") == read_offer(body).urls()


def test_of_several_manifests_the_first_counts() -> None:
    body = offer().replace(b"</updatecheck>", b'<manifest version="9.9.9"/></updatecheck>')

    assert "1.2.3" == read_offer(body).version


def test_malformed_hints_are_ignored() -> None:
    body = (
        b'<response protocol="3.0"><daystart elapsed_seconds="soon"/>'
        b'<app appid="a" status="ok"><updatecheck status="noupdate" PollInterval="-3"/></app></response>'
    )

    read = parse_response(body)

    assert (0, NoUpdate()) == (read.elapsed_seconds, read.apps[0].update_check)


def test_an_answer_is_found_by_exact_spelling_first() -> None:
    other, exact = AppAnswer(app_id="ABC"), AppAnswer(app_id="{abc}")
    response = OmahaResponse(apps=(other, exact))

    assert exact is response.answer_to("{abc}")
    assert other is response.answer_to("{ABC}")
    assert response.answer_to("abcd") is None


@pytest.mark.parametrize("odd", ["a\0b", "a\x1bb", "a\ud800b", "a\ufffeb", "a\x0bb"])
def test_a_character_that_xml_cannot_hold_is_replaced(odd: str) -> None:
    response = render_response(OmahaResponse(apps=(AppAnswer(app_id="a", update_check=NoUpdate(reason=odd)),)))
    sent = render_request(OmahaRequest(apps=(AppRequest(app_id="a", alias=odd, version=odd),)))

    assert NoUpdate(reason="a\ufffdb") == parse_response(response).apps[0].update_check
    assert ("a\ufffdb", "a\ufffdb") == (parse_request(sent).apps[0].alias, parse_request(sent).apps[0].version)


def test_line_breaks_and_tabs_survive_in_an_attribute() -> None:
    reason = "one\ntwo\tthree\rfour"
    response = render_response(OmahaResponse(apps=(AppAnswer(app_id="a", update_check=NoUpdate(reason=reason)),)))

    assert NoUpdate(reason=reason) == parse_response(response).apps[0].update_check


def test_what_is_empty_is_left_out_of_a_request_but_for_the_version() -> None:
    assert (
        b'<?xml version="1.0" encoding="UTF-8"?>\n'
        b'<request protocol="3.0"><os/><app appid="a" version=""><updatecheck/></app></request>'
    ) == render_request(OmahaRequest(apps=(AppRequest(app_id="a", update_check=True),)))


def test_an_offer_is_written_as_the_servers_of_this_family_write_it() -> None:
    package = OfferedPackage(name="web-1.2.3.tar", size_bytes=8, sha1="mAFznarkTsUpPU4fU9P00tQm2Rw=", sha256=SHA256)
    found = Offer(version="1.2.3", codebases=("http://registry.local/web",), packages=(package,))
    answer = AppAnswer(app_id="{A}", ping=True, update_check=found, events=1)

    body = render_response(OmahaResponse(apps=(answer,), server="ours", elapsed_seconds=5))

    assert (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<response protocol="3.0" server="ours"><daystart elapsed_seconds="5"/><app appid="{A}" status="ok">'
        '<ping status="ok"/><updatecheck status="ok"><urls><url codebase="http://registry.local/web/"/></urls>'
        '<manifest version="1.2.3"><packages><package name="web-1.2.3.tar" hash="mAFznarkTsUpPU4fU9P00tQm2Rw=" '
        'size="8" required="true"/></packages><actions><action event="postinstall" '
        f'sha256="{SHA256_BASE64}" DisablePayloadBackoff="true"/></actions></manifest></updatecheck>'
        '<event status="ok"/></app></response>'
    ).encode() == body


def test_the_events_have_the_codes_that_other_servers_know() -> None:
    versions = {"previous_version": "1.0.0", "next_version": "2.0.0"}
    story = [downloading(**versions), downloaded(**versions), waiting_for_turn(**versions), installed(**versions)]

    assert ["13:1", "14:1", "800:1", "3:1"] == [event.code for event in story]
    assert {("1.0.0", "2.0.0")} == {(event.previous_version, event.next_version) for event in story}
    assert [True, True, True, False] == [is_progress(event) for event in story]
    assert ("3:2", "1.0.0") == (
        running(previous_version="1.0.0").code,
        running(previous_version="1.0.0").previous_version,
    )


def test_a_failure_carries_a_code_that_update_engine_has_a_name_for() -> None:
    assert [1, 5, 9, 10, 11, 12, 14, 35, 36, 44, 2000] == [int(code) for code in FailureCode]
    event = failed(FailureCode.ROLLED_BACK, previous_version="1.0.0", next_version="2.0.0")

    assert OmahaEvent(type=3, result=0, error_code=44, previous_version="1.0.0", next_version="2.0.0") == event
    assert not is_progress(event)
    assert (
        44
        == parse_request(render_request(replace(FULL_REQUEST, apps=(AppRequest(app_id="a", events=(event,)),))))
        .apps[0]
        .events[0]
        .error_code
    )
