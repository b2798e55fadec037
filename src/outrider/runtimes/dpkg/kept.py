"""The package of what is installed, when it came from elsewhere: without it nothing could be gone back to."""

import subprocess
from pathlib import Path
from shutil import which

from outrider.core.blame import seen_in
from outrider.core.errors import DriverError, Refused
from outrider.files import make_folder
from outrider.runtimes.dpkg.calls import Facts, check_payload, upstream_of

APT = Path("/var/cache/apt/archives")
_REPACK_S = 300.0


def keep_installed(name: str, facts: Facts, folder: Path) -> Path:
    """A package file of the installed version, in ``folder`` or among those that apt has kept; made when it is missing.

    Raises:
        DriverError: there is none, and it can't be made.
    """
    found = _kept(name, facts, folder) or _kept(name, facts, APT)
    if found is not None:
        return found
    advice = f"put its .deb into {folder}, or install dpkg-repack, which makes one"
    if which("dpkg-repack") is None:
        raise DriverError(
            f"there would be no way back: no package file of {name} {facts.version} is here; {advice}",
            evidence="wrong-setting",
        )
    work = folder / "repack"
    try:
        make_folder(folder)
        make_folder(work)
        done = subprocess.run(
            ["dpkg-repack", name], cwd=work, capture_output=True, text=True, timeout=_REPACK_S, check=False
        )
        if done.returncode == 0:
            for path in work.glob("*.deb"):
                path.rename(folder / path.name)
    except subprocess.TimeoutExpired as error:
        raise DriverError(f"dpkg-repack {name}: has not ended within {_REPACK_S:g} s") from error
    except OSError as error:
        raise DriverError(f"dpkg-repack {name}: {error.strerror or error}", evidence=seen_in(error.errno)) from error
    made = _kept(name, facts, folder)
    if made is None:
        said = " ".join(done.stderr.split())[-200:]
        raise DriverError(f"dpkg-repack {name}: exit {done.returncode}; it said: {said}; {advice}")
    return made


def _kept(name: str, facts: Facts, folder: Path) -> Path | None:
    for path in sorted(folder.glob(f"{name}_*.deb")):
        try:
            if check_payload(path, name=name, release=upstream_of(facts.version)) == facts.version:
                return path
        except (Refused, DriverError):
            continue
    return None
