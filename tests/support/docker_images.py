"""Images for tests, built from static busybox and nothing else, and a registry to push them to (Debian's)."""

import base64
import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests

from outrider.core.images import describe_image, parse_image
from outrider.demo.programs import free_ports
from tests.support.containers import docker_client
from tests.support.requirements import skip_or_fail
from tests.support.waiting import eventually

T = TypeVar("T")
RUN = """#!/bin/sh
echo "started $VERSION"
if [ -n "$FAIL" ]; then echo "cannot start: $FAIL"; exit 3; fi
trap 'kill $child; exit 0' TERM
busybox httpd -f -p "$HOST:$PORT" -h /www &
child=$!
wait $child
"""
ENV = """#!/bin/sh
echo "Content-Type: text/plain"
echo
env
"""
USER, PASSWORD = "deploy", "open-sesame"
_BCRYPT = "$2b$04$IpoXJMKmbQBnrNAVuhmYI.sUV7vtrDDt1AvX8sdGXL9pCGC5mkZwm"
"""Of PASSWORD: the registry takes nothing else, and newer Pythons can't make it."""


def busybox() -> Path:
    """A static busybox; without one the test is skipped."""
    found = shutil.which("busybox")
    if found is None or "statically" not in _file_kind(Path(found)):
        skip_or_fail("no static busybox; apt-get install busybox-static")
    return Path(found)


def _file_kind(path: Path) -> str:
    said = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False)
    return "statically linked" if "not a dynamic" in said.stdout + said.stderr else said.stdout


def context(version: str, files: Mapping[str, str] | None = None, lines: str = "") -> bytes:
    """A tar with a Dockerfile: an app that answers at PORT, says its environment and obeys SIGTERM.

    Args:
        version: Makes the image another one.
        files: Path in the image -> content of further files, or other ones; all are executable.
        lines: Of the Dockerfile, after the others.
    """
    content = {"run": RUN, "www/cgi-bin/env": ENV, "www/health": "ok\n", "www/index.html": f"{version}\n"}
    content |= files or {}
    dockerfile = f'FROM scratch\nCOPY root /\nENV VERSION={version} PATH=/bin\nENTRYPOINT ["/run"]\n{lines}'
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        _add(tar, "Dockerfile", dockerfile.encode())
        _add(tar, "root/bin/busybox", busybox().read_bytes())
        for name in ("sh", "env", "sleep", "kill", "cat"):
            link = tarfile.TarInfo(f"root/bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name, text in content.items():
            _add(tar, f"root/{name}", text.encode())
    return packed.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o755
    tar.addfile(member, io.BytesIO(content))


def base() -> str:
    """A local image that stands for Docker Hub's ``busybox``: a shell, and a web server."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        _add(tar, "Dockerfile", b'FROM scratch\nCOPY root /\nENV PATH=/bin\nCMD ["sh"]\n')
        _add(tar, "root/bin/busybox", busybox().read_bytes())
        for name in ("sh", "mkdir", "httpd"):
            link = tarfile.TarInfo(f"root/bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return _built("outrider-test/busybox", packed.getvalue())


def registry_image() -> str:
    """A local image that stands for Docker Hub's ``registry:2``: Debian's ``docker-registry``, at port 5000."""
    program = shutil.which("docker-registry")
    if program is None:
        skip_or_fail("no docker-registry; apt-get install docker-registry")
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    needed = [Path(word) for word in said.split() if word.startswith("/")]
    config = "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: /data\nhttp:\n  addr: 0.0.0.0:5000\n"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        recipe = 'FROM scratch\nCOPY root /\nENTRYPOINT ["/registry", "serve", "/config.yml"]\n'
        _add(tar, "Dockerfile", recipe.encode())
        _add(tar, "root/config.yml", config.encode())
        for path in (Path(program), *needed):
            name = "registry" if path == Path(program) else str(path).lstrip("/")
            _add(tar, f"root/{name}", path.read_bytes())
    return _built("outrider-test/registry", packed.getvalue())


def _built(repository: str, packed: bytes) -> str:
    """Name of the local image of a packed context; built when it isn't there."""
    name = f"{repository}:{hashlib.sha256(packed).hexdigest()[:16]}"
    with contextlib.closing(docker_client()) as client:
        if not client.images.list(name=name):
            client.images.build(fileobj=io.BytesIO(packed), custom_context=True, tag=name, rm=True)
    return name


def build(version: str, files: Mapping[str, str] | None = None, lines: str = "") -> str:
    """Name of a local image as ``context`` describes it; built when it isn't there."""
    return _built("outrider-test/app", context(version, files, lines))


def save(image: str, path: Path) -> Path:
    """Write the image to a tar, as ``docker save``."""
    with contextlib.closing(docker_client()) as client, path.open("wb") as tar:
        for chunk in client.images.get(image).save():
            tar.write(chunk)
    return path


def remove(image: str) -> None:
    """Remove a local image by whatever name, if it is there."""
    import docker.errors

    with contextlib.closing(docker_client()) as client, contextlib.suppress(docker.errors.APIError):
        client.images.remove(image, force=True)


def descriptor(folder: Path, image: str, digest: str, **facts: Any) -> tuple[Path, str]:
    """A payload that describes ``image``, and its SHA-256."""
    content = describe_image(parse_image(image), digest, **facts)
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / f"{sha256}.payload"
    path.write_bytes(content)
    return path, sha256


def containers_of(state_dir: Path) -> list[Any]:
    """All containers of the instance whose state is in ``state_dir``, ended ones too."""
    client = docker_client()
    found: list[Any] = client.containers.list(
        all=True, ignore_removed=True, filters={"label": f"outrider.state-dir={state_dir.resolve()}"}
    )
    return found


def clean(state_dir: Path) -> None:
    """Remove all containers of an instance, and its images' tags."""
    import docker.errors

    owners: set[tuple[str, ...]] = {("hello", instance, str(state_dir.resolve())) for instance in ("web", "web-1")}
    for one in containers_of(state_dir):
        owners.add(tuple(one.labels[f"outrider.{name}"] for name in ("app", "instance", "state-dir")))
        with contextlib.suppress(docker.errors.APIError):
            one.remove(force=True, v=True)
    repositories = {f"outrider/{hashlib.sha256(chr(0).join(owner).encode()).hexdigest()[:16]}" for owner in owners}
    with contextlib.closing(docker_client()) as client:
        for repository in repositories:
            for image in client.images.list(name=repository):
                ours = [tag for tag in image.tags if tag.startswith(f"{repository}:")]
                # what was pulled by digest has that name besides, and no other tag
                for name in (*ours, *((image.id,) if image.tags == ours else ())):
                    with contextlib.suppress(docker.errors.APIError):
                        client.images.remove(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A running registry.

    Attributes:
        host: ``127.0.0.1:PORT``, as the first part of an image's name.
    """

    host: str
    asks: bool = False

    def push(self, local: str, name: str) -> str:
        """Push a local image as ``HOST/name``, and return the digest that the registry gives it."""
        repository, _, tag = name.rpartition(":")
        with contextlib.closing(docker_client()) as client:
            client.images.get(local).tag(f"{self.host}/{repository}", tag)
            auth = {"username": USER, "password": PASSWORD}
            lines = list(
                client.images.push(f"{self.host}/{repository}", tag, stream=True, decode=True, auth_config=auth)
            )
            client.images.remove(f"{self.host}/{repository}:{tag}")
        assert not [line for line in lines if "error" in line], lines
        return next(str(line["aux"]["Digest"]) for line in lines if "aux" in line)

    def config(self) -> bytes:
        """Credentials for it, in the form of Docker's config.json."""
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return json.dumps({"auths": {self.host: {"auth": auth}}}).encode()


@contextmanager
def registry(*, asks: bool = False) -> Iterator[Registry]:
    """Debian's ``docker-registry`` on a free port; with ``asks`` it wants credentials (HTTP Basic)."""
    program = shutil.which("docker-registry")
    if program is None:
        skip_or_fail("no docker-registry; apt-get install docker-registry")
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="outrider-registry-") as folder:
        config = Path(folder) / "config.yml"
        config.write_text(
            f"version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {folder}/data\n"
            f"  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n"
            + (f"auth:\n  htpasswd:\n    realm: test\n    path: {folder}/htpasswd\n" if asks else "")
        )
        (Path(folder) / "htpasswd").write_text(f"{USER}:{_BCRYPT}\n")
        process = subprocess.Popen(
            [program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            eventually(lambda: requests.get(f"http://127.0.0.1:{port}/v2/", timeout=5).status_code in (200, 401))
            yield Registry(host=f"127.0.0.1:{port}", asks=asks)
        finally:
            process.kill()
            process.wait()


def answered(ask: Callable[[], T]) -> T | None:
    """What ``ask`` returns; None while nothing answers at its address."""
    try:
        return ask()
    except OSError:
        return None
