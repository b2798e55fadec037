"""The running service over HTTP: real uvicorn, real etcd."""

import base64
import hashlib
import http.client
import socket
from pathlib import Path
from typing import Any

import pytest
import requests

from outrider.core.omaha import MAX_REQUEST_BYTES, AppRequest, OmahaRequest, parse_request, render_request
from outrider.service.store.packages import Payload
from tests.sim.fake_etcd import FakeEtcd
from tests.support.captures import captured_files, read_http
from tests.support.omaha_clients import CLIENTS, Taken, check_form, outcomes
from tests.support.service import NOON, RunningServer, Service
from tests.support.service_examples import APP, SHA256, block, make_app, open_store
from tests.support.waiting import eventually

CAPTURED = captured_files("**/*.request.bin")
LIBRARY_APP = "da7508e2-9b33-490a-bead-60919b1acd76"
CHECK = render_request(
    OmahaRequest(apps=(AppRequest(app_id=APP, version="1.0.0", track="beta", machine_id="web-1", update_check=True),))
)


def post(service: Service, body: bytes, path: str = "/v1/update/", **headers: str) -> requests.Response:
    return requests.post(service.url + path, data=body, headers=headers, timeout=60, allow_redirects=False)


@pytest.mark.parametrize("path", ["/v1/update", "/v1/update/"])
@pytest.mark.parametrize("content_type", ["text/xml", "text/xml; charset=utf-8", "application/xml", "nonsense", ""])
def test_both_paths_answer_any_content_type_without_a_redirect(service: Service, path: str, content_type: str) -> None:
    make_app(service.store, version="2.0.0")

    answer = post(service, CHECK, path, **{"Content-Type": content_type})

    assert (200, "text/xml") == (answer.status_code, answer.headers["content-type"])
    assert b'<updatecheck status="ok">' in answer.content


@pytest.mark.parametrize("name", CAPTURED)
def test_requests_recorded_from_real_programs_get_answers_that_every_client_accepts(
    service: Service, name: str
) -> None:
    recorded = read_http(name)
    asked = parse_request(recorded.body).apps
    make_app(service.store, version="2.0.0")
    service.store.apps.create(app=LIBRARY_APP)
    service.store.packages.create(
        LIBRARY_APP, "2.0.0", Payload(url="http://files.example/lib.tar", size_bytes=9, sha256=SHA256)
    )
    service.store.channels.create(LIBRARY_APP, "open", version="2.0.0")
    service.store.groups.create(LIBRARY_APP, "open", channel="open")
    path = recorded.start.split()[1]

    answer = post(service, recorded.body, path, **{"Content-Type": recorded.headers["content-type"]})

    assert 200 == answer.status_code
    check_form(answer.content, *asked)
    made_of_it = outcomes(answer.content, asked[0])
    takes = asked[0].update_check
    assert dict.fromkeys(CLIENTS, takes) == {
        client: isinstance(outcome, Taken) for client, outcome in made_of_it.items()
    }


@pytest.mark.parametrize("name", CAPTURED)
def test_recorded_requests_for_an_unknown_app_crash_no_client(service: Service, name: str) -> None:
    body = read_http(name).body

    answer = post(service, body)

    assert 200 == answer.status_code
    check_form(answer.content, *parse_request(body).apps)
    outcomes(answer.content, parse_request(body).apps[0])


@pytest.mark.parametrize("why", ["group is paused", "2.0.0 is blocked"])
def test_an_instance_that_is_held_back_reads_the_reason_and_no_client_takes_it_for_an_error(
    service: Service, why: str
) -> None:
    make_app(service.store, version="2.0.0")
    if "paused" in why:
        service.store.groups.update(APP, "beta", paused=True)
    else:
        block(service.store, "2.0.0", "it crashed", NOON)

    answer = post(service, CHECK)

    asked = parse_request(CHECK).apps[0]
    assert why.encode() in answer.content
    assert b'status="noupdate"' in answer.content
    assert {"Idle"} == {type(outcome).__name__ for outcome in outcomes(answer.content, asked).values()}


@pytest.mark.parametrize("body", [b"", b"{}", b"<request", b"<response/>", b'<request protocol="3.0"/>', b"\x00\xff"])
def test_a_malformed_request_is_400_with_one_line_of_text(service: Service, body: bytes) -> None:
    answer = post(service, body)

    assert 400 == answer.status_code
    assert answer.headers["content-type"].startswith("text/plain")
    assert 1 == len(answer.text.strip().splitlines())
    assert answer.text.startswith("omaha request")


def test_a_dtd_is_refused(service: Service) -> None:
    bomb = b'<!DOCTYPE r [<!ENTITY a "aaaa">]>' + CHECK.split(b"\n", 1)[1]

    assert 400 == post(service, bomb).status_code


def test_a_request_that_announces_too_much_is_refused_unread(service: Service) -> None:
    connection = http.client.HTTPConnection(service.host, service.port, timeout=60)
    connection.putrequest("POST", "/v1/update")
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()

    answer = connection.getresponse()

    assert 413 == answer.status
    assert str(MAX_REQUEST_BYTES) in answer.read().decode()
    connection.close()


def test_a_request_that_does_not_say_how_long_it_is_is_cut_off_at_the_limit(service: Service) -> None:
    with socket.create_connection((service.host, service.port), timeout=60) as raw:
        raw.sendall(b"POST /v1/update HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        for _ in range(5):  # 80 KiB, and never an end
            raw.sendall(chunk)

        assert b"413" in raw.recv(1000).split(b"\r\n")[0]


def test_a_request_of_exactly_the_limit_is_read(service: Service) -> None:
    make_app(service.store, version="2.0.0")
    padded = CHECK + b"\n" * (MAX_REQUEST_BYTES - len(CHECK))

    assert 200 == post(service, padded).status_code
    assert 413 == post(service, padded + b"\n").status_code


@pytest.mark.parametrize("path", ["/v1/update", "/v1/update/"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_anything_but_post_is_405(service: Service, method: str, path: str) -> None:
    answer = requests.request(method, service.url + path, timeout=60, allow_redirects=False)

    assert (405, "POST") == (answer.status_code, answer.headers["allow"])


@pytest.fixture
def cut_off(tmp_path: Path) -> Any:
    """The service with an etcd that doesn't answer."""
    client = FakeEtcd().client("service")
    make_app(open_store(client))
    client.cut_off()
    with RunningServer(client, tmp_path / "payloads", "/outrider/v1") as running:
        yield running, client


def test_without_etcd_omaha_is_503_with_when_to_come_back(cut_off: Any) -> None:
    running, client = cut_off

    answer = requests.post(running.url + "/v1/update", data=CHECK, timeout=60)
    client.mend()
    after = requests.post(running.url + "/v1/update", data=CHECK, timeout=60)

    assert 503 == answer.status_code
    assert answer.headers["retry-after"] == answer.headers["x-retry-after"] == "10"
    assert 1 == len(answer.text.strip().splitlines())
    assert 200 == after.status_code


def test_without_etcd_the_process_is_healthy_and_not_ready(cut_off: Any) -> None:
    running, client = cut_off

    healthy, ready = (requests.get(running.url + path, timeout=60) for path in ("/healthz", "/readyz"))
    client.mend()
    later = requests.get(running.url + "/readyz", timeout=60)

    assert (200, 503, 200) == (healthy.status_code, ready.status_code, later.status_code)
    assert "no connection" in ready.text


def test_without_etcd_the_api_answers_with_a_problem_that_may_be_tried_again(cut_off: Any) -> None:
    running, _ = cut_off

    answer = requests.get(running.url + "/api/v1/apps", timeout=60)

    assert (503, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    assert ("unknown", "10") == (answer.json()["kind"], answer.headers["retry-after"])


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("GET", "/apps/absent", None, 404, "not-found"),
        ("GET", "/nothing", None, 404, "not-found"),
        ("POST", "/apps", {"id": "a/b"}, 400, "config"),
        ("POST", "/apps", {"id": APP}, 409, "conflict"),
        ("POST", "/apps", {"label": 7}, 422, "config"),
        ("POST", "/apps", {"lable": "x"}, 422, "config"),
        ("POST", "/apps", None, 422, "config"),
        ("DELETE", f"/apps/{APP}", None, 409, "conflict"),
        ("POST", f"/apps/{APP}/packages", {"version": "3.0.0"}, 400, "config"),
        ("POST", f"/apps/{APP}/packages", {"version": "3.0.0", "stored": "0" * 64, "name": "x"}, 404, "not-found"),
        ("POST", f"/apps/{APP}/packages", {"version": "3.0.0", "stored": "../x", "name": "x"}, 400, "config"),
        ("PATCH", f"/apps/{APP}/groups/beta", {"slots": 0}, 400, "config"),
        ("POST", f"/apps/{APP}/instances/web-1/command", {"verb": "explode"}, 422, "config"),
        ("PATCH", f"/apps/{APP}", {}, 405, "usage"),
    ],
)
def test_a_refusal_is_a_problem_document_of_one_line(
    service: Service, method: str, path: str, body: object, status: int, kind: str
) -> None:
    make_app(service.store)

    answer = requests.request(method, f"{service.url}/api/v1{path}", json=body, timeout=60)

    assert (status, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    problem = answer.json()
    assert (status, kind) == (problem["status"], problem["kind"])
    assert 1 == len(problem["detail"].splitlines())


def test_the_api_describes_itself(service: Service) -> None:
    answer = requests.get(service.url + "/api/v1/openapi.json", timeout=60)

    document = answer.json()
    assert document["openapi"].startswith("3.")
    assert {
        "/v1/update",
        "/api/v1/payloads",
        "/packages/{app}/{version}/{name}",
        "/api/v1/apps/{app}/groups/{group}/target",
        "/api/v1/apps/{app}/blocks/{version}",
    } <= set(document["paths"])
    assert "application/problem+json" in document["paths"]["/api/v1/apps"]["get"]["responses"]["503"]["content"]


def upload(service: Service, content: bytes, version: str = "3.0.0") -> str:
    stored = requests.post(f"{service.url}/api/v1/payloads", data=content, timeout=30).json()
    made = requests.post(
        f"{service.url}/api/v1/apps/{APP}/packages",
        json={"version": version, "stored": stored["sha256"], "name": "web.tar"},
        timeout=30,
    )
    assert 201 == made.status_code, made.text
    return str(made.json()["download_url"])


def test_an_uploaded_file_is_measured_and_served_at_the_address_that_omaha_names(service: Service) -> None:
    make_app(service.store)
    content = bytes(range(256)) * 20_000  # 5 MB, several chunks
    where = upload(service, content)
    service.store.channels.save(APP, "beta", version="3.0.0")

    answer = requests.get(where, timeout=30)

    offered = post(service, CHECK).text
    assert content == answer.content
    assert str(len(content)) == answer.headers["content-length"]
    assert f'"{hashlib.sha256(content).hexdigest()}"' == answer.headers["etag"]
    assert "immutable" in answer.headers["cache-control"]
    assert where == f"{service.url}/packages/{APP}/3.0.0/web.tar"
    assert f'codebase="{service.url}/packages/{APP}/3.0.0/"' in offered
    sha1 = base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode("ascii")
    assert f'hash="{sha1}" size="{len(content)}"' in offered


def test_sha1_of_a_payload_elsewhere_is_known_when_the_same_bytes_are_stored(service: Service) -> None:
    make_app(service.store)
    upload(service, b"the same bytes")
    sha256 = hashlib.sha256(b"the same bytes").hexdigest()
    where = {"url": "http://files.example/web.tar", "size_bytes": 14}
    packages = f"{service.url}/api/v1/apps/{APP}/packages"

    same = requests.post(packages, json={"version": "4.0.0", "sha256": sha256, **where}, timeout=30)
    other = requests.post(packages, json={"version": "5.0.0", "sha256": "0" * 64, **where}, timeout=30)

    sha1 = hashlib.sha1(b"the same bytes", usedforsecurity=False).digest()
    assert base64.b64encode(sha1).decode("ascii") == same.json()["sha1"]
    assert "" == other.json()["sha1"]


def test_a_download_can_be_resumed(service: Service) -> None:
    make_app(service.store)
    where = upload(service, b"0123456789")

    whole = requests.get(where, timeout=60)
    rest = requests.get(where, headers={"Range": "bytes=4-", "If-Range": whole.headers["etag"]}, timeout=60)
    beyond = requests.get(where, headers={"Range": "bytes=10-"}, timeout=60)

    assert (206, b"456789", "bytes 4-9/10") == (rest.status_code, rest.content, rest.headers["content-range"])
    assert 416 == beyond.status_code
    assert "bytes" == whole.headers["accept-ranges"]


def test_a_resumed_download_of_another_file_starts_again(service: Service) -> None:
    make_app(service.store)
    where = upload(service, b"0123456789")

    answer = requests.get(where, headers={"Range": "bytes=4-", "If-Range": '"another"'}, timeout=60)

    assert (200, b"0123456789") == (answer.status_code, answer.content)


def test_head_tells_the_size_and_an_unchanged_file_is_not_sent_again(service: Service) -> None:
    make_app(service.store)
    where = upload(service, b"0123456789")

    head = requests.head(where, timeout=60)
    same = requests.get(where, headers={"If-None-Match": head.headers["etag"]}, timeout=60)

    assert (200, "10", b"") == (head.status_code, head.headers["content-length"], head.content)
    assert (304, b"") == (same.status_code, same.content)


@pytest.mark.parametrize("path", ["1.0.0/web-1.0.0.tar", "3.0.0/other.tar", "3.0.0/..%2Fweb.tar", "9.9.9/web.tar"])
def test_only_the_stored_payload_of_a_package_is_served(service: Service, path: str) -> None:
    make_app(service.store)
    upload(service, b"0123456789")

    assert 404 == requests.get(f"{service.url}/packages/{APP}/{path}", timeout=60).status_code


def test_an_upload_that_breaks_off_leaves_nothing_behind(service: Service) -> None:
    with socket.create_connection((service.host, service.port), timeout=60) as raw:
        raw.sendall(
            b"POST /api/v1/payloads HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 3_000_000
        )
        eventually(lambda: list(service.payload_dir.rglob("*.part")))

    eventually(lambda: not [path for path in service.payload_dir.rglob("*") if path.is_file()])


def test_an_empty_upload_is_refused(service: Service) -> None:
    answer = requests.post(f"{service.url}/api/v1/payloads", data=b"", timeout=60)

    assert (400, "config") == (answer.status_code, answer.json()["kind"])


def test_a_forged_host_header_is_not_repeated_in_an_offer(service: Service) -> None:
    make_app(service.store)
    upload(service, b"0123456789")
    service.store.channels.save(APP, "beta", version="3.0.0")

    answer = post(service, CHECK, Host='evil"><x')

    assert b"evil" not in answer.content
