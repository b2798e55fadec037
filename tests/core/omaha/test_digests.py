"""Every client verifies what it downloads by our answer; which facts it compares is in ``docs/use/protocol.md``."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from outrider.core.omaha import AppRequest, Offer, OfferedPackage, OmahaResponse, answer_app, render_response
from tests.support.omaha_digests import DIGEST_RULES

PAGE = Path(__file__).parents[3] / "docs" / "use" / "protocol.md"
CONTENT = b"what the payload holds"
ASKED = AppRequest(app_id="app", version="1.0.0", update_check=True)
FILES = {"web.tar": CONTENT, "web.sig": b"a signature"}

ALL_FACTS = {
    "update_engine": {"payload: size", "payload: action sha256"},
    "updatectl watch": set[str](),
    "updatectl fake": set[str](),
    "go-omaha": {"payload: size", "payload: hash"},
    "Nebraska's library": set[str](),
    "ue-rs": {"payload: size", "payload: hash"},
    "Nebraska's syncer": {"payload: hash", "payload: action sha256"},
}


def package(name: str = "web.tar", *, with_sha1: bool = True) -> OfferedPackage:
    content = FILES[name]
    sha1 = base64.b64encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode("ascii")
    return OfferedPackage(
        name=name,
        size_bytes=len(content),
        sha1=sha1 if with_sha1 else "",
        sha256=hashlib.sha256(content).hexdigest(),
    )


def answer(*packages: OfferedPackage) -> bytes:
    offer = Offer(version="1.2.3", codebases=("http://one.example/web",), packages=packages)
    return render_response(OmahaResponse(apps=(answer_app(ASKED, offer),)))


@pytest.mark.parametrize("client", DIGEST_RULES)
def test_a_client_verifies_the_payload_with_what_it_is_told(client: str) -> None:
    assert ALL_FACTS[client] == DIGEST_RULES[client](answer(package()), FILES)


@pytest.mark.parametrize("client", [name for name, facts in ALL_FACTS.items() if facts])
def test_a_client_that_verifies_notices_another_payload(client: str) -> None:
    with pytest.raises(AssertionError):
        DIGEST_RULES[client](answer(package()), FILES | {"web.tar": CONTENT[::-1]})


def test_without_sha1_ue_rs_still_has_a_digest_and_go_omaha_has_none_that_it_takes() -> None:
    body = answer(package(with_sha1=False))

    assert "payload: hash_sha256" in DIGEST_RULES["ue-rs"](body, FILES)
    with pytest.raises(AssertionError, match="PackageHashMismatchError"):
        DIGEST_RULES["go-omaha"](body, FILES)


@pytest.mark.parametrize("client", DIGEST_RULES)
def test_a_client_verifies_the_other_files_as_well(client: str) -> None:
    facts = DIGEST_RULES[client](answer(package(), package("web.sig")), FILES)

    expected = {fact.replace("payload", "file") for fact in ALL_FACTS[client] if "action" not in fact}
    assert ALL_FACTS[client] | (set() if client == "update_engine" else expected) == facts


def test_the_page_has_the_same_table() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(), re.M)
    columns = ("size", "hash", "hash_sha256", "action sha256")
    shown = {
        row[0]: {name for name, cell in zip(columns, row[1:5], strict=True) if cell.strip() != "-"}
        for row in rows
        if row[0] in DIGEST_RULES
    }

    def facts(client: str) -> set[str]:
        """What it compares of any file, of an answer with and of one without SHA-1."""
        with_sha256 = {"go-omaha", "ue-rs", "Nebraska's syncer"}
        found = {fact.partition(": ")[2] for fact in ALL_FACTS[client]}
        return found | ({"hash_sha256"} if client in with_sha256 else set())

    assert {client: facts(client) for client in DIGEST_RULES} == shown
