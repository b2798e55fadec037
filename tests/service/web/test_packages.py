"""The page of an app's packages: what it shows, and the upload of a file, in whatever pieces it comes."""

import hashlib
import json
from pathlib import Path

import pytest

from outrider.core.errors import ConfigError
from outrider.service.connections import is_upload
from outrider.service.store.store import Store
from outrider.service.web.pages.packages import ON_A_PAGE
from outrider.service.web.upload_forms import UploadForm
from outrider.service.web.upload_requests import payload_name
from tests.service.web.visitors import logged_in
from tests.sim.fake_etcd import FakeCluster
from tests.support.browsers import Browser
from tests.support.in_process import application_over
from tests.support.service_examples import APP, make_app, payload_of
from tests.support.wall_clock import WallClock

PAGE = f"/apps/{APP}/packages"
UPLOAD = f"{PAGE}/upload"
BOUNDARY = "----WebKitFormBoundaryX7"
CONTENT = b"a file\r\n--not the end\r\n----WebKitFormBoundary\r\n" * 3


@pytest.fixture
def browser(client: FakeCluster, store: Store, tmp_path: Path, clock: WallClock) -> Browser:
    """An operator at an app with two packages."""
    make_app(store)
    browser = Browser(application_over(client, tmp_path, now=clock, open_to_all=True))
    browser.get(PAGE)
    return browser


def body_of(fields: dict[str, str], content: bytes = CONTENT, filename: str = "web.tar") -> bytes:
    """What a browser sends."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
    head += "Content-Type: application/x-tar\r\n\r\n"
    return b"".join(parts) + head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def send(browser: Browser, body: bytes, **headers: str) -> tuple[int, str]:
    answer = browser._ask(
        "POST",
        UPLOAD,
        body,
        {"origin": "http://localhost", "content_type": f"multipart/form-data; boundary={BOUNDARY}"} | headers,
    )
    return answer.status, answer.body.decode()


def fields(browser: Browser, **more: str) -> dict[str, str]:
    return {"csrf": browser.fields()["csrf"], "version": "3.0.0", "release_notes": "", "arch": "all"} | more


@pytest.mark.parametrize("size", [1, 2, 7, 31, 64, 10_000])
def test_a_form_is_read_in_whatever_pieces_it_comes(size: int) -> None:
    body = body_of({"csrf": "abc", "version": "3.0.0", "release_notes": "", "arch": "ü\r\nb"})
    form = UploadForm(f'multipart/form-data; boundary="{BOUNDARY}"')

    file = b"".join(form.feed(body[at : at + size]) for at in range(0, len(body), size))

    assert file == CONTENT
    assert form.is_whole
    assert {"csrf": "abc", "version": "3.0.0", "release_notes": "", "arch": "ü\r\nb"} == form.fields
    assert "web.tar" == form.filename


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="a"\r\n\r\n'.encode() + b"x" * 70_000, "longer than"),
        (b"x" * 9000, "has no end"),
        (f"--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nx".encode(), "has no name"),
        (f"--{BOUNDARY}--\r\n".encode(), "ends without one"),
        (body_of({f"n{number}": "" for number in range(30)}), "more than 20 fields"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        UploadForm(f"multipart/form-data; boundary={BOUNDARY}").feed(body)
    with pytest.raises(ConfigError, match="multipart/form-data"):
        UploadForm("application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    ("said", "name"),
    [("web.tar", "web.tar"), (r"C:\temp\web 1.tar", "web-1.tar"), ("../../etc/passwd", "passwd"), ("..", "payload")],
)
def test_a_browsers_file_name_becomes_a_part_of_an_address(said: str, name: str) -> None:
    assert name == payload_name(said)


def test_a_file_becomes_a_package_and_is_audited(browser: Browser, store: Store) -> None:
    """
    1. a form with a file is sent: the answer leads back to the page, which says what was made
    2. the package has the file's digest, name and notes; the file can be downloaded
    3. the audit log has the upload and the package
    """
    status, _ = send(browser, body_of(fields(browser, release_notes="<b>new</b>")))
    assert 303 == status
    browser.get(PAGE)

    made = store.packages.get(APP, "3.0.0")
    assert (hashlib.sha256(CONTENT).hexdigest(), "web.tar", "<b>new</b>", None) == (
        made.sha256,
        made.name,
        made.release_notes,
        made.url,
    )
    assert "package 3.0.0: web.tar" in browser.text
    assert "&lt;b&gt;new" in browser.text
    assert CONTENT == browser.get(f"/packages/{APP}/3.0.0/web.tar").body
    browser.get("/audit")
    assert f"POST {UPLOAD}" in browser.text
    assert "create payload" in browser.text
    assert "create package" in browser.text


def test_a_script_is_told_in_json_and_a_version_has_one_package(browser: Browser) -> None:
    script = {"x_outrider_script": "1"}

    status, told = send(browser, body_of(fields(browser)), **script)
    assert (200, "no channel points at it yet") == (status, json.loads(told)["notes"][-1])

    browser.get(PAGE)
    status, told = send(browser, body_of(fields(browser)), **script)
    assert 409 == status
    assert "already has a package" in json.loads(told)["problem"]


def test_a_foreign_or_broken_upload_stores_nothing(browser: Browser, tmp_path: Path) -> None:
    good = fields(browser)
    whole = body_of(good)

    assert 403 == send(browser, body_of(good | {"csrf": "forged"}))[0]
    assert 400 == send(browser, whole[:-40])[0]
    assert 400 == send(browser, body_of(good, filename=""))[0]
    assert 400 == send(browser, body_of(good, content=b""))[0]

    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]
    browser.get(PAGE)
    assert "2 packages" in browser.text


def test_a_form_of_another_site_stores_nothing(store: Store, tmp_path: Path, clock: WallClock) -> None:
    make_app(store)
    browser = logged_in(store, tmp_path, clock, "operator")
    browser.get(PAGE)
    whole = body_of(fields(browser))

    assert 403 == send(browser, whole, origin="http://evil.example")[0]
    assert 403 == send(browser, whole, sec_fetch_site="cross-site")[0]
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]
    assert 303 == send(browser, whole)[0]


def test_a_viewer_reads_and_uploads_nothing(store: Store, tmp_path: Path, clock: WallClock) -> None:
    make_app(store)
    browser = logged_in(store, tmp_path, clock, "viewer")

    assert 200 == browser.get(PAGE).status
    assert "data-upload" not in browser.text
    assert f"{PAGE}/1.0.0/delete" not in browser.text
    assert 403 == send(browser, body_of({"csrf": "x"}))[0]
    assert 403 == browser.get(f"{PAGE}/1.0.0/delete").status


def test_packages_are_listed_with_what_points_at_them(browser: Browser) -> None:
    browser.get(PAGE)

    two, one = browser.text.index('id="p-2.0.0"'), browser.text.index('id="p-1.0.0"')
    assert two < one
    assert 'chip tone-good">beta<' in browser.text[one:]
    assert f"/apps/{APP}/groups/beta" in browser.text[one:]
    assert 'chip tone-good">beta<' not in browser.text[two:one]
    assert 404 == browser.get("/apps/nothing/packages").status


def test_many_packages_are_listed_page_by_page(browser: Browser, store: Store) -> None:
    for number in range(ON_A_PAGE):
        store.packages.create(APP, f"0.{number}.0", payload_of(f"0.{number}.0"))

    browser.get(PAGE)
    assert f"{ON_A_PAGE + 2} packages" in browser.text
    assert 'id="p-0.2.0"' in browser.text
    assert 'id="p-0.1.0"' not in browser.text
    following = browser.text.split('">Older<')[0].rpartition('href="')[2]
    browser.get(following)

    assert ["0.1.0", "0.0.0"] == [version for version in ("0.1.0", "0.0.0", "0.2.0") if f"p-{version}" in browser.text]
    assert ">Older<" not in browser.text
    assert 400 == browser.get(f"{PAGE}?after=***").status


def test_a_package_is_deleted_unless_something_needs_it(browser: Browser, store: Store) -> None:
    browser.get(f"{PAGE}/1.0.0/delete")
    assert "in use by channels beta" in browser.text
    assert " disabled>Delete" in browser.text

    browser.get(f"{PAGE}/2.0.0/delete")
    assert 303 == browser.post(f"{PAGE}/2.0.0/delete", browser.fields()).status

    assert ["1.0.0"] == [package.version for package in store.packages.list(APP)]


def test_an_upload_may_take_long() -> None:
    assert is_upload(UPLOAD)
    assert not is_upload(f"/apps/{APP}/groups/beta/pause")
