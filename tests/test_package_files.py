"""What goes into the packages besides Python, seen without building one: that takes minutes and is in an outer ring."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from tools import packages
from tools.packages import MOST_MB, RELEASES, ROOT, add, contents, copied, describe, for_rpm

UNITS = ROOT / "units"


def test_all_that_is_copied_is_a_file_with_a_place_of_its_own(tmp_path: Path) -> None:
    found = copied()

    places = Counter((name, place) for name, place, _ in found)
    assert [] == [place for place, count in places.items() if count > 1]
    for name, place, path in found:
        add(tmp_path / name, place, path.read_bytes())
        assert not place.startswith("/")
        assert path.read_bytes() == (tmp_path / name / place).read_bytes()


def test_every_example_with_its_folders_and_every_unit_is_in_a_package() -> None:
    found = copied()
    sources = {path for _, _, path in found}

    examples = {path for path in (ROOT / "docs/use/examples").rglob("*") if path.is_file()}
    assert any(path.parent.parent.name == "examples" for path in examples), "there are examples in folders"
    assert examples <= sources
    assert set(UNITS.glob("outrider-*.service")) <= sources
    assert set(UNITS.glob("*.service.d/product.conf")) <= sources
    assert {"outrider-serve.service"} == {Path(place).name for name, place, _ in found if "server" in name} - {
        "copyright"
    }


def test_the_script_that_the_updaters_unit_runs_is_where_it_looks_for_it() -> None:
    unit = (UNITS / "outrider-updater.service").read_text()
    names = set(re.findall(r"/(usr/share/outrider/\S+)", unit))

    assert "usr/share/outrider/updater.sh" in names
    assert names <= {place for _, place, _ in copied()}


@pytest.mark.parametrize("name", MOST_MB)
@pytest.mark.parametrize("codename", RELEASES)
@pytest.mark.parametrize("packer", ["deb", "rpm"])
def test_a_package_is_described_without_a_word_left_open(name: str, codename: str, packer: str) -> None:
    described = describe(name, RELEASES[codename], "1.2.3", packer)

    assert not re.search(r"@[A-Z]+@", json.dumps(described))
    scripts = json.dumps(described.get("scripts", {}))
    assert all(Path(script).is_file() for script in re.findall(r'"(/[^"]+\.sh)"', scripts))
    assert "1.2.3" == described["version"]


def test_an_rpm_leaves_out_what_only_debian_reads_and_marks_its_documents(tmp_path: Path) -> None:
    for place in ("usr/share/doc/outrider/copyright", "usr/share/man/man1/outrider.1.gz", "usr/bin/outrider"):
        add(tmp_path, place, "text")

    kept = {str(one["dst"]): one.get("type") for one in for_rpm("outrider", contents(tmp_path))}

    assert "/usr/share/doc/outrider/copyright" not in kept
    assert ("doc", None) == (kept["/usr/share/man/man1/outrider.1.gz"], kept["/usr/bin/outrider"])
    assert "license" == kept["/usr/share/licenses/outrider/LICENSE"]
    assert packages.SOURCE.is_dir()
