"""Small Debian packages, and a system of its own in a folder that this machine's dpkg installs them into."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.requirements import skip_or_fail

NAME = "outrider-kit"
CONTENT = f"usr/share/{NAME}/version"


def use_dpkg_root(monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """Let dpkg, for one test, work on the empty system below ``root``."""
    if shutil.which("dpkg-deb") is None:
        skip_or_fail("dpkg is missing")
    for name in ("info", "updates"):
        (root / "var/lib/dpkg" / name).mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").touch()
    monkeypatch.setenv("DPKG_ROOT", str(root))
    monkeypatch.setenv("DPKG_FORCE", "not-root,bad-path")
    return root


def build_deb(
    folder: Path,
    version: str,
    *,
    name: str = NAME,
    revision: str = "1",
    fields: Mapping[str, str] | None = None,
    scripts: Mapping[str, str] | None = None,
) -> Path:
    """A package that holds its version in a file; ``fields`` of its control file, ``scripts`` that dpkg calls."""
    tree = folder / f"tree-{version}-{revision}"
    (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
    (tree / CONTENT).parent.mkdir(parents=True, exist_ok=True)
    (tree / CONTENT).write_text(version)
    control = {
        "Package": name,
        "Version": f"{version}-{revision}",
        "Architecture": "all",
        "Maintainer": "nobody <nobody@example.org>",
        "Description": "a package for tests",
        **(fields or {}),
    }
    (tree / "DEBIAN/control").write_text("".join(f"{key}: {text}\n" for key, text in control.items()))
    for script, text in (scripts or {}).items():
        (tree / "DEBIAN" / script).write_text(text)
        (tree / "DEBIAN" / script).chmod(0o755)
    path = folder / f"{name}_{version}-{revision}_all.deb"
    words = ["dpkg-deb", "--build", "-Znone"]
    if os.geteuid() == 0:
        words.append("--root-owner-group")
    subprocess.run([*words, str(tree), str(path)], check=True, capture_output=True, timeout=60)
    shutil.rmtree(tree)
    return path


def installed_content(root: str | None = None) -> str:
    """The version in the file that is installed; empty when there is none."""
    try:
        return (Path(root or os.environ["DPKG_ROOT"]) / CONTENT).read_text()
    except FileNotFoundError:
        return ""
