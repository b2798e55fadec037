"""The machine that scenarios run on: Debian 12 with systemd, on which the built packages were installed.

The packages are built once for each state of the sources, and installed once, with what they need from Debian's mirror.
Each machine is a container of the image that this leaves. A second package, with a later version number, is on it for
the scenario that upgrades.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.packaging.clean_machine import FOLDER, ROOT, CleanMachine, image_of
from tests.support.containers import docker_client
from tests.support.requirements import skip_or_fail

CODENAME = "bookworm"
REPOSITORY = "outrider-test/installed"
PACKED = ("src", "statecharts", "units", "packages", "docs/use/examples", "pyproject.toml", "tools/packages.py")
"""What a package is made of."""
NEXT_VERSION = "99.0.0"
"""Of the package that is upgraded to."""
NEXT_PACKAGE = f"{FOLDER}/next.deb"

PACKAGES = "/opt/outrider/lib/python3.11/site-packages"

INSTALL = """
apt-get update
apt-get install --yes --no-install-recommends ./outrider_*.deb
cd /usr/share/outrider
install -D -m 644 app-elsewhere.conf /etc/systemd/system/outrider-sidekick@.service.d/app-elsewhere.conf
install -D -m 644 outrider.rules /etc/polkit-1/rules.d/50-outrider.rules
usermod --append --groups systemd-journal outrider
groupadd --system haproxy
mkdir -p /var/log/journal
: >/etc/machine-id
"""
"""What docs/use/install.md and docs/use/runtimes.md say. journald keeps what is said while a machine shuts down, and
each machine gets an id of its own."""

REPACK = f"""
dpkg-deb --raw-extract ./outrider_*.deb next
sed -i 's/^Version: .*/Version: {NEXT_VERSION}-1~deb12/' next/DEBIAN/control
echo '__version__ = "{NEXT_VERSION}"' >>next{PACKAGES}/outrider/__init__.py
rm -rf next/DEBIAN/md5sums
dpkg-deb --root-owner-group -Zgzip -z1 --build next {NEXT_PACKAGE}
rm -r next outrider_*.deb
apt-get clean
"""
INSTALL_SERVER = "apt-get install --yes --no-install-recommends ./outrider-server_*.deb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Names of images: of a machine with sidekicks, and of the one with the update service."""

    machine: str
    service: str


def installed_images() -> Images:
    """Both images; made when the sources have changed since."""
    packages = _packages()
    client = docker_client()
    try:
        base = image_of(CODENAME, client)
        steps = f"{base} {INSTALL} {REPACK} {INSTALL_SERVER}"
        mark = hashlib.sha256(steps.encode() + b"".join(path.read_bytes() for path in packages)).hexdigest()[:16]
        images = Images(machine=f"{REPOSITORY}:{mark}", service=f"{REPOSITORY}:{mark}-service")
        if client.images.list(name=images.service):
            return images
    finally:
        client.close()
    with CleanMachine(CODENAME, packages) as machine:
        machine.type(f"set -e; {INSTALL}")
        machine.type(f"set -e; {REPACK}")
        machine.keep_as(REPOSITORY, mark)
        machine.type(INSTALL_SERVER)
        machine.keep_as(REPOSITORY, f"{mark}-service")
    return images


def _packages() -> list[Path]:
    """The .deb files: those that ``OUTRIDER_TEST_PACKAGES`` names the folder of, or those of these sources."""
    if ready := os.environ.get("OUTRIDER_TEST_PACKAGES"):
        return sorted(Path(ready).absolute().glob("*~deb12_*.deb"))
    folder = ROOT / f".cache/scenarios/packages-{_sources()}"
    if found := sorted(folder.glob("*.deb")):
        return found
    if os.geteuid() != 0:
        skip_or_fail("building packages needs root")
    command = [sys.executable, "tools/packages.py", CODENAME, "--output", str(folder), "--only", "deb"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the packages can't be built: {done.stderr.strip()[-2000:]}")
    return sorted(folder.glob("*.deb"))


def _sources() -> str:
    digest = hashlib.sha256()
    for path in _files():
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _files() -> Iterator[Path]:
    for name in PACKED:
        path = ROOT / name
        found = [path] if path.is_file() else sorted(path.rglob("*"))
        yield from (one for one in found if one.is_file() and "__pycache__" not in one.parts)
