"""Omaha v3 bytes -> checked types. Everything that a peer may send wrongly ends in ``OmahaError``.

Strict where a wrong guess could install the wrong thing (addresses, sizes, digests, counts), tolerant elsewhere: hints
that are malformed are ignored, as update_engine does.
"""

import base64
import binascii
import re
from collections.abc import Iterator

from lxml import etree

from outrider.core.errors import ConfigError, OmahaError
from outrider.core.omaha.types import (
    MAX_APPS,
    MAX_EVENTS,
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    PROTOCOL,
    AppAnswer,
    AppRequest,
    CheckError,
    NoUpdate,
    Offer,
    OfferedPackage,
    OmahaEvent,
    OmahaRequest,
    OmahaResponse,
    UpdateCheck,
)
from outrider.core.release import ReleaseId, release_of

MAX_URLS = 20
MAX_PACKAGES = 1000
MAX_SIZE_BYTES = 2**53
"""Beyond it a size isn't exact in JSON, and no payload comes near."""

_ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "iso-8859-1",
    "latin1": "iso-8859-1",
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
}
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_DECLARATION = re.compile(rb"""\s*<\?xml[^>]{0,200}?\sencoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_HEX_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_NATURAL = re.compile(r"[0-9]{1,16}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,16}")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]")


def parse_request(body: bytes) -> OmahaRequest:
    """Read one request of any client, ours or a foreign one.

    Shape: ``request > os, app*``; ``app > ping, updatecheck, event*``.

    Args:
        body: XML as received, at most ``MAX_REQUEST_BYTES``; UTF-8 unless it declares something else.

    Raises:
        OmahaError: not XML, a DTD, too long, another protocol, no app, too many apps or events, or an event whose
            numbers aren't numbers.

    Source: go-omaha omaha/protocol.go; update_engine omaha_request_action.cc; tests/data/captures/.
    """
    what = "omaha request"
    root = _root(body, what, "request", MAX_REQUEST_BYTES)
    protocol = _protocol(root, what)
    app_elements = _children(root, "app", MAX_APPS, what)
    if not app_elements:
        raise OmahaError(f"{what}: no <app> in it; name at least one")
    apps = tuple(_read_app_request(element, what) for element in app_elements)
    if sum(len(app.events) for app in apps) > MAX_EVENTS:
        raise OmahaError(f"{what}: more than {MAX_EVENTS} events; send the rest in another request")
    system = root.find("os")
    return OmahaRequest(
        apps=apps,
        protocol=protocol,
        updater=_text(root, "version"),
        updater_version=_text(root, "updaterversion"),
        install_source=_text(root, "installsource"),
        session_id=_text(root, "sessionid"),
        user_id=_text(root, "userid"),
        request_id=_text(root, "requestid"),
        platform=_text(system, "platform"),
        os_version=_text(system, "version"),
        service_pack=_text(system, "sp"),
        arch=_text(system, "arch"),
        seen_revision=_revision(root),
        seen_epoch=_text(root, "seenepoch"),
    )


def parse_response(body: bytes) -> OmahaResponse:
    """Read one response of any server, ours or a foreign one.

    Shape: ``response > daystart, app*``; ``app > ping, updatecheck, event*``; with news ``updatecheck > urls > url*``
    and ``manifest > packages > package*, actions > action*``. Of several manifests the first counts.

    Args:
        body: XML as received, at most ``MAX_RESPONSE_BYTES``; UTF-8 unless it declares something else.

    Returns:
        Every app's answer. ``hash_sha256`` is understood in base64 and in hex, and the payload's digest is taken from
        the postinstall action when the package has none; Nebraska names none for what isn't Flatcar.

    Raises:
        OmahaError: not XML, a DTD, too long, another protocol, an app without an id or status, an update without
            address, version or package, or with an impossible size or digest.

    Source: go-omaha omaha/protocol.go; Nebraska pkg/omaha/omaha.go; tests/data/captures/nebraska-responses/.
    """
    what = "omaha response"
    root = _root(body, what, "response", MAX_RESPONSE_BYTES)
    _protocol(root, what)
    day = root.find("daystart")
    return OmahaResponse(
        apps=tuple(_read_app_answer(element, what) for element in _children(root, "app", MAX_APPS, what)),
        server=_text(root, "server"),
        elapsed_seconds=_hint(day, "elapsed_seconds") or 0,
    )


def _read_app_request(element: etree._Element, what: str) -> AppRequest:
    app_id = _text(element, "appid")
    if not app_id.strip():
        raise OmahaError(f"{what}: line {element.sourceline}: <app> without appid")
    check = element.find("updatecheck")
    return AppRequest(
        app_id=app_id,
        version=_text(element, "version"),
        release=_release(element, what),
        track=_text(element, "track"),
        machine_id=_text(element, "machineid"),
        boot_id=_text(element, "bootid"),
        alias=_text(element, "machinealias"),
        oem=_text(element, "oem"),
        board=_text(element, "board"),
        ping=element.find("ping") is not None,
        update_check=check is not None,
        target_version_prefix=_text(check, "targetversionprefix"),
        rollback_allowed=_text(check, "rollback_allowed") == "true",
        rollback_forbidden=_text(check, "rollback_allowed") == "false",
        takes_turns=_text(check, "takes_turns") == "true",
        multi_manifest_ok=_text(element, "multi_manifest_ok") == "true",
        events=tuple(_read_event(event, what) for event in _children(element, "event", MAX_EVENTS, what)),
    )


def _read_event(element: etree._Element, what: str) -> OmahaEvent:
    return OmahaEvent(
        type=_number(element, "eventtype", what),
        result=_number(element, "eventresult", what),
        error_code=_number(element, "errorcode", what),
        previous_version=_text(element, "previousversion"),
        next_version=_text(element, "nextversion"),
        release=_release(element, what),
    )


def _read_app_answer(element: etree._Element, what: str) -> AppAnswer:
    app_id, status = _text(element, "appid"), _text(element, "status")
    if not app_id.strip() or not status:
        raise OmahaError(f"{what}: line {element.sourceline}: <app> without appid or status")
    where = f"{what}: app {_quoted(app_id)}"
    check = element.find("updatecheck")
    return AppAnswer(
        app_id=app_id,
        status=status,
        ping=element.find("ping") is not None,
        update_check=None if check is None else _read_check(check, where),
        events=len(_children(element, "event", MAX_EVENTS, where)),
    )


def _read_check(element: etree._Element, where: str) -> UpdateCheck:
    status = _text(element, "status")
    if status == "noupdate":
        return NoUpdate(reason=_text(element, "info"), poll_interval_s=_hint(element, "PollInterval"))
    if status != "ok":
        if not status:
            raise OmahaError(f"{where}: <updatecheck> without status")
        return CheckError(status=status)
    return _read_offer(element, where)


def _read_offer(check: etree._Element, where: str) -> Offer:
    codebases = tuple(_text(url, "codebase").strip() for url in _below(check, ("urls", "url"), MAX_URLS, where))
    if not codebases or any(not codebase or _UNPRINTABLE.search(codebase) for codebase in codebases):
        raise OmahaError(f"{where}: an update needs <urls> with a <url codebase=...> that is an address")
    manifest = check.find("manifest")
    version = _text(manifest, "version").strip()
    if manifest is None or not version or _UNPRINTABLE.search(version):
        raise OmahaError(f"{where}: an update needs a <manifest> with a version")
    where = f"{where}: version {_quoted(version)}"
    elements = _below(manifest, ("packages", "package"), MAX_PACKAGES, where)
    if not elements:
        raise OmahaError(f"{where}: no <package> in the manifest")
    first, *others = (_read_package(element, where) for element in elements)
    release = _release(manifest, where)
    if release is not None and release.version != version:
        raise OmahaError(f"{where}: its release is one of {_quoted(release.version)}")
    return Offer(
        version=version,
        codebases=codebases,
        packages=(_with_action_digest(first, manifest, where), *others),
        release=release,
    )


def _revision(root: etree._Element) -> int:
    """A revision of etcd, below 2**63; 0 where there is none, or something else."""
    word = _text(root, "seenrevision")
    return int(word) if len(word) <= 18 and word.isascii() and word.isdigit() else 0


def _release(element: etree._Element, what: str) -> ReleaseId | None:
    """Our attribute; None where there is none. One that can't be read is refused: a guess could be another release."""
    word = _text(element, "release")
    if not word:
        return None
    try:
        return release_of(word)
    except ConfigError as error:
        raise OmahaError(f"{what}: line {element.sourceline}: {error}") from None


def _read_package(element: etree._Element, where: str) -> OfferedPackage:
    name = _text(element, "name").strip()
    # The name becomes part of an address and of a file name: no way out of either.
    if not name.strip("/") or _UNPRINTABLE.search(name) or "\\" in name or ".." in name.split("/"):
        raise OmahaError(f"{where}: package name {_quoted(name)} can't be part of an address")
    where = f"{where}: package {_quoted(name)}"
    size = _text(element, "size").strip()
    if not _NATURAL.fullmatch(size) or not 0 < int(size) <= MAX_SIZE_BYTES:
        raise OmahaError(f"{where}: size {_quoted(size)} isn't a number of bytes above 0")
    sha1 = _text(element, "hash").strip()
    if sha1 and _from_base64(sha1, 20) is None:
        raise OmahaError(f"{where}: hash {_quoted(sha1)} isn't a SHA-1 in base64")
    return OfferedPackage(
        name=name,
        size_bytes=int(size),
        sha1=sha1,
        sha256=_sha256_hex(_text(element, "hash_sha256"), where),
        required=_text(element, "required").strip().lower() not in ("false", "0"),
    )


def _with_action_digest(package: OfferedPackage, manifest: etree._Element, where: str) -> OfferedPackage:
    action = next((one for one in manifest.iterfind("actions/action") if _text(one, "event") == "postinstall"), None)
    sha256 = _sha256_hex(_text(action, "sha256"), where)
    if sha256 and package.sha256 and sha256 != package.sha256:
        raise OmahaError(f"{where}: package {_quoted(package.name)} and its postinstall action name different SHA-256")
    return OfferedPackage(
        name=package.name,
        size_bytes=package.size_bytes,
        sha1=package.sha1,
        sha256=package.sha256 or sha256,
        required=package.required,
    )


def _sha256_hex(text: str, where: str) -> str:
    """Both dialects told apart by length: 64 hex digits (Nebraska's syncer, ue-rs), 44 base64 (go-omaha, actions)."""
    text = text.strip()
    if not text:
        return ""
    if _HEX_SHA256.fullmatch(text):
        return text.lower()
    digest = _from_base64(text, 32)
    if digest is None:
        raise OmahaError(f"{where}: {_quoted(text)} isn't a SHA-256, neither 64 hex digits nor 44 of base64")
    return digest.hex()


def _from_base64(text: str, size_bytes: int) -> bytes | None:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if len(decoded) == size_bytes else None


def _root(body: bytes, what: str, tag: str, limit: int) -> etree._Element:
    if len(body) > limit:
        raise OmahaError(f"{what}: {len(body)} bytes, at most {limit} are read")
    text = _decode(body, what)
    if not text.strip():
        raise OmahaError(f"{what}: empty; expected XML with a <{tag}>")
    # Before the parser sees it, so that no part of a DTD is ever read; anywhere, because no true message has one.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise OmahaError(f"{what}: a DOCTYPE is not accepted")
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(text.encode("utf-8"), parser)
    except etree.XMLSyntaxError as error:
        raise OmahaError(f"{what}: not XML: {_quoted(str(error.msg))}") from None
    if root.tag != tag:
        raise OmahaError(f"{what}: the root element is {_quoted(str(root.tag))}, expected <{tag}>")
    return root


def _decode(body: bytes, what: str) -> str:
    """Decode by byte order mark, else by declaration, else as UTF-8; only encodings in which ``<`` can't hide."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if body.startswith(mark)), "")
    if not encoding and body.startswith((b"<\0", b"\0<")):
        encoding = "utf-16-le" if body.startswith(b"<\0") else "utf-16-be"
    if not encoding:
        declaration = _DECLARATION.match(body)
        declared = declaration.group(1).decode("ascii").lower() if declaration else "utf-8"
        # A declaration that was read byte by byte isn't in UTF-16, whatever it says; libxml2 and Go ignore it too.
        encoding = "utf-8" if declared.startswith("utf-16") else _ENCODINGS.get(declared, "")
        if not encoding:
            raise OmahaError(f"{what}: encoding {declared!r} is not accepted; use UTF-8")
    try:
        return body.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise OmahaError(f"{what}: byte {error.start} isn't {encoding}") from None


def _protocol(root: etree._Element, what: str) -> str:
    protocol = _text(root, "protocol")
    if not re.fullmatch(r"3\.[0-9]{1,3}", protocol):
        raise OmahaError(f"{what}: protocol {_quoted(protocol)}; this is Omaha {PROTOCOL}")
    return protocol


def _children(parent: etree._Element, tag: str, limit: int, where: str) -> list[etree._Element]:
    return _bounded(parent.iterchildren(tag), tag, limit, where)


def _below(parent: etree._Element, path: tuple[str, str], limit: int, where: str) -> list[etree._Element]:
    return _bounded(parent.iterfind("/".join(path)), path[-1], limit, where)


def _bounded(elements: Iterator[etree._Element], tag: str, limit: int, where: str) -> list[etree._Element]:
    found: list[etree._Element] = []
    for element in elements:
        if len(found) == limit:
            raise OmahaError(f"{where}: more than {limit} <{tag}>")
        found.append(element)
    return found


def _text(element: etree._Element | None, name: str) -> str:
    return "" if element is None else str(element.get(name, ""))


def _number(element: etree._Element, name: str, what: str) -> int:
    """An absent number is 0, as in Go's reader; one that isn't a number is refused."""
    text = _text(element, name).strip()
    if text and not _INTEGER.fullmatch(text):
        raise OmahaError(f"{what}: line {element.sourceline}: {name} {_quoted(text)} isn't a number")
    return int(text or "0")


def _hint(element: etree._Element | None, name: str) -> int | None:
    text = _text(element, name).strip()
    return int(text) if _NATURAL.fullmatch(text) else None


def _quoted(text: str) -> str:
    """A peer's text for our one line: escaped, and cut where it gets long."""
    return repr(text if len(text) <= 100 else text[:97] + "...")
