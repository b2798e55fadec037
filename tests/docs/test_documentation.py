"""What the pages point at exists: files, make targets, outrider commands."""

import re
from pathlib import Path

import pytest

from outrider.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
# a hidden folder isn't even looked into: a machine may just be made in .cache, with a /proc that changes meanwhile
FOLDERS = (folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith("."))
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in folder.rglob("*.md"))])


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())

    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets >= {"setup", "demo", "test", "check", "diagrams"}

    named = set(re.findall(r"(?:`| {4})make ([a-z-]+)", page.read_text()))

    assert named <= targets


def test_every_outrider_command_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"(?:`|/)outrider ([a-z]+(?:-[a-z]+)*)", page.read_text()))

    assert named <= set(COMMANDS)
