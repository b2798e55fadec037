"""Steps for packages: new ones, and images that get their digest. A package that is there never changes."""

import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path

from outrider.cli.declared.extra_files import bodies_of, check_same, said_of_file
from outrider.cli.declared.state import AppState, PackageState, Payload
from outrider.cli.declared.steps import Session, Step
from outrider.cli.declared.tasks import said_of
from outrider.cli.payload_files import check_image_tar, check_payload, is_image_tar, measure, upload
from outrider.cli.rest_client import Json
from outrider.cli.task_options import task_body
from outrider.core.errors import ConfigError
from outrider.core.images import TAR_NAME, checked_digest, parse_image
from outrider.service.store.packages import sha1_base64

Problems = list[tuple[int, str]]


def package_steps(app: AppState, before: AppState, problems: Problems) -> Iterator[Step]:
    """What is new, in the file's order; another payload for a version that is there is a problem."""
    for package in app.packages.values():
        known = before.packages.get(package.version)
        try:
            if known is None:
                yield _new(app.id, package)
            else:
                yield from _known(app.id, package, known)
        except ConfigError as error:
            problems.append((package.line, f'apps.{app.name}.packages."{package.version}": {error}'))


def _new(app: str, package: PackageState) -> Step:
    payload = package.payload
    facts: Json = {"version": package.version, "release_notes": package.release_notes or ""}
    facts |= {"arch": package.arch} if package.arch else {}
    facts |= {"required": package.required} if package.required is not None else {}
    facts |= {"tasks": [task_body(task) for task in package.tasks]} if package.tasks else {}
    measured: Json = {}
    if payload.path is not None:
        measured = _measured(payload.path, payload)

    def create(session: Session) -> tuple[str, ...]:
        body = facts | _source(session, payload, measured)
        if package.extra_files:
            body |= {"files": bodies_of(session, package.extra_files, has_address=payload.kind == "url")}
        made = session.write("POST", "apps", app, "packages", body=body)
        digest = (f"{made['image']} is {made['digest']}",) if made["image"] and made["digest"] else ()
        return (*digest, *made["notes"])

    details = (
        _said(payload, measured),
        *(said_of_file(one) for one in package.extra_files or ()),
        *(said_of(task) for task in package.tasks or ()),
    )
    return Step(sign="+", what=f"package {app} {package.version}", details=details, make=create)


def _measured(path: Path, payload: Payload) -> Json:
    """Size and digests of a file that sidekicks can run.

    Raises:
        ConfigError: it isn't there, is another one than the file says, or no sidekick could run it.
    """
    if not path.is_file():
        raise ConfigError(f"file {path.name}: no such file in {path.parent.resolve()}")
    if is_image_tar(path):
        check_image_tar(path, None)
    else:
        check_payload(path, None, as_is=False)
    found = measure(path)
    if payload.sha256 and payload.sha256 != found["sha256"]:
        raise ConfigError(f"file {path.name} has sha256 {found['sha256']}, but the file says {payload.sha256}")
    return found


def _source(session: Session, payload: Payload, measured: Json) -> Json:
    if payload.kind == "url":
        return {
            "url": payload.where,
            "size_bytes": payload.size_bytes,
            "sha256": payload.sha256,
            "sha1": payload.sha1,
        }
    if payload.kind == "image":
        return {"image": payload.where} | ({"digest": payload.digest} if payload.digest else {})
    if payload.kind == "stored":
        return {"stored": payload.sha256, "name": payload.where}
    if payload.kind == "files":
        with tempfile.TemporaryDirectory(prefix="outrider-") as folder:
            path = Path(folder) / payload.where
            path.write_bytes(payload.content)
            check_payload(path, None, as_is=False)
            return {"stored": upload(session.service, path, measure(path)), "name": payload.where}
    assert payload.path is not None
    name = TAR_NAME if is_image_tar(payload.path) else payload.path.name
    return {"stored": upload(session.service, payload.path, measured), "name": name}


def _said(payload: Payload, measured: Json) -> str:
    if payload.kind == "files":
        return f"files: {len(payload.content)} bytes, packed from the file"
    size = measured.get("size_bytes") or payload.size_bytes
    return f"{payload.kind}: {payload.where}" + (f", {size} bytes" if size is not None else "")


def _known(app: str, package: PackageState, known: PackageState) -> Iterator[Step]:
    """Nothing when it is the same; a step when the service is told the digest of its image.

    Raises:
        ConfigError: it is another one.
    """
    ours, theirs = package.payload, known.payload
    remedy = "a package never changes, so write a new version"
    for name in ("arch", "required", "release_notes"):
        said, there = getattr(package, name), getattr(known, name)
        if said is not None and said != there:
            raise ConfigError(f"{name} is {there!r} at the service, not {said!r}; {remedy}")
    if package.tasks is not None and package.tasks != (known.tasks or ()):
        there = "; ".join(said_of(task) for task in known.tasks or ()) or "none"
        raise ConfigError(f"has other tasks at the service ({there}); {remedy}")
    check_same(package.extra_files, known.extra_files, remedy)
    if ours.kind == "image" or theirs.kind == "image":
        if theirs.kind != "image" or ours.kind != "image":
            raise ConfigError(f"is {_named(theirs)} at the service, not {_named(ours)}; {remedy}")
        if str(parse_image(ours.where)) != theirs.where:
            raise ConfigError(f"is the image {theirs.where} at the service, not {ours.where}; {remedy}")
        digest = checked_digest(ours.digest) if ours.digest else ""
        if digest and theirs.digest and digest != theirs.digest:
            raise ConfigError(f"is {theirs.digest} at the service, not {digest}; {remedy}")
        if digest and not theirs.digest:
            yield _resolve(app, package.version, digest)
        return
    if (ours.kind == "url") != (theirs.kind == "url"):
        raise ConfigError(f"is {_named(theirs)} at the service, not {_named(ours)}; {remedy}")
    if ours.kind == "url" and ours.where != theirs.where:
        raise ConfigError(f"is at {theirs.where} at the service, not {ours.where}; {remedy}")
    if ours.kind == "url" and (ours.size_bytes != theirs.size_bytes or _differ(ours.sha1, theirs.sha1)):
        raise ConfigError(f"has another size or SHA-1 at the service; {remedy}")
    sha256 = ours.sha256
    if ours.path is not None and ours.path.is_file():
        sha256 = measure(ours.path)["sha256"]
        if ours.sha256 and sha256 != ours.sha256:
            raise ConfigError(f"file {ours.path.name} has sha256 {sha256}, but the file says {ours.sha256}")
    if sha256 and sha256 != theirs.sha256:
        raise ConfigError(f"has sha256 {theirs.sha256} at the service, not {sha256}; {remedy}")


def _differ(ours: str, theirs: str) -> bool:
    return bool(ours) and base64.b64decode(sha1_base64(ours)) != base64.b64decode(theirs or "")


def _named(payload: Payload) -> str:
    words = {"url": f"at {payload.where}", "image": f"the image {payload.where}"}
    return words.get(payload.kind, f"the uploaded file {payload.where}")


def _resolve(app: str, version: str, digest: str) -> Step:
    def resolve(session: Session) -> tuple[str, ...]:
        session.write("POST", "apps", app, "packages", version, "resolve", body={"digest": digest})
        return ()

    return Step(sign="~", what=f"package {app} {version}", details=(f"digest: none -> {digest}",), make=resolve)
