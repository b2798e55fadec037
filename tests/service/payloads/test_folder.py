"""Payload files on disk: what bears a digest's name has that content, whatever went wrong."""

import hashlib
import os
from pathlib import Path

import pytest

from outrider.core.errors import ConfigError, NotFound, Refused
from outrider.service.payloads.folder import STALE_S, PayloadFolder

CONTENT = b"hello\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def payloads(tmp_path: Path) -> PayloadFolder:
    folder = PayloadFolder(folder=tmp_path / "payloads")
    folder.prepare()
    return folder


def store(payloads: PayloadFolder, *chunks: bytes) -> Path:
    with payloads.receive() as upload:
        for chunk in chunks:
            upload.write(chunk)
        return upload.finish().path


def files(payloads: PayloadFolder) -> list[Path]:
    return sorted(path for path in payloads.folder.rglob("*") if path.is_file())


def test_a_file_is_stored_under_its_digest_and_measured(payloads: PayloadFolder) -> None:
    with payloads.receive() as upload:
        upload.write(b"hel")
        upload.write(b"lo\n")
        stored = upload.finish()

    assert (SHA256, 6, "9XLTlvrpIGYocU+yzgD3LpTyJY8=") == (stored.sha256, stored.size_bytes, stored.sha1)
    assert CONTENT == stored.path.read_bytes()
    assert stored.path == payloads.find(SHA256)
    assert [stored.path] == files(payloads)


def test_the_same_file_twice_is_one_file(payloads: PayloadFolder) -> None:
    assert store(payloads, CONTENT) == store(payloads, CONTENT)
    assert 1 == len(files(payloads))


def test_an_upload_that_breaks_off_leaves_nothing(payloads: PayloadFolder) -> None:
    def break_off() -> None:
        with payloads.receive() as upload:
            upload.write(CONTENT)
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        break_off()

    assert [] == files(payloads)


def test_an_empty_file_is_refused(payloads: PayloadFolder) -> None:
    with pytest.raises(ConfigError, match="empty"):
        store(payloads, b"")

    assert [] == files(payloads)


def test_a_file_that_the_disk_has_damaged_is_not_described(payloads: PayloadFolder) -> None:
    store(payloads, CONTENT).write_bytes(b"jello\n")

    with pytest.raises(Refused, match="damaged"):
        payloads.describe(SHA256, "web.tar")


def test_a_file_that_was_never_stored_is_not_found(payloads: PayloadFolder) -> None:
    assert payloads.find("0" * 64) is None
    with pytest.raises(NotFound, match="upload the file first"):
        payloads.describe("0" * 64, "web.tar")


def test_what_a_crash_left_long_ago_goes_at_the_next_start_and_running_uploads_stay(payloads: PayloadFolder) -> None:
    old, new = (payloads.folder / "incoming" / name for name in ("old.part", "new.part"))
    for path in (old, new):
        path.write_bytes(b"x")
    long_ago = new.stat().st_mtime - STALE_S - 60
    os.utime(old, (long_ago, long_ago))

    payloads.prepare()

    assert [new] == files(payloads)


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ConfigError, match="payload folder"):
        PayloadFolder(folder=tmp_path / "file" / "payloads").prepare()
