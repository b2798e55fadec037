"""What the real Omaha clients need in an answer, as rules that a test can hold an answer to.

Each rule reads the bytes with a parser of its own (expat, not ours), does what its client's source does, and returns
what the client makes of it. Where the client would crash, or would take the answer for broken and report an error,
the rule raises ``AssertionError``.

Source: update_engine omaha_request_action.cc; updateservicectl watch.go, instance.go; go-omaha client/client.go;
Nebraska updater/; ue-rs omaha/src/response.rs; gathered in the table "What each client needs to accept an update".
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from outrider.core.omaha import AppRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The client goes for the update. ``url`` and ``sha256`` (hex) only where the client looks at them."""

    version: str = ""
    url: str = ""
    sha256: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Idle:
    """The client does nothing more and is content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The client understood the answer as an error of the service, and survives it."""

    status: str


Outcome = Taken | Idle | Failed
Rule = Callable[[bytes, AppRequest], Outcome]


def update_engine(answer: bytes, asked: AppRequest) -> Outcome:
    """UE reads the first app, update check and manifest there are; what is missing is exit code 34, reported as 3:0."""
    if not asked.update_check:
        return Idle()
    check = _root(answer).find("app/updatecheck")
    assert check is not None, "update_engine: no updatecheck: exit 34"
    status = check.get("status")
    if status == "noupdate":
        return Idle()
    assert status == "ok", f"update_engine: updatecheck {status}: exit 34"
    urls = [url.get("codebase", "") for url in check.findall("urls/url")]
    assert urls, "update_engine: no url: exit 34"
    assert all(urls), "update_engine: a url without codebase: exit 34"
    package = check.find("manifest/packages/package")
    assert package is not None, "update_engine: no package: exit 34"
    name, size = package.get("name", ""), package.get("size", "")
    assert name, "update_engine: package without name: exit 34"
    assert size.isdigit(), f"update_engine: size {size!r}: exit 34"
    assert int(size) > 0, f"update_engine: size {size!r}: exit 34"
    action = next((one for one in check.iterfind("manifest/actions/action") if one.get("event") == "postinstall"), None)
    assert action is not None, "update_engine: no postinstall action: exit 34"
    sha256 = base64.b64decode(action.get("sha256", ""), validate=True)
    assert len(sha256) == 32, "update_engine: no SHA-256 in the postinstall action: exit 34"
    base = urls[0] if urls[0].endswith("/") else urls[0] + "/"
    return Taken(url=base + name, sha256=sha256.hex(), size_bytes=int(size))


def updatectl_watch(answer: bytes, asked: AppRequest) -> Outcome:
    """Looks at the first app alone; anything but ok, noupdate and error-version runs the program, then panics."""
    if not asked.update_check:
        return Idle()
    app = _root(answer).find("app")
    assert app is not None, "watch: no app: nil pointer"
    check = app.find("updatecheck")
    assert check is not None, "watch: no updatecheck: nil pointer"
    status = check.get("status")
    if status in ("noupdate", "error-version"):
        return Idle()
    assert status == "ok", f"watch: {status}: runs the program without an address, then panics"
    url, manifest = check.find("urls/url"), check.find("manifest")
    assert url is not None, "watch: no url: index out of range"
    assert manifest is not None, "watch: no manifest: nil pointer"
    package = manifest.find("packages/package")
    assert package is not None, "watch: no package: index out of range"
    scheme, _, rest = url.get("codebase", "").partition("//")
    # path.Join: collapses slashes, so only the scheme's own two are kept by hand.
    joined = re.sub("/+", "/", f"{rest}/{package.get('name', '')}")
    return Taken(version=manifest.get("version", ""), url=f"{scheme}//{joined}")


def updatectl_fake(answer: bytes, asked: AppRequest) -> Outcome:
    """Takes what is ok and prints the rest."""
    if not asked.update_check:
        return Idle()
    app = _root(answer).find("app")
    assert app is not None, "fake: no app: index out of range"
    check = app.find("updatecheck")
    assert check is not None, "fake: no updatecheck: nil pointer"
    if check.get("status") != "ok":
        return Idle()
    manifest = check.find("manifest")
    assert manifest is not None, "fake: no manifest: nil pointer"
    return Taken(version=manifest.get("version", ""))


def go_omaha(answer: bytes, asked: AppRequest) -> Outcome:
    """Insists on its own app id, letter by letter; acknowledgements may be absent, but not say anything but ok."""
    root = _root(answer)
    assert root.get("protocol") == "3.0", "go-omaha: unsupported protocol"
    app = next((one for one in root.findall("app") if one.get("appid") == asked.app_id), None)
    assert app is not None, "go-omaha: app missing from the response"
    if app.get("status") != "ok":
        return Failed(status=app.get("status", ""))
    acknowledgements = app.findall("ping") if asked.ping else []
    for acknowledgement in [*acknowledgements, *app.findall("event")]:
        assert acknowledgement.get("status") == "ok", "go-omaha: ping or event not acknowledged with ok"
    if not asked.update_check:
        return Idle()
    check = app.find("updatecheck")
    assert check is not None, "go-omaha: update check missing from the response"
    status = check.get("status", "")
    if status == "noupdate":
        return Idle()
    if status != "ok":
        return Failed(status=status)
    manifest = check.find("manifest")
    assert manifest is not None, "go-omaha: no manifest"
    return Taken(version=manifest.get("version", ""))


def nebraska_library(answer: bytes, asked: AppRequest) -> Outcome:
    """Panics when its app is missing; an event's answer must say ok for the app."""
    app = next((one for one in _root(answer).findall("app") if one.get("appid") == asked.app_id), None)
    assert app is not None, "Nebraska's library: app missing: nil pointer"
    if app.get("status") != "ok":
        return Failed(status=app.get("status", ""))
    check = app.find("updatecheck")
    if not asked.update_check or check is None or check.get("status") != "ok":
        return Idle()
    manifest = check.find("manifest")
    assert manifest is not None, "Nebraska's library: no manifest: nil pointer"
    return Taken(version=manifest.get("version", ""))


def ue_rs(answer: bytes, asked: AppRequest) -> Outcome:
    """Decodes strictly: hex for hash_sha256, base64 for hash, known event names in actions."""
    if not asked.update_check:
        return Idle()
    check = _root(answer).find("app/updatecheck")
    assert check is not None, "ue-rs: no updatecheck"
    if check.get("status") != "ok":
        return Idle()
    urls = [url.attrib["codebase"] for url in check.findall("urls/url")]
    assert urls, "ue-rs: no url"
    manifest = check.find("manifest")
    assert manifest is not None, "ue-rs: no manifest"
    packages = manifest.findall("packages/package")
    assert packages, "ue-rs: no package"
    for package in packages:
        assert {"name", "size", "required"} <= set(package.attrib), "ue-rs: a package attribute is missing"
        assert package.attrib["required"] in ("true", "false"), "ue-rs: required isn't a bool"
        if "hash" in package.attrib:
            assert len(base64.b64decode(package.attrib["hash"], validate=True)) == 20, "ue-rs: hash isn't base64 SHA-1"
        if "hash_sha256" in package.attrib:
            assert re.fullmatch("[0-9a-f]{64}", package.attrib["hash_sha256"]), "ue-rs: hash_sha256 isn't hex"
    for action in manifest.findall("actions/action"):
        known = ("preinstall", "install", "postinstall", "update")
        assert action.get("event") in known, "ue-rs: unknown event of an action"
    first = packages[0].attrib
    return Taken(
        version=manifest.attrib["version"],
        url=urls[0] + first["name"],
        sha256=first.get("hash_sha256", ""),
        size_bytes=int(first["size"]),
    )


CLIENTS: Mapping[str, Rule] = {
    "update_engine": update_engine,
    "updatectl watch": updatectl_watch,
    "updatectl fake": updatectl_fake,
    "go-omaha": go_omaha,
    "Nebraska's library": nebraska_library,
    "ue-rs": ue_rs,
}
"""Every client by name. ``CLIENTS[name](answer, asked)`` is what it makes of ``answer`` to a request for ``asked``."""


def outcomes(answer: bytes, asked: AppRequest) -> dict[str, Outcome]:
    """What all clients make of one answer.

    Raises:
        AssertionError: one of them would crash or report a broken answer.
    """
    return {name: rule(answer, asked) for name, rule in CLIENTS.items()}


def check_form(answer: bytes, *asked: AppRequest) -> None:
    """Hold an answer to the form that the service promises, beyond what any one client insists on.

    One app per asked app, in order and with its spelling; an update check exactly where one was asked for; ping and
    every event acknowledged; the children in the order ping, updatecheck, event.
    """
    assert answer.startswith(b'<?xml version="1.0" encoding="UTF-8"?>\n'), "no XML declaration as other servers send it"
    root = _root(answer)
    assert root.get("protocol") == "3.0"
    day = root.find("daystart")
    assert day is not None, "no daystart"
    assert day.get("elapsed_seconds", "").isdigit(), "no daystart with elapsed_seconds"
    apps = root.findall("app")
    assert [app.app_id for app in asked] == [app.get("appid") for app in apps], "not one answer per app, as spelled"
    for app, one in zip(apps, asked, strict=True):
        expected = ["ping"] * one.ping + ["updatecheck"] * one.update_check + ["event"] * len(one.events)
        assert expected == [child.tag for child in app], f"children of {one.app_id}"
        assert all(child.get("status") == "ok" for child in app if child.tag != "updatecheck")


def _root(answer: bytes) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(answer)
    except ElementTree.ParseError as error:
        raise AssertionError(f"not XML: {error}: {answer[:200]!r}") from error
    assert root.tag == "response", f"root element {root.tag}"
    return root
