"""A clean Debian with a real systemd, in a container with a network of its own, on which a test types."""

import base64
import contextlib
import hashlib
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import docker.errors

from tests.support.containers import docker_client
from tests.support.requirements import skip_or_fail
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools/systemd_image.sh"
FOLDER = "/root/packages"


def image_of(codename: str, client: Any) -> str:
    """The image of a release's tree; where it can't be made the test is skipped, or fails in CI."""
    done = subprocess.run([str(SCRIPT), codename], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        skip_or_fail(done.stderr.strip() or "tools/systemd_image.sh failed")
    said = subprocess.run([str(SCRIPT), "path", codename], capture_output=True, text=True, check=True)
    tree = Path(said.stdout.strip())
    facts = tree.stat()
    mark = hashlib.sha256(f"{codename} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:16]
    tag = f"outrider-test/clean:{mark}"
    if not client.images.list(name=tag):
        client.api.import_image_from_file(str(tree), repository="outrider-test/clean", tag=mark)
    return tag


class CleanMachine:
    """The container, as long as the ``with`` lasts."""

    def __init__(self, codename: str, packages: Sequence[Path]) -> None:
        """Start it; the packages are in ``FOLDER`` on it, where commands are typed."""
        self._client = docker_client()
        folders = {path.parent for path in packages}
        self._container: Any = self._client.containers.run(
            image_of(codename, self._client),
            ["/sbin/init"],
            detach=True,
            name=f"outrider-clean-{uuid.uuid4().hex[:12]}",
            cap_add=["SYS_ADMIN", "SYS_PTRACE"],  # without the second PrivateUsers= fails
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            cgroupns="host",
            tmpfs={"/run": "", "/run/lock": ""},
            volumes={
                "/sys/fs/cgroup": {"bind": "/sys/fs/cgroup", "mode": "rw"},
                **{str(folder): {"bind": "/mnt/packages", "mode": "ro"} for folder in folders},
            },
            environment={"container": "docker"},
        )
        try:
            eventually(self._is_up, within_s=60.0, every_s=0.2)
            self.run("mkdir", FOLDER)
            self.run("cp", *(f"/mnt/packages/{path.name}" for path in packages), FOLDER)
        except BaseException:
            self.remove()
            raise

    def __enter__(self) -> "CleanMachine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()

    def run(self, *words: str, check: bool = True) -> str:
        """What a command prints on it.

        Raises:
            AssertionError: it left with something else than 0, and that is checked.
        """
        code, output = self._container.exec_run(list(words))
        text: str = output.decode(errors="replace")
        assert code == 0 or not check, f"{' '.join(words)}: {code}: {text[-3000:]}"
        return text

    def type(self, line: str, check: bool = True) -> str:
        """What a line prints that a person types as root, in the folder with the packages."""
        return self.run("/bin/bash", "-c", f"cd {FOLDER}; export DEBIAN_FRONTEND=noninteractive; {line}", check=check)

    def write(self, path: str, text: str) -> None:
        """A file, as an editor saves it."""
        raw = base64.b64encode(text.encode()).decode()
        self.run("/bin/sh", "-c", f"echo {raw} | base64 -d > '{path}'")

    def keep_as(self, repository: str, tag: str) -> None:
        """Make an image of what is on it now."""
        self._container.commit(repository=repository, tag=tag)

    def cut_power(self) -> None:
        """End all that runs on it at once, and start it again."""
        self._container.kill()
        self._container.start()
        eventually(self._is_up, within_s=60.0, every_s=0.2)

    def remove(self) -> None:
        """End it, with all that it stored."""
        with contextlib.suppress(docker.errors.NotFound):
            self._container.remove(force=True, v=True)
        self._client.close()

    def _is_up(self) -> bool:
        self._container.reload()
        if self._container.status == "exited":
            raise RuntimeError(f"systemd ended in its container: {self._container.logs(tail=20)!r}")
        _, output = self._container.exec_run(["systemctl", "is-system-running"])
        return output.strip() in (b"running", b"degraded")
