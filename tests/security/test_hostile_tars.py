"""Archives that a stranger packed: each is refused in one line, or comes out harmless, with nothing beside it."""

import gzip
import io
import lzma
import os
import stat
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from outrider.core.errors import Refused
from outrider.payloads.archive import unpack

MIB = 1024**2
LIMIT_BYTES = 64 * MIB
MEMBERS = 500
Member = tuple[tarfile.TarInfo, bytes | None]


def member(name: str, type: bytes = tarfile.REGTYPE, *, link: str = "", size: int = 0, mode: int = 0o644) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = type, link, size, mode
    return info, b"x" * size if size else None


def link(name: str, to: str) -> Member:
    return member(name, tarfile.SYMTYPE, link=to)


def packed(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content) if content is not None else None)
    return out.getvalue()


def cut_off(size: int) -> bytes:
    """A file that says it is larger than what follows."""
    return sized(member("big")[0], size) + bytes(MIB)


def sized(info: tarfile.TarInfo, size: int) -> bytes:
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def large_window() -> bytes:
    """In pieces: a frame that knows its whole content asks for no more than that."""
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 31})
    return compressor.compress(packed(OK)) + compressor.flush()


def pax(name: str, path: str) -> bytes:
    """A file whose extended header gives it another path."""
    info, content = member(name, size=1)
    info.pax_headers = {"path": path}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


OK = member("ok", size=1)
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "absolute": (lambda: packed(member("/tmp/zz-abs", size=1)), "is absolute"),
    "up": (lambda: packed(member("../zz", size=1)), "climbs out"),
    "link out": (lambda: packed(link("l", "../../../../tmp"), OK), "leads out of the archive"),
    "write through a link": (lambda: packed(link("l", "."), member("l/x", size=1)), "which is a link"),
    "hard link out": (lambda: packed(member("h", tarfile.LNKTYPE, link="/etc/passwd")), "is absolute"),
    "hard link to a link": (
        lambda: packed(link("l", "ok"), OK, member("h", tarfile.LNKTYPE, link="l")),
        "which is no earlier file",
    ),
    "device": (lambda: packed(member("d", tarfile.CHRTYPE)), "is a device or a pipe"),
    "pipe": (lambda: packed(member("f", tarfile.FIFOTYPE)), "is a device or a pipe"),
    "twice": (lambda: packed(OK, OK), "appears twice"),
    "long name": (lambda: packed(member("a" * 5000, size=1)), "has a part of more than 255 bytes"),
    "deep": (lambda: packed(member("/".join(["d"] * 3000) + "/x", size=1)), "."),
    "dot": (lambda: packed(member(".", size=1)), "is not the name of a file"),
    "nothing": (lambda: packed(), "the archive is empty|not a tar"),
    "sparse": (lambda: packed(member("c", tarfile.GNUTYPE_SPARSE)), "is a sparse file|damaged"),
    "long chain of links": (
        lambda: packed(*(link(f"l{n}", f"l{n + 1}") for n in range(300)), member("l300", size=1)),
        "runs in a circle",
    ),
    "circle of links": (lambda: packed(link("a", "b"), link("b", "a"), OK), "link"),
    "many files": (lambda: packed(*(member(f"f{n}") for n in range(MEMBERS + 1))), f"more than {MEMBERS} members"),
    "gzip bomb": (lambda: gzip.compress(cut_off(10 * 1024**3)), f"unpacks to more than {LIMIT_BYTES} bytes"),
    "xz bomb": (lambda: lzma.compress(cut_off(6 * 1024**3), preset=0), f"unpacks to more than {LIMIT_BYTES} bytes"),
    "huge header": (
        lambda: sized(member("x", tarfile.XHDTYPE)[0], 8 * 1024**3) + bytes(1024),
        "holds a header of",
    ),
    # three more of the kind
    "another path in the extended header": (lambda: pax("innocent", "../../out"), "climbs out"),
    "up through the links of others": (
        lambda: packed(member("d/e/f", size=1), link("s", "d/e"), link("l", "s/../../../out")),
        "climbs out|leads out",
    ),
    "zstd frame that asks for 2 GiB of memory": (lambda: large_window(), "damaged|not a tar"),
}
HARMLESS: dict[str, Callable[[], bytes]] = {
    "set-uid": lambda: packed(member("s", size=1, mode=0o6777)),
    "folder that all may write": lambda: packed(member("d", tarfile.DIRTYPE, mode=0o1777), OK),
    "folder that nobody may enter": lambda: packed(member("d", tarfile.DIRTYPE, mode=0), member("d/x", size=1)),
    "bytes that are no text": lambda: packed(member("\udcff\udcfe", size=1)),
    "line end": lambda: packed(member("a\nb", size=1)),
    "NUL in the name": lambda: packed(member("a\0b", size=1)),
    "absolute link": lambda: packed(link("l", "/etc"), OK),
    "contiguous": lambda: packed(member("c", tarfile.CONTTYPE, size=1)),
}


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path / "in/app.payload"


def left_beside(payload: Path) -> dict[str, list[str]]:
    return {one: sorted(os.listdir(payload.parent.parent / one)) for one in ("in", "out")}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_do_harm_is_refused_at_once_in_one_line(payload: Path, what: str) -> None:
    make, words = REFUSED[what]
    payload.write_bytes(make())
    began = time.process_time()

    with pytest.raises(Refused, match=words) as caught:
        unpack(payload, payload.parent.parent / "out/root", max_bytes=LIMIT_BYTES, max_members=MEMBERS)

    assert {"in": ["app.payload"], "out": []} == left_beside(payload)
    assert 1 == len(str(caught.value).splitlines())
    assert len(str(caught.value)) < 600
    assert time.process_time() - began < 5


@pytest.mark.parametrize("what", HARMLESS)
def test_what_does_no_harm_comes_out_without_rights(payload: Path, what: str) -> None:
    payload.write_bytes(HARMLESS[what]())
    root = payload.parent.parent / "out/root"

    unpack(payload, root, max_bytes=LIMIT_BYTES, max_members=MEMBERS)

    assert {"in": ["app.payload"], "out": ["root"]} == left_beside(payload)
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            found = os.lstat(os.path.join(folder, name))
            assert not stat.S_IMODE(found.st_mode) & 0o7022 or stat.S_ISLNK(found.st_mode)
