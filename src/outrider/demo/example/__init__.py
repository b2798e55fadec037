"""The app that the demo rolls out, as the packages that a release consists of."""

import io
import tarfile
from importlib import resources
from pathlib import Path


def build_package(
    folder: Path, version: str, *, healthy_answers: int | None = None, failing_share: float = 0.0
) -> Path:
    """Write ``hello-VERSION.tar`` to ``folder``: the same bytes every time.

    Args:
        folder: Made if it doesn't exist.
        version: What the app says it is.
        healthy_answers: How often ``/health`` answers 200 before it answers 503 forever; None: it never does.
        failing_share: Of the greetings, that are answered with 500 although ``/health`` is 200.

    Returns:
        The tar's path: ``server.py`` and ``VERSION`` at its top, run by ``python server.py`` with PORT set.
    """
    files = {
        "server.py": (resources.files(__name__) / "server.py").read_bytes(),
        "VERSION": f"{version}\n".encode(),
    }
    if healthy_answers is not None:
        files["HEALTHY_ANSWERS"] = f"{healthy_answers}\n".encode()
    if failing_share:
        files["FAILING_SHARE"] = f"{failing_share}\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"hello-{version}.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(content))
    return path
