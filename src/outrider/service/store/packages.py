"""Packages: versions of an app with their payloads. A package never changes: its digest proves its content."""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from outrider.core import versions
from outrider.core.architectures import ANY, checked_architecture
from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.core.images import TAR_NAME, ImagePlatform
from outrider.core.tasks import TaskSpec, check_tasks
from outrider.model.damage import readable
from outrider.model.documents import (
    App,
    Channel,
    Group,
    Instance,
    Package,
    PackageFile,
    Presence,
    Served,
    Target,
    Unresolved,
)
from outrider.service.store.changes import Auditing, Change, Unaudited, apply
from outrider.service.store.context import (
    MAX_NOTES,
    StoreContext,
    absent_app,
    app_id_of,
    checked_address,
    checked_text,
    direct,
    some,
)
from outrider.service.store.served import before as served_before
from outrider.service.store.served import releases_in
from outrider.service.store.targets import aim_all

MAX_SIZE_BYTES = 2**53
"""A larger size is not exact in JSON."""
MAX_FILES = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,199}")
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """The facts of a payload: its location, and its digests.

    Attributes:
        url: Full address; None: the service stores it under ``name``.
        sha1: Base64 or 40 hex digits; empty when unknown.
        sha256: 64 hex digits, or base64.
        image: Reference of the container image that the payload describes; empty for a file.
        digest, platforms: Of the image, as the registry has said; empty while it hasn't.
        unresolved: Why the image has no digest yet; empty when it has one.
    """

    size_bytes: int
    sha256: str
    sha1: str = ""
    url: str | None = None
    name: str = ""
    image: str = ""
    digest: str = ""
    platforms: tuple[ImagePlatform, ...] = ()
    unresolved: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """The packages of all apps."""

    context: StoreContext
    auditing: Auditing

    def list(self, app: str) -> tuple[Package, ...]:
        """All packages of an app, newest version first.

        Raises:
            NotFound: there is no such app.
        """
        app_id = self.context.require_app(app)
        found = self.context.children(Package, self.context.keys.packages(app_id))
        return tuple(
            sorted(found, key=lambda package: (versions.parse(package.version), package.version), reverse=True)
        )

    def get(self, app: str, version: str) -> Package:
        """One package.

        Raises:
            NotFound: there is no such app or package.
        """
        app_id = self.context.require_app(app)
        found = self.context.get(Package, self.context.keys.package(app_id, version))
        if found is None:
            raise NotFound(absent_package(app_id, version))
        return found

    def create(
        self,
        app: str,
        version: str,
        payload: Payload,
        *,
        release_notes: str = "",
        arch: str = ANY,
        required: bool = True,
        tasks: Iterable[TaskSpec] = (),
        files: Iterable[PackageFile] = (),
    ) -> Package:
        """Add a package. The same transaction sets the target of each group whose channel points at this version.

        Raises:
            ConfigError: the version, the address, the size, a digest, the architecture, a task or a file is invalid.
            NotFound: there is no such app.
            Conflict: the version has a package already.
        """
        app_id, keys = app_id_of(app), self.context.keys
        versions.parse(version)
        new = Package(
            app=app_id,
            version=version,
            url=payload.url,
            name=_name_of(payload),
            size_bytes=_checked_size(payload.size_bytes),
            sha1=sha1_base64(payload.sha1),
            sha256=sha256_hex(payload.sha256),
            release_notes=checked_text("release notes", release_notes, MAX_NOTES),
            image=payload.image,
            digest=payload.digest,
            platforms=payload.platforms,
            arch=checked_architecture(arch),
            required=required,
            tasks=check_tasks(tasks, is_image=bool(payload.image) or payload.name == TAR_NAME),
            files=checked_files(payload, _name_of(payload), files),
            created=self.context.now(),
        )

        def attempt(change: Change) -> Package:
            change.require(App, keys.app(app_id), absent_app(app))
            key = keys.package(app_id, version)
            if change.read(Package, key) is not None:
                raise Conflict(
                    f"version {version} already has a package, and a package never changes; use a new version"
                )
            # A channel that moves to this version right now touches the app as well, so one of the two loses.
            change.touch(keys.app(app_id))
            change.put(key, new)
            if new.is_unresolved:
                self._note_unresolved(change, new, payload.unresolved)
            self._aim(change, new)
            return new

        return apply(self.context.cluster, attempt, self.auditing)

    def resolve(self, app: str, version: str, payload: Payload) -> Package:
        """Give the image of a package its digest. The same transaction sets the targets of its groups.

        Args:
            payload: The image's descriptor with digest and platforms.

        Raises:
            NotFound: there is no such app or package.
            Conflict: the package has another digest, or is no image.
        """
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Package:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            key = keys.package(app_id, version)
            old = change.require(Package, key, absent_package(app_id, version))
            if not old.image:
                raise Conflict(f"package {version} is a file, not a container image; there is nothing to resolve")
            if old.image_digest and old.image_digest != payload.digest:
                raise Conflict(
                    f"package {version} is {old.image_digest}, and a package never changes; {old.image} names"
                    f" {payload.digest} now: make a new version of that"
                )
            if old.image_digest:
                return old
            new = msgspec.structs.replace(
                old,
                size_bytes=payload.size_bytes,
                sha256=payload.sha256,
                sha1=payload.sha1,
                digest=payload.digest,
                platforms=payload.platforms,
            )
            change.put(key, new)
            if change.exists(keys.unresolved(app_id, version)):
                change.delete(keys.unresolved(app_id, version))
            self._aim(change, new)
            return new

        return apply(self.context.cluster, attempt, self.auditing)

    def note_unresolved(self, package: Package, why: str) -> None:
        """Note why the image of a package has no digest yet, if that is so and the reason is another one."""
        keys = self.context.keys

        def attempt(change: Change) -> None:
            found = change.read_or_none(Package, keys.package(package.app, package.version))
            before = change.read_or_none(Unresolved, keys.unresolved(package.app, package.version))
            if found is not None and found.is_unresolved and (before is None or before.why != why):
                self._note_unresolved(change, found, why)

        apply(self.context.cluster, attempt, Unaudited("resolving an image: the package is as it was"))

    def unresolved(self, app: str, version: str) -> Unresolved | None:
        """What is noted of an image that has no digest yet."""
        return self.context.get_or_none(Unresolved, self.context.keys.unresolved(app_id_of(app), version))

    def all_unresolved(self) -> tuple[Unresolved, ...]:
        """The images of all apps that have no digest yet."""
        return self.context.all_below(Unresolved, self.context.keys.all_unresolved())

    def _note_unresolved(self, change: Change, package: Package, why: str) -> None:
        change.put(
            self.context.keys.unresolved(package.app, package.version),
            Unresolved(app=package.app, version=package.version, image=package.image, why=why, at=self.context.now()),
        )

    def _aim(self, change: Change, package: Package) -> None:
        """Set the targets of the groups whose channel points at the package."""
        prefix = self.context.keys.channels(package.app)
        waiting = [
            change.guard(Channel, entry)
            for entry, channel in readable(Channel, direct(change.list(prefix).entries, prefix))
            if channel.version == package.version
        ]
        aim_all(change, self.context.keys, waiting, package, self.context.now())

    def delete(self, app: str, version: str) -> Package:
        """Remove a package that nothing needs. A stored payload file stays.

        A package is needed by a channel (as its version or as a floor), by a group's target, by each instance that runs
        it or is on its way to it, and by each instance that would go back to it.

        Raises:
            NotFound: there is no such app or package.
            Conflict: something needs it; the message names what, and what to do.
        """
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Package:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            old = change.require(Package, keys.package(app_id, version), absent_package(app_id, version))
            self._refuse_needed(app_id, version)
            change.delete(keys.package(app_id, version))
            change.delete(keys.unresolved(app_id, version))
            change.delete(keys.signatures(app_id, version))
            change.delete(keys.proof(app_id, version))  # another package of this version has to prove itself
            return old

        return apply(self.context.cluster, attempt, self.auditing)

    def needed(self, app: str, version: str) -> str:
        """Why the package of ``version`` can't be deleted now; empty when it can."""
        try:
            self._refuse_needed(app_id_of(app), version)
        except Conflict as reason:
            return str(reason)
        return ""

    def _refuse_needed(self, app_id: str, version: str) -> None:
        """Raise ``Conflict`` when a channel, a target or an instance needs the package of ``version``."""
        keys, context = self.context.keys, self.context
        channels = context.children(Channel, keys.channels(app_id))
        users = [channel.name for channel in channels if channel.version == version]
        if users:
            raise Conflict(f"package {version} is in use by channels {some(users)}; move them first")
        on_the_way = [c.name for c in channels if any(floor.version == version for floor in c.floors)]
        if on_the_way:
            raise Conflict(
                f"package {version} is in use: floor of channels {some(on_the_way)}; remove those floors first"
            )
        aimed, undone = [], []
        for group in context.children(Group, keys.groups(app_id)):
            target = context.get_or_none(Target, keys.target(app_id, group.id))
            served = releases_in(context.get_or_none(Served, keys.served(app_id, group.id)))
            if target is not None and target.version is not None:
                aimed += [group.id] if target.version == version else []
                back = None if target.release is None else served_before(served, target.release)
                undone += [group.id] if back is not None and back.version == version else []
        if aimed:
            raise Conflict(f"package {version} is the target of groups {some(aimed)}; move their channel first")
        if undone:
            raise Conflict(
                f"package {version} is what `rollout undo` would take groups {some(undone)} back to; it can be deleted"
                " after their next rollout has finished"
            )
        rows = context.children(Instance, keys.instances(app_id))
        alive = context.all_below(Presence, keys.presences(app_id))
        running = {row.id for row in rows if row.version == version} | {
            one.instance for one in alive if one.version == version
        }
        if running:
            raise Conflict(
                f"package {version} runs on {some(running)}; an instance that is gone for good is removed with"
                " `instance delete`"
            )
        under_way = {row.id for row in rows if row.granted_version == version} | {
            one.instance for one in alive if one.wanted == version
        }
        if under_way:
            raise Conflict(f"package {version} is being installed on {some(under_way)}; wait until they are done")
        kept = {row.id for row in rows if before(row) == version}
        if kept:
            raise Conflict(
                f"package {version} is what {some(kept)} would go back to; it can be deleted after their next update"
            )


RAN = "3:2"
"""The event by which a client says what it runs."""


def before(row: Instance) -> str | None:
    """The version that an instance ran before the present one, by its own history; None when it is not known."""
    ran = [one.version for one in row.history if one.event == RAN and one.version]
    return next((version for version in reversed(ran) if version != row.version), None)


def absent_package(app_id: str, version: str) -> str:
    """The message for a package that does not exist."""
    return f"app {app_id} has no package {version!r}; `package list` shows them, `package create` adds one"


def sha256_hex(text: str) -> str:
    """A SHA-256 as 64 lower-case hex digits, from hex or from base64 (updatectl sends base64).

    Raises:
        ConfigError: it is neither.
    """
    text = text.strip()
    if _HEX_SHA256.fullmatch(text.lower()):
        return text.lower()
    digest = _from_base64(text, 32)
    if digest is None:
        raise ConfigError(f"sha256 {text!r}: write 64 hex digits, as sha256sum prints them, or 44 characters of base64")
    return digest.hex()


def sha1_base64(text: str) -> str:
    """A SHA-1 in base64, from base64 or 40 hex digits; empty stays empty.

    Raises:
        ConfigError: it is neither.
    """
    text = text.strip()
    if not text:
        return ""
    if re.fullmatch(r"[0-9a-fA-F]{40}", text):
        return base64.b64encode(bytes.fromhex(text)).decode("ascii")
    if _from_base64(text, 20) is None:
        raise ConfigError(f"sha1 {text!r}: write 40 hex digits, as sha1sum prints them, or 28 characters of base64")
    return text


def checked_name(name: str) -> str:
    """Check a file name: it becomes a part of an address and of a path.

    Raises:
        ConfigError: it contains other characters.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"name {name!r}: use 1 to 200 letters, digits or . _ + @ - and begin with a letter or a digit"
        )
    return name


def checked_files(payload: Payload, name: str, files: Iterable[PackageFile]) -> tuple[PackageFile, ...]:
    """Check the files beside a payload.

    Raises:
        ConfigError: too many, two of one name, an invalid fact, or the payload is an image.
    """
    checked = tuple(
        PackageFile(
            name=checked_name(one.name),
            size_bytes=_checked_size(one.size_bytes),
            sha1=sha1_base64(one.sha1),
            sha256=sha256_hex(one.sha256),
        )
        for one in files
    )
    if checked and payload.image:
        raise ConfigError("files: an image has none; leave them out")
    if len(checked) > MAX_FILES:
        raise ConfigError(f"files: {len(checked)}; a package has at most {MAX_FILES} beside its payload")
    names = [name, *(one.name for one in checked)]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        raise ConfigError(f"files: {twice!r} twice; each file of a package needs a name of its own")
    return checked


def _name_of(payload: Payload) -> str:
    if payload.url is None:
        return checked_name(payload.name)
    parts = checked_address("url", payload.url, "write a full http:// or https:// address")
    if parts.query or parts.fragment:
        raise ConfigError(
            f"url {payload.url!r}: contains ? or #; Omaha clients join a folder and a file name, so leave them out"
        )
    name = parts.path.rpartition("/")[2]
    if not name or name in (".", ".."):
        raise ConfigError(f"url {payload.url!r}: has no file name at its end; add the name of the payload file")
    return name


def _checked_size(size_bytes: int) -> int:
    if not 0 < size_bytes <= MAX_SIZE_BYTES:
        # update_engine and our own reader refuse an empty package, so it could never be installed.
        raise ConfigError(
            f"size {size_bytes}: write the payload's bytes, 1 to {MAX_SIZE_BYTES}; an empty file cannot be installed"
        )
    return size_bytes


def _from_base64(text: str, size_bytes: int) -> bytes | None:
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if len(decoded) == size_bytes else None
