"""Downloads from a real HTTP server: they resume, they end when told to, and nothing unproved gets its final name."""

import errno
import hashlib
import os
import resource
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from outrider.config.sections import DownloadSettings
from outrider.core.blame import judge
from outrider.payloads import transfer
from outrider.payloads.store import PayloadStore
from outrider.payloads.transfer import Cancelled, HashMismatch, PayloadError, SizeMismatch, TransferFailed, WriteFailed
from tests.support.file_server import Files
from tests.support.waiting import eventually

CONTENT = bytes(range(256)) * 2000
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SETTINGS = DownloadSettings(timeout_s=5, deadline_s=30)


@pytest.fixture
def files() -> Iterator[Files]:
    made = Files(CONTENT)
    yield made
    made.close()


@pytest.fixture
def mirror() -> Iterator[Files]:
    made = Files(CONTENT)
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> PayloadStore:
    return PayloadStore(tmp_path / "payloads", SETTINGS)


def part(tmp_path: Path) -> Path:
    return tmp_path / "payloads" / f"{SHA256}.part"


def cut_off(store: PayloadStore, files: Files, at: int) -> None:
    """Leave the first bytes of the payload in the store, as a broken connection does."""
    files.cut_at = at
    with pytest.raises(TransferFailed, match=f"of {SIZE} bytes|closed before the end"):
        store.download("1.0.0", [files.url], SIZE, SHA256)
    files.cut_at = None


def test_a_payload_arrives_under_its_digest(store: PayloadStore, files: Files, tmp_path: Path) -> None:
    path = store.fetch("1.0.0", [files.url], SIZE, SHA256)

    assert tmp_path / "payloads" / f"{SHA256}.payload" == path
    assert CONTENT == path.read_bytes()
    assert [path] == list(path.parent.iterdir())


def test_what_is_there_is_not_downloaded_again(store: PayloadStore, files: Files) -> None:
    path = store.fetch("1.0.0", [files.url], SIZE, SHA256)

    assert path == store.fetch("1.0.0", [files.url], SIZE, SHA256) == store.find(SHA256)
    assert 1 == len(files.seen)


def test_a_download_has_its_final_name_only_after_verifying(store: PayloadStore, files: Files, tmp_path: Path) -> None:
    path = store.download("1.0.0", [files.url], SIZE, SHA256)

    assert part(tmp_path) == path
    assert store.find(SHA256) is None
    assert store.verify(path, SIZE, SHA256) == store.find(SHA256)


def test_a_truncated_download_is_kept_and_resumed_where_it_ended(
    store: PayloadStore, files: Files, tmp_path: Path
) -> None:
    cut_off(store, files, 200_000)
    kept = part(tmp_path).stat().st_size

    path = store.fetch("1.0.0", [files.url], SIZE, SHA256)

    assert 0 < kept <= 200_000
    assert f"bytes={kept}-" == files.seen[-1]["Range"]
    assert '"v1"' == files.seen[-1]["If-Range"]
    assert CONTENT == path.read_bytes()


def test_another_store_on_the_same_folder_resumes_too(store: PayloadStore, files: Files, tmp_path: Path) -> None:
    cut_off(store, files, 200_000)

    path = PayloadStore(tmp_path / "payloads", SETTINGS).fetch("1.0.0", [files.url], SIZE, SHA256)

    assert "Range" in files.seen[-1]
    assert CONTENT == path.read_bytes()


def test_a_server_without_ranges_starts_again(store: PayloadStore, files: Files) -> None:
    cut_off(store, files, 200_000)
    files.ranges = False

    assert CONTENT == store.fetch("1.0.0", [files.url], SIZE, SHA256).read_bytes()


def test_a_file_that_changed_meanwhile_starts_again(store: PayloadStore, files: Files) -> None:
    """The first part is from another build of the same size; If-Range notices by its ETag."""
    files.content, files.etag = b"x" * SIZE, '"old"'
    cut_off(store, files, 200_000)
    files.content, files.etag = CONTENT, '"v1"'

    assert CONTENT == store.fetch("1.0.0", [files.url], SIZE, SHA256).read_bytes()
    assert 2 == len(files.seen)


def test_a_server_that_has_less_than_we_have_is_asked_from_the_start(
    store: PayloadStore, files: Files, tmp_path: Path
) -> None:
    cut_off(store, files, 200_000)
    files.content = CONTENT[:100]

    with pytest.raises(SizeMismatch, match=f"has 100 bytes instead of {SIZE}"):
        store.fetch("1.0.0", [files.url], SIZE, SHA256)

    assert "Range" in files.seen[-2]
    assert "Range" not in files.seen[-1]


def test_a_first_part_that_is_too_long_is_fetched_again_from_zero(
    store: PayloadStore, files: Files, tmp_path: Path
) -> None:
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(CONTENT + b"!")

    assert CONTENT == store.fetch("1.0.0", [files.url], SIZE, SHA256).read_bytes()


def test_the_next_url_goes_on_where_the_first_one_failed(store: PayloadStore, files: Files, mirror: Files) -> None:
    files.cut_at = 200_000

    path = store.fetch("1.0.0", [files.url, mirror.url], SIZE, SHA256)

    assert CONTENT == path.read_bytes()
    assert "Range" in mirror.seen[0]
    assert "If-Range" not in mirror.seen[0], "the ETag is the other server's"


def test_a_server_that_is_down_is_passed_over(store: PayloadStore, files: Files) -> None:
    dead = Files(CONTENT)
    dead.close()

    assert CONTENT == store.fetch("1.0.0", [dead.url, files.url], SIZE, SHA256).read_bytes()
    with pytest.raises(TransferFailed, match=r"1\.0\.1: http://127\.0\.0\.1:.*: connection refused") as caught:
        store.fetch("1.0.1", [dead.url], SIZE, "0" * 64)
    assert (9, True) == (caught.value.error_code, caught.value.retry)


def test_an_error_page_is_not_a_payload(store: PayloadStore, files: Files, tmp_path: Path) -> None:
    files.status = 404

    with pytest.raises(TransferFailed, match="404 Not Found"):
        store.fetch("1.0.0", [files.url], SIZE, SHA256)

    assert not part(tmp_path).exists()


def test_a_wrong_digest_is_refused_and_nothing_is_kept(store: PayloadStore, files: Files, tmp_path: Path) -> None:
    files.content = b"x" * SIZE

    with pytest.raises(HashMismatch, match=f"SHA-256 is .* instead of {SHA256}") as caught:
        store.fetch("1.0.0", [files.url], SIZE, SHA256)

    assert (10, False) == (caught.value.error_code, caught.value.retry)
    assert [] == list((tmp_path / "payloads").iterdir())


def test_one_bad_mirror_does_not_spoil_the_good_one(store: PayloadStore, files: Files, mirror: Files) -> None:
    files.content = b"x" * SIZE

    assert CONTENT == store.fetch("1.0.0", [files.url, mirror.url], SIZE, SHA256).read_bytes()


def test_a_spoilt_first_part_is_fetched_again_from_zero(store: PayloadStore, files: Files, tmp_path: Path) -> None:
    """After a power cut the first part may be zeros."""
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(bytes(100_000))

    assert CONTENT == store.fetch("1.0.0", [files.url], SIZE, SHA256).read_bytes()
    assert ["bytes=100000-", None] == [seen.get("Range") for seen in files.seen]


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize(("served", "kept"), [(CONTENT + b"!", 0), (CONTENT[:-1], SIZE - 1)])
def test_a_wrong_size_is_found_with_and_without_content_length(
    store: PayloadStore, files: Files, tmp_path: Path, length: bool, served: bytes, kept: int
) -> None:
    files.content, files.length = served, length
    short_without_length = not length and len(served) < SIZE

    with pytest.raises(TransferFailed if short_without_length else SizeMismatch) as caught:
        store.fetch("1.0.0", [files.url], SIZE, SHA256)

    assert (9 if short_without_length else 11) == caught.value.error_code
    left = part(tmp_path).stat().st_size if part(tmp_path).exists() else 0
    assert (kept if short_without_length else 0) == left


def test_verifying_a_file_of_another_size_deletes_it(store: PayloadStore, tmp_path: Path) -> None:
    part(tmp_path).parent.mkdir()
    part(tmp_path).write_bytes(CONTENT[:-1])

    with pytest.raises(SizeMismatch, match=f"{SIZE - 1} bytes instead of {SIZE}"):
        store.verify(part(tmp_path), SIZE, SHA256)

    assert not part(tmp_path).exists()


def test_a_payload_above_the_limit_is_not_even_asked_for(files: Files, tmp_path: Path) -> None:
    store = PayloadStore(tmp_path, replace(SETTINGS, max_bytes=1000))

    with pytest.raises(SizeMismatch, match=f"{SIZE} bytes; download.max_bytes is 1000"):
        store.fetch("1.0.0", [files.url], SIZE, SHA256)

    assert [] == files.seen


def test_progress_grows_and_ends_at_the_whole(store: PayloadStore, files: Files) -> None:
    told: list[tuple[int, int]] = []

    store.fetch("1.0.0", [files.url], SIZE, SHA256, lambda have, size: told.append((have, size)))

    assert sorted(told) == told
    assert (SIZE, SIZE) == told[-1]
    assert len(told) <= 3, "at most every half second"


def fetched_beside(store: PayloadStore, url: str) -> tuple[threading.Thread, list[PayloadError]]:
    """A running fetch in a thread of its own, and where its error will be."""
    errors: list[PayloadError] = []

    def fetch() -> None:
        try:
            store.fetch("1.0.0", [url], SIZE, SHA256)
        except PayloadError as error:
            errors.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    return thread, errors


def test_cancel_ends_a_stalled_download_at_once_and_keeps_what_came(
    store: PayloadStore, files: Files, tmp_path: Path
) -> None:
    files.pause = threading.Event()
    thread, errors = fetched_beside(store, files.url)
    eventually(lambda: part(tmp_path).exists() and part(tmp_path).stat().st_size > 100_000)
    began = time.monotonic()

    store.cancel()
    thread.join(60)

    assert time.monotonic() - began < 20
    assert [Cancelled] == [type(error) for error in errors]
    kept = part(tmp_path).read_bytes()
    assert CONTENT.startswith(kept)
    files.pause.set()
    assert CONTENT == store.fetch("1.0.0", [files.url], SIZE, SHA256).read_bytes()


def test_cancel_without_a_download_spoils_nothing(store: PayloadStore, files: Files) -> None:
    store.cancel()

    assert CONTENT == store.fetch("1.0.0", [files.url], SIZE, SHA256).read_bytes()


@pytest.mark.parametrize("settings", [{"deadline_s": 0.3, "timeout_s": 30.0}, {"timeout_s": 0.3}])
def test_a_silent_server_is_given_up(files: Files, tmp_path: Path, settings: dict[str, float]) -> None:
    files.pause = threading.Event()
    store = PayloadStore(tmp_path / "payloads", replace(SETTINGS, **settings))  # type: ignore[arg-type]
    began = time.monotonic()

    with pytest.raises(TransferFailed, match=r"bytes after 0\.3 s|no answer in time"):
        store.fetch("1.0.0", [files.url], SIZE, SHA256)

    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("number", "problem"), [(errno.ENOSPC, "disk full"), (errno.EDQUOT, "disk full"), (errno.EIO, "Input/output")]
)
def test_a_disk_that_takes_no_more_is_named(
    store: PayloadStore, files: Files, monkeypatch: pytest.MonkeyPatch, number: int, problem: str
) -> None:
    def write(self: object, file: object, chunk: object) -> None:
        raise OSError(number, "Input/output error")

    monkeypatch.setattr(transfer.Transfer, "_keep", write)

    with pytest.raises(WriteFailed, match=problem) as caught:
        store.fetch("1.0.0", [files.url], SIZE, SHA256)

    assert (14, True) == (caught.value.error_code, caught.value.retry)


def test_a_file_that_may_not_grow_further_is_a_write_error(store: PayloadStore, files: Files) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(WriteFailed, match="payloads: File too large"):
            store.fetch("1.0.0", [files.url], SIZE, SHA256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_folder_that_cannot_be_made_is_named(files: Files, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(WriteFailed, match="file"):
        PayloadStore(tmp_path / "file" / "payloads", SETTINGS).fetch("1.0.0", [files.url], SIZE, SHA256)


def test_what_does_not_fit_beside_the_reserve_is_not_even_asked_for(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "wanted_bytes", lambda folder, limit_bytes: limit_bytes)
    store = PayloadStore(tmp_path / "payloads", SETTINGS, reserve_bytes=1000)
    for free, fits in ((SIZE, False), (SIZE + 999, False), (SIZE + 1000, True)):
        monkeypatch.setattr(transfer, "free_bytes", lambda folder, free=free: free)
        if fits:
            store.fetch("1.0.0", [files.url], SIZE, SHA256)
        else:
            with pytest.raises(WriteFailed, match=r"disk full: no room for 1\.0\.0") as caught:
                store.fetch("1.0.0", [files.url], SIZE, SHA256)
            assert ("disk-full", "machine") == (caught.value.evidence, judge(caught.value.evidence))
        assert fits == bool(files.seen), free


@pytest.mark.parametrize("free", [0, 999])
def test_a_disk_that_others_fill_meanwhile_is_left_to_them_and_what_came_is_deleted(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    """
    1. there is room when the download begins
    2. somebody else takes it while the bytes come
    3. the download doesn't take the last of it, and gives back what it has
    """
    looks = iter([10 * SIZE])
    monkeypatch.setattr(transfer, "free_bytes", lambda folder: next(looks, free))
    monkeypatch.setattr(transfer, "wanted_bytes", lambda folder, limit_bytes: limit_bytes)
    store = PayloadStore(tmp_path / "payloads", SETTINGS, reserve_bytes=1000)

    with pytest.raises(WriteFailed, match="disk full"):
        store.download("1.0.0", [files.url], SIZE, SHA256)

    assert [] == sorted(path.name for path in (tmp_path / "payloads").iterdir())


@pytest.mark.parametrize("suffix", ["part", "etag", "payload"])
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_stands_in_a_payloads_place_is_neither_followed_nor_taken_for_it(
    store: PayloadStore, files: Files, tmp_path: Path, suffix: str, kind: str
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    place = part(tmp_path).with_suffix(f".{suffix}")
    place.parent.mkdir()
    if kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(precious)
    assert store.find(SHA256) is None

    path = store.fetch("1.0.0", [files.url], SIZE, SHA256)

    assert files.content == path.read_bytes()
    assert "keep me" == precious.read_text()


@pytest.mark.parametrize(
    ("name", "scheme"), [("http_proxy", "http"), ("HTTP_PROXY", "http"), ("ALL_PROXY", "http"), ("all_proxy", "http")]
)
def test_a_proxy_of_the_environment_is_named_in_the_error(
    monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    for each in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "http://ann:geheim@proxy.example:3128")

    said = transfer.through_proxy(f"{scheme}://files.example/app.tar")

    assert f"; {name} sends it through proxy.example:3128: put files.example into no_proxy if that is wrong" == said


def test_a_host_that_the_environment_exempts_goes_through_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "files.example")

    assert "" == transfer.through_proxy("http://files.example/app.tar")


@pytest.mark.parametrize(
    ("encoding", "named"), [("gzip", True), ("br", True), ("zstd", True), ("identity", False), ("", False)]
)
def test_a_server_that_compresses_in_spite_of_identity_is_named(encoding: str, named: bool) -> None:
    response = requests.Response()
    response.headers["Content-Encoding"] = encoding

    assert named == (f"sent with Content-Encoding {encoding} although" in transfer.encoded(response))


def test_a_bug_in_the_callers_progress_is_raised_where_it_was_asked(store: PayloadStore, files: Files) -> None:
    def broken(have: int, size: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.fetch("1.0.0", [files.url], SIZE, SHA256, broken)


def test_a_digest_that_could_be_a_path_is_a_bug(store: PayloadStore, files: Files) -> None:
    with pytest.raises(ValueError, match="sha256"):
        store.fetch("1.0.0", [files.url], SIZE, "../" + SHA256)


def test_downloads_that_were_never_finished_are_pruned_but_the_newest(tmp_path: Path) -> None:
    for age, digit in enumerate("abc"):
        for suffix in ("part", "etag"):
            path = tmp_path / f"{digit * 64}.{suffix}"
            path.write_bytes(b"x")
            os.utime(path, (1000 + age, 1000 + age))
    (tmp_path / f"{'d' * 64}.etag").write_bytes(b"of a payload that is complete")

    PayloadStore(tmp_path, DownloadSettings()).prune([])

    assert {"c" * 64 + ".part", "c" * 64 + ".etag"} == {path.name for path in tmp_path.iterdir()}


def test_old_payloads_are_pruned_and_needed_ones_stay(tmp_path: Path) -> None:
    """
    1. five payloads, the two oldest of them needed, and room for three
    2. prune
    3. the needed ones stay, and the newest of the others
    """
    names = [digit * 64 for digit in "abcde"]
    for age, name in enumerate(names):
        path = tmp_path / f"{name}.payload"
        path.write_bytes(b"x")
        os.utime(path, (1000 + age, 1000 + age))
    store = PayloadStore(tmp_path, DownloadSettings(keep_versions=3))

    store.prune(names[:2])

    assert {names[0], names[1], names[4]} == {path.stem for path in tmp_path.iterdir()}
