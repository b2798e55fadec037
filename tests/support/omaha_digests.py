"""How each Omaha client verifies what it downloaded, as rules that a test can hold an answer to.

``docs/use/protocol.md`` has the table; a test keeps both equal. Each rule takes the answer's bytes and the content of
each file by name, and returns the facts that it compared, ``file: fact``. It raises ``AssertionError`` where the client
would throw the download away.

Source: go-omaha omaha/package.go (``Verify``); update_engine omaha_request_action.cc, payload_processor; ue-rs
omaha/src/response.rs; Nebraska pkg/syncer/syncer.go and updater/; updateservicectl watch.go, instance.go.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from xml.etree import ElementTree

Files = Mapping[str, bytes]
DigestRule = Callable[[bytes, Files], set[str]]


def nothing(answer: bytes, files: Files) -> set[str]:
    """updatectl's ``watch`` and ``instance fake``, and Nebraska's library, leave it to the program that they run."""
    return set()


def update_engine(answer: bytes, files: Files) -> set[str]:
    """The first package alone: its size, and the action's SHA-256 in base64. It never looks at ``hash``."""
    manifest = _manifest(answer)
    package = manifest.findall("packages/package")[0]
    content = files[package.attrib["name"]]
    assert int(package.attrib["size"]) == len(content), "update_engine: size: exit 11"
    assert _base64(manifest, "sha256") == hashlib.sha256(content).digest(), "update_engine: action sha256: exit 10"
    return {"payload: size", "payload: action sha256"}


def go_omaha(answer: bytes, files: Files) -> set[str]:
    """``Package.Verify`` of each package: size, SHA-1 in base64 always, ``hash_sha256`` in base64 when it is there."""
    checked = set()
    for name, package, content in _packages(answer, files):
        assert int(package["size"]) == len(content), "go-omaha: PackageSizeMismatchError"
        sha1 = base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode("ascii")
        assert package.get("hash", "") == sha1, "go-omaha: PackageHashMismatchError: hash"
        checked |= {f"{name}: size", f"{name}: hash"}
        if package.get("hash_sha256"):
            sha256 = base64.b64encode(hashlib.sha256(content).digest()).decode("ascii")
            assert package["hash_sha256"] == sha256, "go-omaha: PackageHashMismatchError: hash_sha256"
            checked.add(f"{name}: hash_sha256")
    return checked


def ue_rs(answer: bytes, files: Files) -> set[str]:
    """Each package: size, SHA-1 in base64 and SHA-256 in hex, each when it is there."""
    return _when_there(answer, files, "ue-rs")


def nebraska_syncer(answer: bytes, files: Files) -> set[str]:
    """The payload: SHA-1, and the action's SHA-256; every other file: SHA-1, and ``hash_sha256`` in hex. No sizes."""
    checked = {fact for fact in _when_there(answer, files, "Nebraska's syncer") if not fact.endswith("size")}
    manifest = _manifest(answer)
    content = files[manifest.findall("packages/package")[0].attrib["name"]]
    assert _base64(manifest, "sha256") == hashlib.sha256(content).digest(), "Nebraska's syncer: action sha256"
    return (checked - {"payload: hash_sha256"}) | {"payload: action sha256"}


DIGEST_RULES: Mapping[str, DigestRule] = {
    "update_engine": update_engine,
    "updatectl watch": nothing,
    "updatectl fake": nothing,
    "go-omaha": go_omaha,
    "Nebraska's library": nothing,
    "ue-rs": ue_rs,
    "Nebraska's syncer": nebraska_syncer,
}


def _when_there(answer: bytes, files: Files, client: str) -> set[str]:
    checked = set()
    for name, package, content in _packages(answer, files):
        assert int(package["size"]) == len(content), f"{client}: size"
        checked.add(f"{name}: size")
        if "hash" in package:
            sha1 = base64.b64decode(package["hash"], validate=True)
            assert sha1 == hashlib.sha1(content, usedforsecurity=False).digest(), f"{client}: hash"
            checked.add(f"{name}: hash")
        if "hash_sha256" in package:
            assert package["hash_sha256"] == hashlib.sha256(content).hexdigest(), f"{client}: hash_sha256 in hex"
            checked.add(f"{name}: hash_sha256")
    return checked


def _packages(answer: bytes, files: Files) -> list[tuple[str, dict[str, str], bytes]]:
    found = [package.attrib for package in _manifest(answer).findall("packages/package")]
    return [("file" if index else "payload", one, files[one["name"]]) for index, one in enumerate(found)]


def _manifest(answer: bytes) -> ElementTree.Element:
    manifest = ElementTree.fromstring(answer).find("app/updatecheck/manifest")
    assert manifest is not None, "no manifest"
    return manifest


def _base64(manifest: ElementTree.Element, name: str) -> bytes:
    return base64.b64decode(manifest.findall("actions/action")[0].attrib[name], validate=True)
