"""``make packages``: Debian and RPM packages of outrider, below ``build/packages``.

For each Debian release its own ``/usr/bin/python3`` makes a virtual environment at ``/opt/outrider``, in a small tree
of that release. Sidekick and commands are one package; what the update service needs besides is another. Needs root,
for chroot. The same files make the .rpm, for the same Python.
"""

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "packages"
TOOLS = ROOT / ".cache/packages/tools/bin"
PREFIX = "opt/outrider"
PROGRAMS = {"outrider", "updatectl"}
"""What of ``/opt/outrider/bin`` is ours; the programs of libraries are left out."""
UNNEEDED = {"INSTALLER", "REQUESTED", "direct_url.json", ".gitignore"}
SERVER_UNITS = {"outrider-serve.service"}
MOST_MB = {"outrider": 110, "outrider-server": 60}
"""What a package may add to a machine, in 10^6 bytes; what compiling at its installation adds is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release of Debian.

    Attributes:
        number: As in ``12``.
        python: The version of its Python.
    """

    number: str
    python: str


RELEASES: Mapping[str, Release] = {
    "bookworm": Release(number="12", python="3.11"),
    "trixie": Release(number="13", python="3.13"),
}


def run(*words: object, **more: object) -> str:
    """What a program prints; it must leave with 0.

    Raises:
        SystemExit: it did not; with its last words.
    """
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise SystemExit(f"packages: {' '.join(map(str, words))[:300]}: left with {done.returncode}: {said}")
    return str(done.stdout)


def for_python(text: str, version: str) -> str:
    """Those lines of a list of requirements that a Python of ``version`` on Linux installs, without their conditions.

    pip evaluates a condition for the Python that runs it, also when it downloads for another one.
    """
    environment = {"python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux"}
    kept = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        first, continued, hashes = block.partition("\\\n")
        if first.startswith("#"):
            continue
        needed = Requirement(first.strip())
        if needed.marker is None or needed.marker.evaluate({**environment, "extra": ""}):
            kept.append(f"{needed.name}{needed.specifier} {continued}{hashes}".rstrip())
    return "\n".join(kept) + "\n"


def download(release: Release) -> Path:
    """Wheels of all that the packages hold, hashes checked, and a pip to install them with; kept for the next time.

    Returns:
        Their folder, which also has the lists ``requirements.txt`` and ``pip.txt``.
    """
    folder = ROOT / f".cache/packages/wheels-{release.python}"
    abi = f"cp{release.python.replace('.', '')}"
    platforms = [f"--platform=manylinux_2_{minor}_{os.uname().machine}" for minor in (5, 12, 17, 24, 26, 27, 28)]
    pip_lines = (ROOT / "constraints.txt").read_text().partition("\npip==")[2].partition("\n#")[0]
    pip_lines = re.split(r"\n(?=[a-z])", "pip==" + pip_lines)[0]
    lists = {"requirements": (SOURCE / "requirements-server.txt").read_text(), "pip": pip_lines}
    made_of = hashlib.sha256("".join(lists.values()).encode()).hexdigest()
    if (folder / "made-of").is_file() and (folder / "made-of").read_text() == made_of:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in lists.items():
        path = folder / f"{name}.txt"
        path.write_text(for_python(text, release.python))
        run(
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"),
            *("--require-hashes", "--only-binary=:all:", f"--python-version={release.python}", "--implementation=cp"),
            *(f"--abi={abi}", "--abi=abi3", "--abi=none", *platforms, "-d", folder, "-r", path),
        )
    (folder / "made-of").write_text(made_of)
    return folder


def files_below(folder: Path) -> set[str]:
    """Files and links, as paths from ``folder``."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def install(release: Release, codename: str, work: Path) -> tuple[set[str], set[str]]:
    """Make ``/opt/outrider`` in a tree of the release, at ``work / "tree"``.

    Returns:
        The files of the package ``outrider`` and of ``outrider-server``, as paths from the tree's root.
    """
    run(ROOT / "tools/systemd_image.sh", codename)
    archive = run(ROOT / "tools/systemd_image.sh", "path", codename).strip()
    tree, wheels = work / "tree", work / "tree/build"
    tree.mkdir(parents=True)
    run("tar", "-C", tree, "-xf", archive)
    run("mknod", "-m", "666", tree / "dev/null", "c", "1", "3")
    shutil.copytree(download(release), wheels)
    for wheel in (work / "wheel").glob("*.whl"):
        shutil.copy(wheel, wheels)
    chroot = ("chroot", tree, "/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1")
    python = f"/usr/bin/python{release.python}"
    found = run(*chroot, "/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    if found != release.python:
        raise SystemExit(f"packages: {codename}: /usr/bin/python3 is {found}, and should be {release.python}")
    run(*chroot, python, "-m", "venv", "--without-pip", f"/{PREFIX}")
    pip = next(path.name for path in wheels.glob("pip-*.whl"))
    installing = (
        *(*chroot, python, f"/build/{pip}/pip", "--python", f"/{PREFIX}/bin/python3", "install", "--quiet"),
        *("--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"),
    )
    own = [f"/build/{path.name}" for path in wheels.glob("outrider-*.whl")]
    names = for_python((SOURCE / "requirements.txt").read_text(), release.python)
    (wheels / "sidekick.txt").write_text(names)
    run(*installing, "--require-hashes", "--find-links", "/build", "-r", "/build/sidekick.txt")
    run(*installing, *own)
    tidy(tree / PREFIX, python)
    sidekick = files_below(tree / PREFIX)
    run(*installing, "--require-hashes", "--find-links", "/build", "-r", "/build/requirements.txt")
    tidy(tree / PREFIX, python)
    server = files_below(tree / PREFIX) - sidekick
    return {f"{PREFIX}/{name}" for name in sidekick}, {f"{PREFIX}/{name}" for name in server}


def tidy(prefix: Path, python: str) -> None:
    """Leave out what no machine needs: libraries' programs and tests, scripts to activate, how pip was called."""
    for path in (prefix / "bin").iterdir():
        if path.name not in PROGRAMS and not path.name.startswith("python"):
            path.unlink()
    for tests in [*prefix.glob("lib/*/site-packages/*/tests")]:
        shutil.rmtree(tests)
    for path in prefix.rglob("*"):
        if path.name in UNNEEDED or path.suffix in (".pxd", ".pyx", ".c", ".h", ".sh"):
            path.unlink()
        elif path.suffix == ".py" and path.read_bytes().startswith(b"#!"):  # a module, and no program here
            path.write_bytes(b"#" + path.read_bytes()[2:])
    # by its version: an upgrade of Debian keeps that Python as long as this package needs it, and sidekicks go on
    for name in ("python", "python3"):
        (prefix / "bin" / name).unlink(missing_ok=True)
        (prefix / "bin" / name).symlink_to(python)
    shutil.rmtree(prefix / "include", ignore_errors=True)
    for folder in sorted((path for path in prefix.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def stage(tree: Path, files: Iterable[str], folder: Path) -> None:
    """Hard-link files of a tree to a folder of their own."""
    for name in files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(tree / name, target, follow_symlinks=False)


def add(folder: Path, name: str, content: bytes | str, *, packed: bool = False, mode: int = 0o644) -> None:
    """A file of a package; ``packed``: by gzip, the same bytes each time."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw, 9, mtime=0) if packed else raw)
    path.chmod(mode)


def copied() -> list[tuple[str, str, Path]]:
    """What the packages have as it is here: the package, where it goes below ``/``, and the file."""
    units, examples = ROOT / "units", ROOT / "docs/use/examples"
    found = [
        ("outrider-server" if path.name in SERVER_UNITS else "outrider", f"usr/lib/systemd/system/{path.name}", path)
        for path in units.glob("outrider-*.service")
    ]
    own = [(f"usr/lib/systemd/system/{path.parent.name}/{path.name}", path) for path in units.glob("*.d/product.conf")]
    own.append(("usr/lib/sysusers.d/outrider.conf", units / "outrider.sysusers.conf"))
    own += [
        (f"usr/share/outrider/{name}", units / name) for name in ("outrider.rules", "example@.service", "updater.sh")
    ]
    own.append(("usr/share/outrider/app-elsewhere.conf", units / "outrider-sidekick@.service.d/app-elsewhere.conf"))
    for name, folder in (("examples", examples), ("dashboards", ROOT / "dashboards")):
        own += [
            (f"usr/share/outrider/{name}/{path.relative_to(folder)}", path)
            for path in folder.rglob("*")
            if path.is_file()
        ]
    found += [("outrider", place, path) for place, path in own]
    found += [(name, f"usr/share/doc/{name}/copyright", SOURCE / "copyright") for name in MOST_MB]
    return sorted(found)


def dress(tree: Path, sidekick: Path, server: Path, version: str, codename: str) -> None:
    """Units, users, manual pages, completion, licences: what is not Python."""
    folders = {"outrider": sidekick, "outrider-server": server}
    for name, place, path in copied():
        add(folders[name], place, path.read_bytes())
    (sidekick / "usr/bin").mkdir(parents=True)
    for name in sorted(PROGRAMS):
        (sidekick / "usr/bin" / name).symlink_to(f"/{PREFIX}/bin/{name}")
    (sidekick / "etc/outrider/instances").mkdir(parents=True)
    chroot = ("chroot", tree, "/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "LANG=C.UTF-8", f"/{PREFIX}/bin/outrider")
    run(*chroot, "man", "--dir", "/build/man")
    for path in (tree / "build/man").iterdir():
        add(sidekick, f"usr/share/man/man1/{path.name}.gz", path.read_bytes(), packed=True)
    for shell, place in (
        ("bash", "usr/share/bash-completion/completions/outrider"),
        ("zsh", "usr/share/zsh/vendor-completions/_outrider"),
        ("fish", "usr/share/fish/vendor_completions.d/outrider.fish"),
    ):
        add(sidekick, place, run(*chroot, "completion", shell))
    add(sidekick.parent, "changelog.yaml", (SOURCE / "changelog.rpm.in").read_text().replace("@VERSION@", version))
    for name, folder in folders.items():
        add(folder, f"usr/share/doc/{name}/changelog.gz", (ROOT / "CHANGELOG.md").read_bytes(), packed=True)
        entry = (SOURCE / "changelog.in").read_text().replace("@NAME@", name)
        entry = entry.replace("@VERSION@", version).replace("@CODENAME@", codename)
        add(folder, f"usr/share/doc/{name}/changelog.Debian.gz", entry, packed=True)
        overrides = (SOURCE / "lintian-overrides").read_text().replace("@NAME@", name)
        kept = [line for line in overrides.splitlines() if line.startswith(("#", f"{name}:"))]
        add(folder, f"usr/share/lintian/overrides/{name}", "\n".join(kept) + "\n")


def contents(folder: Path) -> list[dict[str, object]]:
    """What nfpm packs: each file and link below ``folder``."""
    found: list[dict[str, object]] = []
    for name in sorted(files_below(folder)):
        path = folder / name
        if path.is_symlink():
            found.append({"src": os.readlink(path), "dst": f"/{name}", "type": "symlink"})
        else:
            mode = 0o755 if path.parent.name == "bin" else 0o644
            found.append({"src": str(path), "dst": f"/{name}", "file_info": {"mode": mode, "owner": "root"}})
    found += [
        {"dst": f"/{path.relative_to(folder)}", "type": "dir", "file_info": {"mode": 0o755}}
        for path in sorted(folder.glob("etc/**/"))
        if path.is_dir() and path != folder / "etc"
    ]
    return found


def pack(name: str, folder: Path, release: Release, version: str, output: Path, packers: Iterable[str]) -> list[Path]:
    """Make the packages of one folder.

    Returns:
        Their files.
    """
    made = []
    for packer in packers:
        described = describe(name, release, version, packer)
        if packer == "deb":
            described["contents"] = contents(folder)
        else:
            described |= {
                "contents": for_rpm(name, contents(folder)),
                "changelog": str(folder.parent / "changelog.yaml"),
            }
        path = folder.parent / f"{name}.{packer}.json"
        path.write_text(json.dumps(described, indent=1))
        said = run(TOOLS / "nfpm", "package", "--config", path, "--packager", packer, "--target", output)
        made.append(Path(said.rpartition("created package: ")[2].strip()))
    return made


def describe(name: str, release: Release, version: str, packer: str) -> dict[str, object]:
    """``packages/NAME.nfpm.json``, filled in for a release; not yet what is packed."""
    facts = {
        "VERSION": version,
        "RELEASE": f"1~deb{release.number}" if packer == "deb" else f"1.py{release.python.replace('.', '')}",
        "PYTHON": release.python,
        "ARCH": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "SCRIPTS": str(SOURCE / "scripts"),
    }
    text = (SOURCE / f"{name}.nfpm.json").read_text()
    for word, value in facts.items():
        text = text.replace(f"@{word}@", value)
    described: dict[str, object] = json.loads(text)
    return described


def for_rpm(name: str, packed: Iterable[dict[str, object]]) -> list[dict[str, object]]:
    """The contents as an .rpm has them: documentation is marked, and what only Debian reads is left out."""
    debian = ("/usr/share/lintian/", "/usr/share/doc/")
    kept = [one for one in packed if not str(one["dst"]).startswith(debian)]
    documents: list[dict[str, object]] = [
        {"src": str(ROOT / "LICENSE"), "dst": f"/usr/share/licenses/{name}/LICENSE", "type": "license"},
        {"src": str(ROOT / "README.md"), "dst": f"/usr/share/doc/{name}/README.md", "type": "doc"},
    ]
    return [{**one, "type": "doc"} if "/man/" in str(one["dst"]) else one for one in kept] + documents


def build(codename: str, output: Path, packers: Iterable[str]) -> list[Path]:
    """All packages for one release."""
    release = RELEASES[codename]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("version", "")
    version = version or re.findall(r'__version__ = "(.*)"', (ROOT / "src/outrider/__init__.py").read_text())[0]
    work = output / f".work-{codename}"
    shutil.rmtree(work, ignore_errors=True)
    try:
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", work / "wheel", cwd=ROOT)
        sidekick, server = install(release, codename, work)
        folders = {"outrider": work / "outrider", "outrider-server": work / "outrider-server"}
        for name, files in (("outrider", sidekick), ("outrider-server", server)):
            stage(work / "tree", files, folders[name])
        dress(work / "tree", folders["outrider"], folders["outrider-server"], version, codename)
        made = []
        for name, folder in folders.items():
            made += pack(name, folder, release, version, output, packers)
        return made
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main() -> int:
    """Build what is asked for, and name what was made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("releases", nargs="*", metavar="CODENAME", help="Default: all.")
    parser.add_argument("--output", type=Path, default=ROOT / "build/packages")
    parser.add_argument("--only", choices=["deb", "rpm"], action="append")
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("packages: needs root, to build in a tree of each release", file=sys.stderr)
        return 1
    output: Path = given.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    run(ROOT / "tools/package_tools.sh")
    for codename in given.releases or RELEASES:
        for path in build(codename, output, given.only or ("deb", "rpm")):
            print(f"packages: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
