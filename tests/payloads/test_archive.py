"""Unpacking: what is right comes out as it was packed, and nothing bad leaves a trace inside or outside the folder."""

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from outrider.core.blame import judge
from outrider.core.errors import DriverError, Refused
from outrider.core.images import describe_image, parse_image
from outrider.payloads.archive import inspect, unpack

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FILE, DIR, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def member(
    name: str, kind: bytes = FILE, *, to: str = "", mode: int = 0o644, size: int | None = None
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, to, mode
    made.size = (len(name) if kind == FILE else 0) if size is None else size
    return made


def pack(path: Path, *members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> Path:
    """A plain tar; every file holds its own name."""
    with tarfile.open(path, "w", format=form) as archive:
        for each in members:
            archive.addfile(each, io.BytesIO(each.name.encode()) if each.isreg() else None)
    return path


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    return tmp_path / "in" / "app.payload"


@pytest.fixture
def root(tmp_path: Path, payload: Path) -> Path:
    payload.parent.mkdir()
    return tmp_path / "out" / "root"


def test_the_descriptor_of_an_image_is_no_fault_of_the_release(payload: Path, root: Path) -> None:
    payload.write_bytes(describe_image(parse_image("coreos/example:1.0.0")))

    with pytest.raises(DriverError, match="describes a container image, and this machine's runtime unpacks") as caught:
        unpack(payload, root)

    assert not isinstance(caught.value, Refused)
    assert not root.exists()


def test_json_that_describes_no_image_is_a_bad_payload(payload: Path, root: Path) -> None:
    payload.write_bytes(b'{"image": 7}')

    with pytest.raises(Refused, match="not a tar file"):
        unpack(payload, root)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, zstd.compress])
def test_files_folders_and_links_come_out_as_packed(
    payload: Path, root: Path, compress: Callable[[bytes], bytes]
) -> None:
    pack(
        payload,
        member("./", DIR),
        member("./bin/", DIR, mode=0o755),
        member("./bin/server", mode=0o755),
        member("lib/deep/libx.so.1"),
        member("lib/deep/libx.so", LINK, to="libx.so.1"),
        member("lib/up", LINK, to="../bin/../bin/server"),
        member("bin/server2", HARD, to="bin/server", mode=0o755),
        member("dangling", LINK, to="lib/not/there"),
        member("empty/", DIR),
    )
    payload.write_bytes(compress(payload.read_bytes()))

    unpack(payload, root)

    assert "./bin/server" == (root / "bin/server").read_text() == (root / "lib/up").read_text()
    assert os.access(root / "bin/server", os.X_OK)
    assert not os.access(root / "lib/deep/libx.so.1", os.X_OK)
    assert "libx.so.1" == os.readlink(root / "lib/deep/libx.so")
    assert (root / "bin/server2").samefile(root / "bin/server")
    assert (root / "empty").is_dir()
    assert ["root"] == os.listdir(root.parent)


def test_many_large_members_are_read_in_one_pass(payload: Path, root: Path) -> None:
    """Sizes around the block and buffer sizes, where a reader that seeks back would show."""
    sizes = [0, 1, 511, 512, 513, 8192, 16384, 16385, 1024**2, 3 * 1024**2]
    with tarfile.open(payload, "w:gz") as archive:
        for size in sizes:
            archive.addfile(member(f"{size}", size=size), io.BytesIO(b"x" * size))

    unpack(payload, root)

    assert sizes == [(root / str(size)).stat().st_size for size in sizes]


def test_long_names_of_both_formats_come_out(payload: Path, root: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        name = "/".join([f"folder-{form}-" + "x" * 100] * 5)
        pack(payload, member(name), form=form)

        unpack(payload, root.with_name(str(form)))

        assert name == (root.with_name(str(form)) / name).read_text()


def test_owner_and_set_uid_of_the_archive_are_dropped(payload: Path, root: Path) -> None:
    evil = [member("su", mode=0o7777), member("folder", DIR, mode=0o7777), member("hard", HARD, to="su", mode=0o7777)]
    for each in evil:
        each.uid = each.gid = 4711
    pack(payload, *evil)

    unpack(payload, root)

    for found in (path.stat() for path in root.iterdir()):
        assert 0 == found.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | stat.S_IWOTH | stat.S_IWGRP)
        assert (os.getuid(), os.getgid()) == (found.st_uid, found.st_gid)


def test_files_get_the_permissions_that_pythons_data_filter_grants(payload: Path, root: Path) -> None:
    """Written down, for 3.11.2 has no filter to ask."""
    granted = {0o644: 0o644, 0o755: 0o755, 0o777: 0o755, 0o666: 0o644, 0o600: 0o600, 0o700: 0o700, 0o6755: 0o755}
    granted |= {0o000: 0o600, 0o077: 0o644, 0o111: 0o711, 0o055: 0o644, 0o400: 0o600, 0o1577: 0o755}
    pack(payload, *(member(f"{mode:o}", mode=mode) for mode in granted))

    unpack(payload, root)

    assert granted == {int(path.name, 8): stat.S_IMODE(path.stat().st_mode) for path in root.iterdir()}
    if hasattr(tarfile, "data_filter"):
        for mode, expected in granted.items():
            assert expected == tarfile.data_filter(member("any", mode=mode), str(root)).mode


def test_files_keep_their_time_of_change(payload: Path, root: Path) -> None:
    old = member("old")
    old.mtime = 1_000_000_000
    pack(payload, old)

    unpack(payload, root)

    assert 1_000_000_000 == (root / "old").stat().st_mtime


@pytest.mark.parametrize("named", ["FilterError", "data_filter", "tar_filter", "fully_trusted_filter"])
def test_a_python_without_tarfiles_filters_unpacks(
    payload: Path, root: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """Debian 12's 3.11.2 has none of these; every later Python has them all."""
    monkeypatch.delattr(tarfile, named, raising=False)
    pack(payload, member("bin/server", mode=0o755), member("l", LINK, to="bin/server"))

    unpack(payload, root)

    assert "bin/server" == (root / "l").read_text()


UNSAFE = {
    "climbing": ([member("../evil")], r"'\.\./evil' climbs out with '\.\.'"),
    "climbing inside": ([member("a/../../evil")], r"climbs out with '\.\.'"),
    "absolute": ([member("/tmp/outrider-evil")], "'/tmp/outrider-evil' is absolute"),
    "link up": ([member("l", LINK, to="../..")], r"'l' is a link to '\.\./\.\.', which leads out of the archive"),
    "link to itself": ([member("l", LINK, to="l")], "which runs in a circle"),
    "links in a circle": ([member("l", LINK, to="m"), member("m", LINK, to="l")], "which runs in a circle"),
    "link that only leads out through another": (
        [member("deep/er/home", LINK, to="../.."), member("l", LINK, to="deep/er/home/../out")],
        "leads out of the archive",
    ),
    "the other one last": (
        [member("l", LINK, to="deep/er/home/../out"), member("deep/er/home", LINK, to="../..")],
        "leads out of the archive",
    ),
    "writing through a link": (
        [member("l", LINK, to="/tmp"), member("l/outrider-evil")],
        "'l/outrider-evil' lies below 'l', which is a link",
    ),
    "writing over a link": ([member("l", LINK, to="/tmp/outrider-evil"), member("l")], "'l' appears twice"),
    "a link in place of a folder": ([member("d/a"), member("d", LINK, to="..")], "'d' appears twice"),
    "a folder in place of a link": ([member("d", LINK, to=".."), member("d", DIR)], "'d' appears twice"),
    "twice": ([member("a"), member("./a")], "appears twice"),
    "writing through an absolute link": (
        [member("venv/lib", LINK, to="/tmp"), member("venv/lib/outrider-evil")],
        "'venv/lib/outrider-evil' lies below 'venv/lib', which is a link",
    ),
    "a hard link through an absolute link": (
        [member("etc", LINK, to="/etc"), member("h", HARD, to="etc/passwd")],
        "'h' is a hard link to 'etc/passwd', which is no earlier file in it",
    ),
    "below a file": ([member("a"), member("a/b")], "'a/b' lies below 'a', which is a file"),
    "hard link out": ([member("h", HARD, to="/etc/passwd")], "'/etc/passwd' is absolute"),
    "hard link up": ([member("h", HARD, to="../in/app.payload")], "climbs out"),
    "hard link to a link": (
        [member("l", LINK, to="/etc/passwd"), member("h", HARD, to="l")],
        "'h' is a hard link to 'l', which is no earlier file in it",
    ),
    "hard link to nothing": ([member("h", HARD, to="later"), member("later")], "which is no earlier file in it"),
    "hard link to itself": ([member("h", HARD, to="h")], "which is no earlier file in it"),
    "device": ([member("null", tarfile.CHRTYPE)], "'null' is a device or a pipe"),
    "pipe": ([member("pipe", tarfile.FIFOTYPE)], "'pipe' is a device or a pipe"),
    "no name": ([member("./.")], "is not the name of a file"),
    "nothing": ([member("./", DIR)], "the archive is empty"),
}


@pytest.mark.parametrize("what", UNSAFE)
def test_an_unsafe_archive_is_refused_and_leaves_nothing(payload: Path, root: Path, tmp_path: Path, what: str) -> None:
    members, problem = UNSAFE[what]
    pack(payload, member("innocent"), *members) if what != "nothing" else pack(payload, *members)

    with pytest.raises(Refused, match=rf"^app\.payload: .*{problem}"):
        unpack(payload, root)

    assert ["app.payload"] == os.listdir(payload.parent)
    assert [] == os.listdir(root.parent)
    assert {"in", "out"} == set(os.listdir(tmp_path))
    assert not Path("/tmp/outrider-evil").exists()


def test_a_sparse_file_is_refused(payload: Path, root: Path) -> None:
    """A terabyte of holes in one kilobyte: GNU's old sparse header, written by hand."""
    header = bytearray(member("hole", tarfile.GNUTYPE_SPARSE, size=0).tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % 1024**3
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    payload.write_bytes(bytes(header) + bytes(1024))

    with pytest.raises(Refused, match="'hole' is a sparse file"):
        unpack(payload, root)


def test_more_bytes_than_allowed_are_refused_before_they_are_written(payload: Path, root: Path) -> None:
    with tarfile.open(payload, "w:gz") as archive:
        archive.addfile(member("zeros", size=50 * 1024**2), io.BytesIO(bytes(50 * 1024**2)))

    with pytest.raises(Refused, match="unpacks to more than 1048576 bytes"):
        unpack(payload, root, max_bytes=1024**2)

    assert [] == os.listdir(root.parent)


def test_more_members_than_allowed_are_refused(payload: Path, root: Path) -> None:
    pack(payload, *(member(str(number)) for number in range(11)))

    with pytest.raises(Refused, match="holds more than 10 members"):
        unpack(payload, root, max_members=10)


def test_a_header_that_would_fill_the_memory_is_not_read(payload: Path, root: Path) -> None:
    """A pax header of 4 GiB: tarfile reads such a header in one piece."""
    header = member("PaxHeader", tarfile.XHDTYPE, size=4 * 1024**3 - 1).tobuf(tarfile.USTAR_FORMAT)
    payload.write_bytes(gzip.compress(header + bytes(1024)))

    with pytest.raises(Refused, match="holds a header of 4294967296 bytes"):
        unpack(payload, root)


def test_headers_within_headers_are_refused(payload: Path, root: Path) -> None:
    record = b"11 path=ab\n"
    header = member("PaxHeader", tarfile.XHDTYPE, size=len(record)).tobuf(tarfile.USTAR_FORMAT)
    payload.write_bytes((header + record.ljust(512, b"\0")) * 5000)

    with pytest.raises(Refused, match=r"not a tar file .* or damaged"):
        unpack(payload, root)


def test_a_negative_size_does_not_lead_back(payload: Path, root: Path) -> None:
    header = bytearray(member("back", size=0).tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    payload.write_bytes(bytes(header) * 4)

    with pytest.raises(Refused, match=r"negative size|refers back|damaged"):
        unpack(payload, root)


BAD_FILES = {
    "text": (b"<html>not found</html>\n" * 100, "not a tar file"),
    "empty": (b"", "not a tar file"),
    "zip": (b"PK\x03\x04" + bytes(1000), r"is a zip file, .* pack it as tar, tar\.gz, tar\.xz or tar\.zst"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "is a zip file, which is not supported"),
    "bzip2": (bz2.compress(bytes(1000)), "is compressed with bzip2, which is not supported"),
    "broken zstd": (b"\x28\xb5\x2f\xfd" + bytes(1000), "damaged"),
    "half a zstd": (zstd.compress(os.urandom(5000))[:2000], "damaged"),
    "gzip of text": (gzip.compress(b"hello" * 1000), "not a tar file"),
    "half a gzip": (gzip.compress(os.urandom(5000))[:2000], "damaged"),
    "gzip with wrong bytes": (gzip.compress(bytes(5000))[:-8] + b"12345678", "damaged|empty"),
    "broken xz": (b"\xfd7zXZ\0" + b"x" * 100, "damaged"),
    "zeros": (bytes(10240), "the archive is empty"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_what_is_no_tar_is_refused_in_one_clear_line(payload: Path, root: Path, what: str) -> None:
    content, problem = BAD_FILES[what]
    payload.write_bytes(content)

    with pytest.raises(Refused, match=problem) as caught:
        unpack(payload, root)

    assert "\n" not in str(caught.value)
    assert not root.exists()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
def test_a_cut_off_archive_is_refused(payload: Path, root: Path, compress: Callable[[bytes], bytes]) -> None:
    with tarfile.open(payload, "w") as archive:
        archive.addfile(member("large", size=500_000), io.BytesIO(os.urandom(500_000)))
    payload.write_bytes(compress(payload.read_bytes())[:250_000])

    with pytest.raises(Refused, match="damaged"):
        unpack(payload, root)

    assert [] == os.listdir(root.parent)


def test_what_a_killed_run_left_behind_does_not_get_in(payload: Path, root: Path) -> None:
    pack(payload, member("new"))
    leftover = root.with_name("root.partial")
    leftover.mkdir(parents=True)
    (leftover / "old").write_text("old")

    unpack(payload, root)

    assert ["new"] == os.listdir(root)
    assert ["root"] == os.listdir(root.parent)


def test_a_missing_payload_and_a_place_that_cannot_be_written_are_not_the_releases_fault(
    payload: Path, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(DriverError, match="No such file") as caught:
        unpack(payload, root)
    assert caught.value.retry

    pack(payload, member("a"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DriverError, match="can't unpack to") as caught:
        unpack(payload, tmp_path / "file" / "root")
    assert caught.value.retry


def test_a_name_that_no_file_system_stores_is_the_releases_fault(payload: Path, root: Path) -> None:
    pack(payload, member("x" * 300))

    with pytest.raises(Refused, match="has a part of more than 255 bytes"):
        unpack(payload, root)


@pytest.mark.parametrize("number", [errno.EILSEQ, errno.ENAMETOOLONG])
def test_a_name_that_only_this_machines_file_system_cannot_store_is_its_own_trouble(
    payload: Path, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """vfat takes no quotation mark, an encrypted folder of eCryptfs 143 bytes at most."""
    pack(payload, member('say "x"'))
    made = os.fchmod

    def fchmod(descriptor: int, mode: int) -> None:
        made(descriptor, mode)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fchmod", fchmod)

    with pytest.raises(DriverError, match="can't unpack to") as caught:
        unpack(payload, root)

    assert ("bad-name", "machine") == (caught.value.evidence, judge(caught.value.evidence))


@pytest.mark.parametrize("name", ["static/日本語.txt", "grüße/ö", "caf\udce9.txt", "\udcff\udcfe", "a" * 200 + "é"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_come_out_as_the_bytes_that_went_in(payload: Path, root: Path, name: str, form: int) -> None:
    with tarfile.open(payload, "w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        archive.addfile(member(name, size=0), io.BytesIO())
        archive.addfile(member("link", LINK, to=name))

    unpack(payload, root)

    wanted = name.encode("utf-8", "surrogateescape")
    assert os.path.isfile(os.path.join(os.fsencode(root), wanted))
    assert wanted == os.readlink(os.fsencode(root / "link"))


@pytest.mark.parametrize(
    ("target", "exists"), [("/usr/bin/env", True), ("/no/such/python3", False), ("/", True), ("/etc/../etc", True)]
)
def test_an_absolute_link_is_made_last_and_as_it_is(payload: Path, root: Path, target: str, exists: bool) -> None:
    pack(
        payload,
        member("venv/bin/python3", LINK, to=target),
        member("venv/bin/app"),
        member("py", LINK, to="venv/bin/python3"),
    )

    unpack(payload, root)

    assert target == os.readlink(root / "venv/bin/python3")
    assert exists == (root / "venv/bin/python3").exists()
    assert "venv/bin/app" == (root / "venv/bin/app").read_text()


@pytest.mark.parametrize("what", [what for what in UNSAFE if what != "nothing"])
def test_what_is_refused_by_a_machine_is_refused_before_it_is_uploaded(payload: Path, root: Path, what: str) -> None:
    members, problem = UNSAFE[what]
    pack(payload, member("innocent"), *members)

    with pytest.raises(Refused, match=problem):
        inspect(payload)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("", ""),
        ("server", ""),
        ("./server", ""),
        ("bin/python3", ""),
        ("rum.sh", r"app\.payload: has no program 'rum\.sh'; it has app\.py, server"),
        ("app.py", "its program 'app.py' has no x bit"),
        ("bin", "has no program 'bin'"),
    ],
)
def test_a_payload_without_its_program_is_refused(payload: Path, root: Path, program: str, problem: str) -> None:
    pack(payload, member("server", mode=0o755), member("app.py"), member("bin/python3", LINK, to="/usr/bin/python3"))

    if problem:
        with pytest.raises(Refused, match=problem):
            inspect(payload, program=program)
    else:
        assert inspect(payload, program=program)


@pytest.mark.parametrize("members", [[member("d", DIR)], [member("d", DIR), member("d/e", DIR)]])
def test_a_payload_without_any_file_has_nothing_to_run(
    payload: Path, root: Path, members: list[tarfile.TarInfo]
) -> None:
    pack(payload, *members)

    with pytest.raises(Refused, match="holds no file, so there is nothing to run"):
        inspect(payload)


@pytest.mark.parametrize(
    "content",
    [b"hello", b"\x00\x01" * 600, gzip.compress(b"an image of a disk" * 100, mtime=0)],
    ids=["text", "bytes", "gzip"],
)
def test_what_is_no_archive_may_be_meant_for_others(payload: Path, root: Path, content: bytes) -> None:
    payload.write_bytes(content)

    assert not inspect(payload)


def test_looking_at_a_payload_writes_nothing(payload: Path, root: Path, tmp_path: Path) -> None:
    pack(payload, member("a"), member("b/c"), member("l", LINK, to="a"))

    assert inspect(payload)

    assert {"in"} == set(os.listdir(tmp_path))
