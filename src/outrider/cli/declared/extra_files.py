"""The files beside the payload of a package in a declaration, both ways: name = path, or name = a table."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from outrider.cli.declared.reader import Reader, line_of, plain
from outrider.cli.declared.steps import Session
from outrider.cli.declared.tree import Node, Scalar, Table
from outrider.cli.payload_files import measure, upload
from outrider.cli.rest_client import Json
from outrider.core.errors import ConfigError
from outrider.service.store.packages import sha256_hex

_FACTS = ("file", "stored", "size_bytes", "sha256", "sha1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraFile:
    """A file beside a payload.

    Attributes:
        path: Of a file to upload, or only to measure where the payload has an address.
        stored: It was uploaded before.
        size_bytes, sha256, sha1: 64 hex digits, and base64; empty where the file says it.
    """

    name: str
    path: Path | None = None
    stored: bool = False
    size_bytes: int | None = None
    sha256: str = ""
    sha1: str = ""
    line: int = 0

    @property
    def measured(self) -> Json:
        """Size and digests.

        Raises:
            ConfigError: there is no such file, or it is another one than was said.
        """
        if self.path is None:
            return {"size_bytes": self.size_bytes, "sha256": self.sha256, "sha1": self.sha1}
        if not self.path.is_file():
            raise ConfigError(f"extra file {self.name}: no such file in {self.path.parent.resolve()}")
        found = measure(self.path)
        if self.sha256 and self.sha256 != found["sha256"]:
            raise ConfigError(f"extra file {self.name} has sha256 {found['sha256']}, but the file says {self.sha256}")
        return found


def read_extra_files(reader: Reader, folder: Path, what: str, table: Table, kind: str) -> tuple[ExtraFile, ...] | None:
    """The files beside a payload of the given kind; None when the declaration doesn't speak of them."""
    if "extra_files" not in table.entries:
        return None
    if kind == "image":
        reader.refuse(line_of(table, "extra_files"), f"{what}.extra_files: an image has none; leave them out")
        return ()
    found = []
    for name, line, node in reader.tables(table, "extra_files", f"{what}.extra_files"):
        one = _read(reader, folder, f"{what}.extra_files.{name}", name, line, node, kind)
        if one is not None:
            found.append(one)
    return tuple(found)


def _read(reader: Reader, folder: Path, what: str, name: str, line: int, node: Node, kind: str) -> ExtraFile | None:
    if isinstance(node, Scalar):
        return ExtraFile(name=name, path=folder / Path(str(plain(node))).expanduser(), line=line)
    table = reader.table(node, what, _FACTS)
    said = {key: reader.text(table, key, what) for key in ("file", "stored", "sha256", "sha1")}
    size = reader.number(table, "size_bytes", what)
    digest = said["stored"] or said["sha256"]
    sha256 = (reader.checked(line, sha256_hex, digest) or "") if digest else ""
    if said["file"]:
        return ExtraFile(name=name, path=folder / Path(said["file"]).expanduser(), sha256=sha256, line=line)
    if said["stored"] and kind != "url":
        return ExtraFile(name=name, stored=True, sha256=sha256, line=line)
    if kind == "url" and size is not None and said["sha256"]:
        return ExtraFile(name=name, size_bytes=size, sha256=sha256, sha1=said["sha1"] or "", line=line)
    needed = "size_bytes and sha256" if kind == "url" else "stored"
    reader.refuse(line, f"{what}: give its path, or a table with file, or with {needed}")
    return None


def bodies_of(session: Session, files: Iterable[ExtraFile], *, has_address: bool) -> list[Json]:
    """As the service takes them; what isn't there yet is uploaded."""
    bodies: list[Json] = []
    for one in files:
        if has_address:
            bodies.append({"name": one.name, **{key: value for key, value in one.measured.items() if value}})
        elif one.path is None:
            bodies.append({"name": one.name, "stored": one.sha256})
        else:
            bodies.append({"name": one.name, "stored": upload(session.service, one.path, one.measured)})
    return bodies


def check_same(ours: Iterable[ExtraFile] | None, theirs: Iterable[ExtraFile] | None, remedy: str) -> None:
    """Return when a package has the same files at the service, or the declaration says nothing of them.

    Raises:
        ConfigError: it has others.
    """
    if ours is None:
        return
    known = {one.name: one.sha256 for one in theirs or ()}
    wanted = {one.name: one.measured["sha256"] for one in ours}
    if wanted != known:
        names = ", ".join(known) or "none"
        raise ConfigError(f"has other extra files at the service ({names}); {remedy}")


def files_of_service(shown: Iterable[Json], *, has_address: bool) -> tuple[ExtraFile, ...]:
    """The files beside a payload, as the service shows them."""
    return tuple(
        ExtraFile(
            name=one["name"],
            stored=not has_address,
            size_bytes=one["size_bytes"],
            sha256=one["sha256"],
            sha1=one["sha1"],
        )
        for one in shown
    )


def files_document(files: Iterable[ExtraFile]) -> Json:
    """As a file has them."""
    return {one.name: _document(one) for one in files}


def _document(one: ExtraFile) -> Json:
    if one.stored:
        return {"stored": one.sha256}
    return {"size_bytes": one.size_bytes, "sha256": one.sha256} | ({"sha1": one.sha1} if one.sha1 else {})


def said_of_file(one: ExtraFile) -> str:
    """One line of a plan: ``extra file web.sig, 64 bytes``."""
    size = one.measured.get("size_bytes")
    return f"extra file {one.name}" + (f", {size} bytes" if size is not None else "")
