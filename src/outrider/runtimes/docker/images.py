"""The images of one instance: pulled by digest or loaded from a tar, compared, kept under a tag of ours, and pruned.

A tag ``outrider/INSTANCE:PAYLOAD`` holds each image: without one, `docker image prune` would take the version before,
which no container uses. It is no proof: each use compares the image's id or digest again.
"""

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from loguru import logger

from outrider.config.sections import DownloadSettings
from outrider.core.errors import ConfigError, DriverError, Refused
from outrider.core.images import (
    MAX_DESCRIPTOR_BYTES,
    ImageDescriptor,
    credentials_for,
    is_descriptor,
    read_descriptor,
    registry_of,
)
from outrider.failpoints import failpoint
from outrider.files import free_bytes, wanted_bytes
from outrider.payloads.image_tar import read_image_tar
from outrider.payloads.transfer import Progress, TransferFailed, WriteFailed
from outrider.runtimes import RunnableRelease
from outrider.runtimes.docker.engine import Engine, EngineError
from outrider.runtimes.docker.pull import Pull, failure

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOAD_S = 600.0
"""Longest silence of Docker while it unpacks the layers of a tar."""
_ROOM_TIMES = 2
"""Layers arrive compressed and lie unpacked beside that for a while: less room than this is surely too little."""


class Images:
    """What this instance has prepared."""

    def __init__(
        self,
        engine: Engine,
        *,
        owner: str,
        download: DownloadSettings,
        auth_file: Path | None = None,
        reserve_bytes: int = 0,
    ) -> None:
        """``owner``: tells this instance's tags from its neighbours'; any text."""
        self._engine, self._download, self._auth_file = engine, download, auth_file
        self._reserve_bytes = reserve_bytes
        self.repository = f"outrider/{hashlib.sha256(owner.encode()).hexdigest()[:16]}"
        self._lock = threading.Lock()
        self._pull: Pull | None = None

    def fetch(self, release: RunnableRelease, on_progress: Progress | None) -> None:
        """Pull what the payload describes, unless it is here.

        Raises:
            PayloadError: as ``Pull.run``, or there is no room for it.
        """
        try:
            descriptor = self._descriptor(release)
        except Refused:
            return  # verifying says so
        if descriptor is None:
            return
        _require_digest(release.version, descriptor)
        if self._find(descriptor) is not None:
            return
        with failpoint("payload.fetch"):
            self._pull_image(release.version, descriptor, on_progress)

    def cancel(self) -> None:
        """End the pull that is under way, if there is one."""
        with self._lock:
            pull = self._pull
        if pull is not None:
            pull.cancel()

    def ensure(self, release: RunnableRelease) -> str:
        """The id of the release's image, which is on this machine, compared and tagged: pulled or loaded if need be.

        Raises:
            Refused: the payload is bad.
            DriverError: this machine can't have it now.
        """
        descriptor = self._descriptor(release)
        image = self._loaded(release) if descriptor is None else self._pulled(release, descriptor)
        found = str(image["Id"])
        if f"{self.repository}:{release.sha256}" not in (image.get("RepoTags") or ()):
            with self._engine.client() as docker:
                docker.tag(found, self.repository, release.sha256)
        return found

    def prune(self, needed: Collection[str]) -> None:
        """Remove the images of releases other than ``needed``, unless a container or another tag uses them."""
        with contextlib.suppress(DriverError):
            with self._engine.client() as docker:
                listed = docker.images(filters={"reference": f"{self.repository}:*"})
            for tag, image in _tags(listed, self.repository):
                if tag.rpartition(":")[2] not in needed:
                    self._remove(tag, image)

    def _remove(self, tag: str, image: str) -> None:
        """The tag, and the image when nobody else has a name for it. What is in use stays."""
        with contextlib.suppress(EngineError), failpoint("workload.prune"), self._engine.client() as docker:
            names = docker.inspect_image(image).get("RepoTags") or []
            docker.remove_image(tag)
            if set(names) <= {tag}:
                # pulled by digest it still has that name
                with contextlib.suppress(EngineError), self._engine.client() as again:
                    again.remove_image(image)

    def _pulled(self, release: RunnableRelease, descriptor: ImageDescriptor) -> Mapping[str, Any]:
        _require_digest(release.version, descriptor)
        image = self._find(descriptor)
        if image is None:
            self._pull_image(release.version, descriptor, None)
            image = self._find(descriptor)
        if image is None:
            raise DriverError(f"{release.version}: Docker has pulled {descriptor.pull_name} and doesn't have it")
        compare(release.version, descriptor, image)
        return image

    def _find(self, descriptor: ImageDescriptor) -> Mapping[str, Any] | None:
        """The local image, by its digest or by an id that only it has."""
        return self._inspect(descriptor.pull_name) or self._inspect_any({one.config for one in descriptor.platforms})

    def _loaded(self, release: RunnableRelease) -> Mapping[str, Any]:
        """The image in the tar that is the payload."""
        try:
            inside = read_image_tar(release.payload)
        except OSError as error:
            raise DriverError(f"{release.payload}: can't be read: {error.strerror or error}") from error
        image = self._inspect_any(inside.ids)
        if image is None:
            before = {tag: self._inspect(tag) for tag in inside.tags}
            self._load(release)
            image = self._inspect_any(inside.ids)
            if image is not None:
                self._take_back(release, str(image["Id"]), before)
        if image is None or image["Id"] not in inside.ids:
            raise DriverError(
                f"{release.version}: Docker has loaded {release.payload.name}, and no image has the id {inside.config}"
            )
        return image

    def _take_back(self, release: RunnableRelease, image: str, before: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Give the tags that came with a tar back to what they named ``before``: the image has one of ours."""
        with self._engine.client() as docker:
            docker.tag(image, self.repository, release.sha256)
            for name, former in before.items():
                repository, _, tag = name.rpartition(":")
                if former is not None:
                    docker.tag(former["Id"], repository, tag)
                else:
                    docker.remove_image(name)

    def _inspect_any(self, names: Collection[str]) -> Mapping[str, Any] | None:
        return next((found for one in sorted(names) if (found := self._inspect(one)) is not None), None)

    def _load(self, release: RunnableRelease) -> None:
        self._check_room(release.version, release.payload.stat().st_size)
        try:
            with release.payload.open("rb") as tar, self._engine.client(_LOAD_S, may_be_silent=True) as docker:
                for line in docker.load_image(tar, quiet=True):
                    if line.get("error"):
                        raise EngineError(str(line["error"]))
        except EngineError as said:
            raise failure(release.version, release.payload.name, str(said)) from said

    def _pull_image(self, version: str, descriptor: ImageDescriptor, on_progress: Progress | None) -> None:
        size_bytes = min((one.size_bytes for one in descriptor.platforms), default=0)
        self._check_room(version, size_bytes)
        pull = Pull(
            self._engine,
            version,
            descriptor.pull_name,
            credentials=self._credentials(descriptor),
            size_bytes=size_bytes,
            deadline_s=self._download.deadline_s,
            silence_s=self._download.timeout_s,
            on_progress=on_progress,
        )
        with self._lock:
            self._pull = pull
        try:
            pull.run()
        finally:
            with self._lock:
                self._pull = None

    def disk(self) -> Path | None:
        """The folder of Docker's images and containers; None where it can't be seen from here."""
        try:
            return self._root()
        except DriverError:
            return None

    def _root(self) -> Path | None:
        with self._engine.client() as docker:
            root = Path(str(docker.info().get("DockerRootDir") or "/"))
        return root if os.path.isdir(root) and self._engine.is_local else None

    def _check_room(self, version: str, size_bytes: int) -> None:
        """Refuse what surely doesn't fit, where Docker's disk can be seen from here."""
        root = self._root()
        if root is None:
            return
        free, reserve = free_bytes(root), wanted_bytes(root, self._reserve_bytes)
        if free < _ROOM_TIMES * size_bytes + reserve:
            raise WriteFailed(
                f"{version}: no room on Docker's disk ({root}): at least {_ROOM_TIMES * size_bytes} bytes are needed,"
                f" {free} are free, {reserve} of them reserved; make room there",
                evidence="disk-full",
            )

    def _credentials(self, descriptor: ImageDescriptor) -> Mapping[str, str] | None:
        """What the file of credentials has for the image's registry.

        Raises:
            TransferFailed: it can't be read.
        """
        if self._auth_file is None:
            return None
        try:
            return credentials_for(registry_of(descriptor.reference.name)[0], self._auth_file.read_bytes())
        except (OSError, ConfigError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise TransferFailed(f"docker.auth_file: {self._auth_file}: {reason}", evidence="wrong-setting") from error

    def _descriptor(self, release: RunnableRelease) -> ImageDescriptor | None:
        """What the payload describes; None when it is a tar.

        Raises:
            Refused: it is neither, or not the payload that was announced.
        """
        try:
            with release.payload.open("rb") as file:
                head = file.read(MAX_DESCRIPTOR_BYTES)
        except OSError as error:
            raise DriverError(f"{release.payload}: can't be read: {error.strerror or error}") from error
        if not is_descriptor(head):
            return None
        if hashlib.sha256(head).hexdigest() != release.sha256:
            raise Refused(f"{release.payload.name}: its SHA-256 isn't {release.sha256}", evidence="unknown")
        try:
            return read_descriptor(head)
        except ConfigError as problem:
            raise Refused(f"{release.payload.name}: {problem}") from problem

    def _inspect(self, name: str) -> Mapping[str, Any] | None:
        try:
            with self._engine.client() as docker:
                found: Mapping[str, Any] = docker.inspect_image(name)
                return found
        except EngineError as said:
            if said.status == 404:
                return None
            raise


def compare(version: str, descriptor: ImageDescriptor, image: Mapping[str, Any]) -> None:
    """Whether a local image is the one that was announced.

    Its id must be one that the service has read at the registry. Where the service has read none, Docker's own word
    counts, that it was pulled by that digest.

    Raises:
        DriverError: it is another one.
    """
    digests = {name.rpartition("@")[2] for name in image.get("RepoDigests") or ()}
    known = image["Id"] in descriptor.ids if descriptor.platforms else descriptor.digest in {*digests, image["Id"]}
    if not known:
        logger.bind(image=image["Id"], digests=sorted(digests)).debug("image compared")
        raise DriverError(
            f"{version}: the local image {image['Id']} isn't {descriptor.pull_name}, nor a platform of it; remove it,"
            " or the mirror that has given it"
        )


def _require_digest(version: str, descriptor: ImageDescriptor) -> None:
    """Refuse a tag alone, which may name another image on the next machine."""
    if not descriptor.digest:
        raise TransferFailed(
            f"{version}: {descriptor.reference}: its payload names no digest, and a tag may move; `outrider package"
            " resolve` adds it",
            evidence="unknown",
        )


def _tags(listed: Collection[Mapping[str, Any]], repository: str) -> Iterator[tuple[str, str]]:
    """Our tags, each with its image's id."""
    for image in listed:
        for tag in image.get("RepoTags") or ():
            name, _, payload = tag.rpartition(":")
            if name == repository and _SHA256.fullmatch(payload):
                yield tag, str(image["Id"])
