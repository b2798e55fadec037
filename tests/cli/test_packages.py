"""Packages and payloads by the verbs: files, images, folders, downloads."""

import base64
import bz2
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from outrider.cli.payload_files import file_or_image
from outrider.core.errors import ConfigError
from outrider.service.store.packages import Payload
from tests.support.file_server import Files
from tests.support.image_tars import image_tar
from tests.support.rest_stub import Asked, RestStub, Say
from tests.support.service import Service
from tests.support.service_examples import APP, SHA256
from tests.support.typing_verbs import Run, lines, typist

OTHER = "io.example.web"
CONTENT = hashlib.shake_128(b"payload").digest(300_000)


@pytest.fixture
def run(service: Service) -> Run:
    return typist(service)


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = tmp_path / "web.tar"
    path.write_bytes(CONTENT)
    return path


# What --file names.


@pytest.mark.parametrize(
    "text",
    [
        "coreos/example:1.0.0",
        "example:1.0.0",
        "registry.example:5000/a/b:v1",
        "registry.example/a/b@sha256:" + "0" * 64,
        "a/b:1@sha256:" + "f" * 64,
        "localhost:5000/a_b/c--d:Latest_1",
    ],
)
def test_a_reference_with_a_tag_or_a_digest_is_an_image(text: str) -> None:
    assert text == file_or_image(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("./coreos/example:1.0.0", "no such file"),
        ("../example:1.0.0", "no such file"),
        ("/var/lib/example:1.0.0", "no such file"),
        ("~/example:1.0.0", "no such file"),
        ("exmaple-1.0.0.tar", "no such file"),
        ("example:1.0.0.tar.gz", "no such file"),
        ("coreos/example", "no such file, and not an image reference"),
        ("registry.example:5000/a/b", "no such file, and not an image reference"),
        ("CoreOS/Example:1.0.0 ", "no such file, and not an image reference"),
        ("coreos//example:1.0.0", "no such file, and not an image reference"),
        ("a/b@sha256:123", "no such file, and not an image reference"),
        ("", "is a folder; give a file"),
    ],
)
def test_a_typo_never_becomes_an_image(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        file_or_image(text)


def test_a_file_that_is_there_is_a_file_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("example:1.0.0").touch()

    assert Path("example:1.0.0") == file_or_image("example:1.0.0")


def test_an_image_is_sent_as_one_and_said_to_be_one(run: Run) -> None:
    def answer(asked: Asked) -> Say:
        shown = {"version": "1.0.0", "image": "coreos/example:1.0.0", "download_url": "http://x/y", "size_bytes": 99}
        return Say(status=201, body=shown | {"notes": ["a tag may move: pin it by digest"]})

    with RestStub(answer) as stub:
        result = run(f"package create --app-id={APP} --version=1.0.0 --file=coreos/example:1.0.0 --server={stub.url}")

    (asked,) = stub.asked
    assert ("POST", f"/api/v1/apps/{APP}/packages") == (asked.method, asked.target)
    assert {"version": "1.0.0", "release_notes": "", "image": "coreos/example:1.0.0"} == asked.body
    assert [["Version", "URL", "Size"], ["1.0.0", "coreos/example:1.0.0", "99"]] == lines(result.stdout)
    assert "no such file; read as an image reference" in result.stderr
    assert "note: a tag may move" in result.stderr


def test_an_image_that_is_refused_is_one_line_that_says_what_it_was_taken_for(run: Run) -> None:
    with RestStub(lambda _: Say(status=400, body={"kind": "config", "detail": "image: no"})) as stub:
        result = run(f"package create --app-id=x --version=1.0.0 --file=a/b:1 --server={stub.url}", code=1)

    assert "Error: --file a/b:1 is read as an image reference: image: no\n" == result.stderr


@pytest.mark.parametrize("option", ["--url=http://x/y", "--size=1", "--sha256=00", "--sha1=00"])
def test_an_image_has_neither_address_nor_digests(run: Run, option: str) -> None:
    result = run(f"package create --app-id=x --version=1.0.0 --file=a/b:1 {option}", code=1)

    assert "read as an image reference; leave out --url" in result.stderr


def test_a_metadata_signature_is_refused_rather_than_dropped(run: Run, payload: Path) -> None:
    result = run(f"package create --app-id=x --version=1.0.0 --file={payload} --meta={payload}", code=1)

    assert "--meta is not supported" in result.stderr


# What is in it.


def packed(path: Path, *names: str, mode: int = 0o644) -> Path:
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.mode = mode
            archive.addfile(member, io.BytesIO())
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"PK\x03\x04" + bytes(100),
            "is a zip file, which is not supported; pack it as tar, tar.gz,",
        ),
        (bz2.compress(b"x"), "is compressed with bzip2, which is not supported"),
        (bytes(10240), "the archive is empty"),
    ],
    ids=["zip", "bzip2", "empty"],
)
def test_a_payload_that_no_sidekick_could_run_is_refused_before_it_is_uploaded(
    run: Run, service: Service, tmp_path: Path, content: bytes, said: str
) -> None:
    run(f"app create --app-id={APP}")
    file = tmp_path / "app.bin"
    file.write_bytes(content)

    result = run(f"package create --app-id={APP} --version=1.0.0 --file={file}", code=1)

    assert said in result.stderr
    assert "no sidekick could run it (--as-is uploads it for other clients)" in result.stderr
    run(f"package create --app-id={APP} --version=1.0.0 --file={file} --as-is")


@pytest.mark.parametrize(
    ("mode", "program", "said"),
    [
        (0o755, "server", ""),
        (0o644, "server", "its program 'server' has no x bit"),
        (0o755, "sever", "has no program 'sever'; it has server"),
    ],
)
def test_a_payload_must_have_its_program(run: Run, tmp_path: Path, mode: int, program: str, said: str) -> None:
    run(f"app create --app-id={APP}")
    file = packed(tmp_path / "app.tar", "server", mode=mode)

    result = run(
        f"package create --app-id={APP} --version=1.0.0 --file={file} --program={program}", code=1 if said else 0
    )

    assert said in result.stderr


def test_a_name_that_appears_twice_is_refused(run: Run, tmp_path: Path) -> None:
    run(f"app create --app-id={APP}")
    file = packed(tmp_path / "app.tar", "server", "server")

    assert (
        "'server' appears twice" in run(f"package create --app-id={APP} --version=1.0.0 --file={file}", code=1).stderr
    )


def test_what_is_no_archive_is_taken_with_a_note(run: Run, payload: Path) -> None:
    run(f"app create --app-id={APP}")

    result = run(f"package create --app-id={APP} --version=1.0.0 --file={payload}")

    assert "note: web.tar is not a tar archive" in result.stderr


# Uploads.


@pytest.mark.parametrize("words", ["upload {file}", "upload --file={file}", "upload --json {file}"])
def test_an_uploaded_file_becomes_a_package_later(run: Run, service: Service, payload: Path, words: str) -> None:
    run(f"app create --app-id={APP}")
    digest = hashlib.sha256(CONTENT).hexdigest()

    sent = run(f"package {words.format(file=payload)}")
    (made,) = json.loads(
        run(f"package create --app-id={APP} --version=1.0.0 --stored={digest} --name=web.tar --json").stdout
    )

    assert digest in sent.stdout
    assert (digest, "web.tar", len(CONTENT)) == (made["sha256"], made["name"], made["size_bytes"])


def test_a_folder_is_uploaded_file_by_file_and_a_bad_one_is_named(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "not-this").write_text("x")
    for name in ("a.tar", "b.tar"):
        (folder / name).write_text(name)
    (folder / "empty.tar").touch()

    result = run(f"package upload bulk --dir={folder}", code=1)

    assert ["a.tar", "b.tar"] == [row[0] for row in lines(result.stdout)[1:]]
    assert result.stderr.startswith("Error: empty.tar: ")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("upload", 2, "give a FILE"),
        ("upload /no/such/file", 1, "--file /no/such/file: no such file"),
        ("upload bulk --dir=/no/such", 1, "--dir /no/such: no such folder"),
        ("upload bulk", 2, "Missing option '--dir'"),
        ("create --app-id=x --version=1.0.0 --stored=00", 2, "--stored needs --name"),
        ("create --app-id=x --version=1.0.0 --stored=00 --name=x --url=http://x", 2, "--stored can't be combined"),
        ("create --version=1.0.0 --file=x", 2, "Missing option '--app-id'"),
        ("create bulk --dir=/no/such", 1, "no such folder"),
        ("create bulk --upload --base-url=http://x", 2, "one of them"),
        ("create implode", 3, "no command 'implode'"),
        ("download --version=1.0.0 --min-version=1.0.0", 2, "one of them"),
        ("download --app-id=absent", 1, "Error: no app"),
        ("download --min-version=one", 1, "not semver"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, words: str, code: int, said: str) -> None:
    assert said in run(f"package {words}", code=code).stderr


# Downloads.


def store_package(service: Service, url: str, version: str = "1.0.0", *, app: str = APP, sha1: str = "") -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    payload = Payload(url=url, size_bytes=len(CONTENT), sha256=digest, sha1=sha1)
    service.store.packages.create(app, version, payload, release_notes="better")


def test_a_stored_payload_is_downloaded_with_its_facts(run: Run, payload: Path, tmp_path: Path) -> None:
    run(f"app create --app-id={APP}")
    run(f"package create --app-id={APP} --version=1.0.0 --file={payload}")

    result = run(f"package download --dir={tmp_path}/down --app-id={APP}")

    down = tmp_path / "down"
    assert CONTENT == (down / f"{APP}_1.0.0_web.tar").read_bytes()
    info = json.loads((down / f"{APP}_1.0.0_info.json").read_text())
    assert (APP, "1.0.0", str(len(CONTENT))) == (info["appId"], info["version"], info["size"])
    assert base64.b64encode(hashlib.sha256(CONTENT).digest()).decode() == info["sha256Sum"]
    assert base64.b64encode(hashlib.sha1(CONTENT).digest()).decode() == info["sha1Sum"]
    assert {f"{APP}_1.0.0_web.tar", f"{APP}_1.0.0_info.json"} == {path.name for path in down.iterdir()}
    assert [APP, "1.0.0", f"{down}/{APP}_1.0.0_web.tar", "300000"] == lines(result.stdout)[1]


def test_versions_are_chosen_by_semver_and_all_apps_count(run: Run, service: Service, tmp_path: Path) -> None:
    files = Files(CONTENT)
    try:
        for app in (APP, OTHER):
            service.store.apps.create(app=app, label="")
            for version in ("1.9.0", "1.10.0", "2.0.0-rc.1"):
                store_package(service, files.url, version, app=app)
        new = json.loads(run(f"package download --dir={tmp_path}/new --min-version=1.10.0 --json").stdout)
        one = json.loads(run(f"package download --dir={tmp_path}/one --version=1.9.0 --app-id={OTHER} --json").stdout)
        none = run(f"package download --dir={tmp_path}/none --version=3.0.0", code=1)
    finally:
        files.close()

    assert {(app, version) for app in (APP, OTHER) for version in ("1.10.0", "2.0.0-rc.1")} == {
        (each["app"], each["version"]) for each in new
    }
    assert [(OTHER, "1.9.0")] == [(each["app"], each["version"]) for each in one]
    assert "no app has a package of 3.0.0" in none.stderr


def test_a_download_that_was_cut_off_is_resumed_by_the_same_command(run: Run, service: Service, tmp_path: Path) -> None:
    files = Files(CONTENT)
    files.cut_at = 100_000
    try:
        service.store.apps.create(app=APP, label="")
        store_package(service, files.url)
        cut = run(f"package download --dir={tmp_path}", code=1)
        left = [path.name for path in tmp_path.glob(f"{APP}*")]
        files.cut_at = None
        run(f"package download --dir={tmp_path}")
    finally:
        files.close()

    assert cut.stderr.startswith(f"Error: app {APP}: 1.0.0: ")
    assert [] == left
    assert "bytes=100000-" == files.seen[-1]["Range"]
    assert CONTENT == (tmp_path / f"{APP}_1.0.0_app.tar.gz").read_bytes()
    assert not (tmp_path / ".parts").exists()


def test_what_is_there_and_right_is_not_fetched_again_and_what_is_wrong_is(
    run: Run, service: Service, tmp_path: Path
) -> None:
    files = Files(CONTENT)
    path = tmp_path / f"{APP}_1.0.0_app.tar.gz"
    try:
        service.store.apps.create(app=APP, label="")
        store_package(service, files.url)
        run(f"package download --dir={tmp_path}")
        run(f"package download --dir={tmp_path}")
        fetched = len(files.seen)
        path.write_bytes(b"spoilt")
        run(f"package download --dir={tmp_path}")
    finally:
        files.close()

    assert (1, 2) == (fetched, len(files.seen))
    assert CONTENT == path.read_bytes()


@pytest.mark.parametrize("wrong", ["content", "size", "sha1"])
def test_what_is_not_what_was_announced_gets_no_name(run: Run, service: Service, tmp_path: Path, wrong: str) -> None:
    files = Files(CONTENT)
    try:
        service.store.apps.create(app=APP, label="")
        store_package(service, files.url, sha1="00" * 20 if wrong == "sha1" else "")
        if wrong == "content":
            files.content = CONTENT[::-1]
        elif wrong == "size":
            files.content = CONTENT + b"more"
        result = run(f"package download --dir={tmp_path}", code=1)
    finally:
        files.close()

    expected = {"content": "SHA-256 is", "size": "bytes instead of 300000", "sha1": "wrong SHA-1"}[wrong]
    assert expected in result.stderr
    assert [] == list(tmp_path.glob(f"{APP}*"))


def test_one_package_that_fails_keeps_no_other_from_coming(run: Run, service: Service, tmp_path: Path) -> None:
    files = Files(CONTENT)
    try:
        service.store.apps.create(app=APP, label="")
        store_package(service, "http://127.0.0.1:1/gone.tar", "2.0.0")
        store_package(service, files.url, "1.0.0")
        result = run(f"package download --dir={tmp_path}", code=1)
    finally:
        files.close()

    assert (tmp_path / f"{APP}_1.0.0_app.tar.gz").exists()
    assert f"app {APP}: 2.0.0: " in result.stderr


# From one service to another.


@pytest.mark.parametrize(
    ("option", "url"),
    [
        ("", "{service}/packages/{app}/1.0.0/web.tar"),
        ("--base-url=http://mirror.example/p/", "http://mirror.example/p/{app}_1.0.0_web.tar"),
    ],
)
def test_what_was_downloaded_makes_packages_elsewhere(
    run: Run, service: Service, payload: Path, tmp_path: Path, option: str, url: str
) -> None:
    (tmp_path / "notes").write_text("better\n")
    run(f"app create --app-id={APP}")
    run(f"package create --app-id={APP} --version=1.0.0 --file={payload} --release-notes={tmp_path}/notes")
    run(f"package download --dir={tmp_path}/down")
    run(f"package delete --app-id={APP} --version=1.0.0")

    run(f"package create bulk --dir={tmp_path}/down {option}")

    made = service.store.packages.get(APP, "1.0.0")
    assert url.format(service=service.url, app=APP) == made.url
    assert (len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "better\n") == (
        made.size_bytes,
        made.sha256,
        made.release_notes,
    )


def test_the_files_themselves_can_go_along(run: Run, service: Service, payload: Path, tmp_path: Path) -> None:
    run(f"app create --app-id={APP}")
    run(f"package create --app-id={APP} --version=1.0.0 --file={payload}")
    run(f"package download --dir={tmp_path}/down")
    run(f"package delete --app-id={APP} --version=1.0.0")

    run(f"package create bulk --dir={tmp_path}/down --upload")

    made = service.store.packages.get(APP, "1.0.0")
    assert (None, "web.tar") == (made.url, made.name)


def test_an_info_file_of_coreupdate_is_understood_and_a_broken_one_is_named(
    run: Run, service: Service, tmp_path: Path
) -> None:
    run(f"app create --app-id={APP}")
    info = {
        "appId": APP,
        "version": "1.0.0",
        "url": "http://files.example/update.gz",
        "size": "6",
        "sha1Sum": base64.b64encode(hashlib.sha1(b"hello\n").digest()).decode(),
        "sha256Sum": base64.b64encode(bytes.fromhex(SHA256)).decode(),
        "metadataSize": "0",
        "required": False,
    }
    (tmp_path / f"{APP}_1.0.0_info.json").write_text(json.dumps(info))
    (tmp_path / "broken_info.json").write_text("{")
    (tmp_path / "partly_info.json").write_text('{"appId": "x"}')
    (tmp_path / "other.json").write_text("[]")

    result = run(f"package create bulk --dir={tmp_path}", code=1)

    assert [[APP, "1.0.0", "http://files.example/update.gz", "6"]] == lines(result.stdout)[1:]
    assert SHA256 == service.store.packages.get(APP, "1.0.0").sha256
    assert ["broken_info.json", "partly_info.json"] == [line.split(": ")[1] for line in result.stderr.splitlines()]
    assert "Error: partly_info.json: version, url, size, sha256Sum missing" in result.stderr


# Images: which one a tag names, and images in a tar.

D = "sha256:" + "ab" * 32


def test_an_image_whose_tag_nobody_resolves_is_stored_with_a_note_and_resolved_by_hand(run: Run) -> None:
    run(f"app create --app-id={OTHER}")
    made = run(f"package create --app-id={OTHER} --version=1.0.0 --file=coreos/example:1.0.0")
    assert "coreos/example:1.0.0 has no digest yet (this service asks no registry)" in made.stderr

    still = run(f"package resolve --app-id={OTHER} --version=1.0.0", code=1)
    assert still.stderr.endswith("coreos/example:1.0.0 has no digest yet; the note above says why\n")
    known = json.loads(run(f"package resolve --app-id={OTHER} --version=1.0.0 --digest={D} --json").stdout)
    again = run(f"package resolve --app-id={OTHER} --version=1.0.0")

    assert [D] == [one["digest"] for one in known]
    assert "note" not in again.stderr
    assert f"is {D}, and a package never changes" in (
        run(f"package resolve --app-id={OTHER} --version=1.0.0 --digest=sha256:{'cd' * 32}", code=1).stderr
    )


def test_a_digest_is_for_an_image_alone(run: Run, payload: Path) -> None:
    run(f"app create --app-id={OTHER}")
    run(f"package create --app-id={OTHER} --version=1.0.0 --file=coreos/example:1.0.0 --digest={D}")
    assert "--digest is for an image" in (
        run(f"package create --app-id={OTHER} --version=2.0.0 --file={payload} --digest={D}", code=1).stderr
    )


def test_an_image_in_a_tar_is_served_under_the_name_by_which_sidekicks_know_it(run: Run, tmp_path: Path) -> None:
    run(f"app create --app-id={OTHER}")
    tar = image_tar(tmp_path / "web.tar")

    (made,) = json.loads(run(f"package create --app-id={OTHER} --version=1.0.0 --file={tar} --json").stdout)
    program = run(f"package create --app-id={OTHER} --version=2.0.0 --file={tar} --program=x", code=1)
    two = run(f"package create --app-id={OTHER} --version=2.0.0 --file={image_tar(tar, images=2)}", code=1)

    assert ("image.tar", "") == (made["name"], made["image"])
    assert "leave --program out" in program.stderr
    assert "holds 2 images; save one image alone; no sidekick could run it" in two.stderr


def test_a_channel_follows_what_is_said(run: Run) -> None:
    run(f"app create --app-id={OTHER}")
    run(f"channel create --app-id={OTHER} --channel=beta")

    told = run(f"channel update --app-id={OTHER} --channel=beta --follow=registry:5000/app:^2 --follow-moves")
    wrong = run(f"channel update --app-id={OTHER} --channel=beta --follow=app", code=1)
    ended = run(f"channel update --app-id={OTHER} --channel=beta --follow=")

    assert "note: beta follows registry:5000/app:^2: its newest tag becomes a package, and the channel's version" in (
        told.stderr
    )
    assert "follow 'app': write IMAGE:RANGE, for example registry:5000/app:^2" in wrong.stderr
    assert "follows" not in ended.stderr
