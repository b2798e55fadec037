"""The sizes of docs/use/sizing.md are those of the documents, with long names and a full history."""

import re
import uuid
from datetime import UTC, datetime
from pathlib import Path

from outrider.model.documents import Happening, Instance, Presence, encode

PAGE = (Path(__file__).parents[2] / "docs/use/sizing.md").read_text()
NOW = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)
APP = str(uuid.UUID(int=2**127))
LABELS = {"site": "fra-1", "rack": "17"}
HISTORY = 50
"""As --max-history."""


def said(what: str) -> int:
    """The bytes that the page names in the row that begins so."""
    found = re.search(rf"^\| {re.escape(what)}[^|]*\| ([0-9,]+) \|", PAGE, re.MULTILINE)
    assert found, what
    return int(found[1].replace(",", ""))


def presence() -> bytes:
    url, version = "http://10.12.34.56:34567", "12.34.56"
    return encode(
        Presence(
            instance="web-0123",
            app=APP,
            group="production",
            state="swapping.draining",
            version=version,
            wanted="12.34.57",
            why="draining 12.34.56: 14 open requests are awaited, until 12:00:30 at the latest",
            url=url,
            since=NOW,
            target_revision=10**9,
            process=uuid.UUID(int=2**127).hex,
            machine="web-0123.example.org",
            labels=LABELS,
            serves_release=version,
            serves_url=url,
            release=version,
            wanted_release="12.34.57",
            secret_sha256="0" * 64,
            until=NOW,
            again_at=NOW,
            previous=version,
            previous_release=version,
            outrider="1.2.3",
        )
    )


def row() -> bytes:
    happened = Happening(
        at=NOW,
        version="12.34.56",
        event="downloading",
        error_code=44,
        request_id=uuid.UUID(int=2**127).hex,
        release="12.34.56",
    )
    return encode(
        Instance(
            app=APP,
            id="web-0123",
            group="production",
            version="12.34.56",
            status="downloading",
            granted_version="12.34.57",
            granted_at=NOW,
            address="10.12.34.56",
            first_seen=NOW,
            last_seen=NOW,
            history=(happened,) * HISTORY,
            release="12.34.56",
            labels=LABELS,
        )
    )


def test_presence_and_row_are_as_large_as_the_page_says() -> None:
    for what, content in (("presence", presence()), ("row", row())):
        assert 0.7 * said(what) < len(content) <= said(what), (what, len(content))


def test_the_sums_of_the_page_follow_from_its_rows() -> None:
    """Present values: each instance's three rows, and the history; an update: five reports and some fifteen states."""
    each = said("presence") + said("row") + said("server entry")
    found = re.findall(r"^\| ([0-9,]+)[^|]*\| ([0-9]+) MB \| ([0-9]+) MB \|", PAGE, re.MULTILINE)

    assert 4 == len(found)
    for count, present_mb, updated_mb in found:
        instances = int(count.replace(",", ""))
        assert abs(64 + instances * each / 1e6 - int(present_mb)) < 0.05 * int(present_mb) + 1
        assert instances * 80_000 == int(updated_mb) * 1e6
    assert "about 80,000 bytes" in PAGE
    assert 80_000 > 5 * said("row") + 15 * said("presence")
