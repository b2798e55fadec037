"""``make sbom``: for each way to install outrider, a CycloneDX bill of materials and a list of licences.

cyclonedx-py describes everything that is in the development environment; of that stays what the wheel needs with the
extras of that way, as its own metadata says. Run it with the environment's own Python.
"""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / ".cache/supply/bin/cyclonedx-py"
WAYS: Mapping[str, tuple[str, ...]] = {
    "sidekick": (),
    "sidekick-systemd": ("systemd", "trust"),
    "sidekick-docker": ("docker", "trust"),
    "operator": ("cli", "trust", "backup"),
    "server": ("server", "backup", "notify"),
}
"""Name -> extras. Those for development, the demo's programs and diagrams are installed nowhere else."""

_VALIDATE = """
import json, pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
text = pathlib.Path(sys.argv[1]).read_text()
version = SchemaVersion.from_version(json.loads(text)["specVersion"])
sys.exit(str(JsonStrictValidator(version).validate_str(text) or "") or 0)
"""
"""Runs where cyclonedx-py is installed."""

Json = dict[str, Any]


def installed() -> dict[str, tuple[str, ...]]:
    """What each distribution of this environment requires."""
    return {
        str(canonicalize_name(one.metadata["Name"])): tuple(one.requires or ())
        for one in importlib.metadata.distributions()
    }


def closure(extras: Iterable[str], requirements: Mapping[str, Iterable[str]], name: str = "outrider") -> set[str]:
    """Canonical names of all that ``name`` with ``extras`` needs, itself included.

    Args:
        requirements: Canonical name -> what that distribution requires, as its metadata says.

    Raises:
        KeyError: one of them isn't installed.
    """
    found: set[tuple[str, str]] = set()
    left = [(name, extra) for extra in ("", *extras)]
    while left:
        one = left.pop()
        if one in found:
            continue
        found.add(one)
        for line in requirements[one[0]]:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": one[1]}):
                left += [(canonicalize_name(needed.name), extra) for extra in ("", *needed.extras)]
    return {each for each, _ in found}


def reduced(bill: Json, names: set[str]) -> Json:
    """The bill of materials of ``names`` alone, with the edges between them."""
    kept = [one for one in bill["components"] if canonicalize_name(one["name"]) in names]
    references = {one["bom-ref"] for one in kept}
    if main := bill.get("metadata", {}).get("component", {}).get("bom-ref"):
        references.add(main)
    edges = [
        {**one, **({"dependsOn": sorted(references & set(one["dependsOn"]))} if "dependsOn" in one else {})}
        for one in bill.get("dependencies", ())
        if one["ref"] in references
    ]
    return {**bill, "components": kept, "dependencies": edges}


def licence_of(component: Json) -> str:
    """SPDX expression, ids or names; "unknown" when the package says nothing."""
    found = []
    for one in component.get("licenses", ()):
        inner = one.get("license", {})
        found.append(one.get("expression") or inner.get("id") or str(inner.get("name", "")).splitlines()[0][:80])
    found = [each for each in dict.fromkeys(found) if each]
    spdx = [each for each in found if not each.startswith("License ::")]  # a classifier says the same less exactly
    return " AND ".join(spdx or found) or "unknown"


def licences(bill: Json) -> str:
    """A line for each component: name, version, licence."""
    rows = sorted((one["name"].lower(), one.get("version", "-"), licence_of(one)) for one in bill["components"])
    return "".join(f"{name}\t{version}\t{licence}\n" for name, version, licence in rows)


def schema_problem(path: Path) -> str:
    """What the schema of CycloneDX says against a file; empty: nothing."""
    words = [str(PROGRAM.with_name("python")), "-c", _VALIDATE, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip() or f"left with {done.returncode}")[-400:]


def main() -> int:
    """Write both files of each way to the folder that is named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    words = [str(PROGRAM), "environment", "--output-format=JSON", "--output-reproducible", "--pyproject=pyproject.toml"]
    done = subprocess.run([*words, "--", sys.executable], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"sbom: cyclonedx-py: {done.stderr.strip()[-400:]}", file=sys.stderr)
        return 1
    bill: Json = json.loads(done.stdout)
    requirements = installed()
    for way, extras in WAYS.items():
        names = closure(extras, requirements)
        part = reduced(bill, names)
        described = {canonicalize_name(one["name"]) for one in part["components"]} | {"outrider"}
        if lacking := sorted(names - described):
            print(f"sbom: {way}: not described: {', '.join(lacking)}", file=sys.stderr)
            return 1
        path = folder / f"outrider-{way}.cdx.json"
        path.write_text(json.dumps(part, indent=2, sort_keys=True) + "\n")
        if problem := schema_problem(path):
            print(f"sbom: {path}: not CycloneDX: {problem}", file=sys.stderr)
            return 1
        (folder / f"outrider-{way}.licences.tsv").write_text(licences(part))
        print(f"sbom: {path}: {len(part['components'])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
