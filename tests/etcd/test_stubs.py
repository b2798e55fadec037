"""What decision 0002 says of the etcd client's stubs is what the code uses and what the package has."""

import re
from pathlib import Path

import pytest
from etcd3 import etcdrpc

import outrider

SOURCE = Path(outrider.__file__).parent
DECISION = (SOURCE.parent.parent / "docs/decisions/0002-etcd-client.md").read_text(encoding="utf-8")
USES, FIELDS = DECISION.split("## What we use of it")[1].split("The stubs are those of")
ROWS = re.findall(r"^\| `(\w+)` \| (.+?) \| (yes|no)\b.*\|$", FIELDS, re.MULTILINE)


def test_the_decision_names_all_that_is_used_of_the_stubs_and_nothing_else() -> None:
    sources = [path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")]
    used = {name for text in sources for name in re.findall(r"\betcdrpc\.(\w+)", text)}
    cells = re.findall(r"^\| .* \| (`[A-Z].*`) \|$", USES, re.MULTILINE)

    assert used == {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_nothing_else_of_the_package_is_imported() -> None:
    imports = {
        line.strip()
        for path in SOURCE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(from|import) etcd3\b", line)
    }

    assert {"from etcd3 import etcdrpc"} == imports


@pytest.mark.parametrize(("message", "fields", "known"), ROWS)
def test_the_stubs_know_the_fields_that_the_decision_says(message: str, fields: str, known: str) -> None:
    has = {(field.name, field.number) for field in getattr(etcdrpc, message).DESCRIPTOR.fields}
    said = {(name, int(number)) for name, number in re.findall(r"`(\w+)` \((\d+)\)", fields)}

    assert said
    assert (said <= has) if known == "yes" else not (said & has)


def test_a_range_can_be_compared() -> None:
    compare = etcdrpc.Compare(key=b"a/", range_end=b"a0", target=etcdrpc.Compare.CREATE, create_revision=0)

    again = etcdrpc.Compare.FromString(compare.SerializeToString())

    assert (b"a/", b"a0") == (again.key, again.range_end)
