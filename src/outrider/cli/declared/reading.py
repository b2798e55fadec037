"""From a file to what it declares: every mistake that can be seen without the service, with its line."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from outrider.cli.declared.environments import read_environment
from outrider.cli.declared.extra_files import read_extra_files
from outrider.cli.declared.inline import pack, problem_of
from outrider.cli.declared.policies import read_policy
from outrider.cli.declared.reader import Reader, line_of, plain
from outrider.cli.declared.state import (
    MASKED,
    AppState,
    ChannelState,
    DeclarationError,
    GroupState,
    PackageState,
    Payload,
    State,
    WebhookState,
)
from outrider.cli.declared.tasks import read_tasks
from outrider.cli.declared.tree import Items, Node, Table, read_tree
from outrider.core import versions
from outrider.core.addresses import http_problem
from outrider.core.architectures import checked_architecture
from outrider.core.errors import ConfigError
from outrider.core.follow import parse_follow
from outrider.core.images import checked_digest, parse_image
from outrider.model.activity import SEVERITIES
from outrider.model.keys import check_part
from outrider.service.store.context import app_id_of
from outrider.service.store.groups import MAX_SLOTS
from outrider.service.store.packages import sha256_hex

_SOURCES = ("url", "file", "files", "image", "stored")
_OF_SOURCE: Mapping[str, tuple[str, ...]] = {
    "url": ("size_bytes", "sha256", "sha1"),
    "file": ("sha256",),
    "files": (),
    "image": ("digest",),
    "stored": ("name",),
}
_PACKAGE = (
    *_SOURCES,
    "size_bytes",
    "sha256",
    "sha1",
    "digest",
    "name",
    "arch",
    "required",
    "release_notes",
    "tasks",
    "extra_files",
)
_CHANNEL = ("version", "publish", "follow", "follow_moves", "floors", "excluded", "allow_missing")
_GROUP = ("channel", "label", "slots", "paused", "identity", "policy", "environment", "sidekick")
_APP = ("label", "description", "product_id", "packages", "channels", "groups")
_EACH_ITS_OWN = ("instance.id", "instance.app", "instance.group", "instance.state_dir")
_WEBHOOK = ("url", "app", "least", "secret", "secret_file")


def read_declaration(path: Path) -> State:
    """Read and check a file.

    Raises:
        ConfigError: it can't be read.
        DeclarationError: something in it is wrong; all of it is listed.
    """
    reader = Reader(file=path.name)
    root = reader.table(read_tree(path), "", ("apps", "webhooks"))
    apps: dict[str, AppState] = {}
    for name, line, node in reader.tables(root, "apps", "apps"):
        app_id = reader.checked(line, app_id_of, name)
        if app_id in apps:
            reader.refuse(line, f"apps.{name}: the same app as apps.{apps[app_id].name}; write it once")
        elif app_id is not None:
            apps[app_id] = _app(reader, path.parent, name, app_id, line, node)
    webhooks = {
        name: found
        for name, line, node in reader.tables(root, "webhooks", "webhooks")
        if (found := _webhook(reader, path.parent, name, line, node)) is not None
    }
    if not root.entries:
        reader.refuse(1, "is empty; write [apps.NAME] and what it has")
    if reader.problems:
        raise DeclarationError(reader.lines)
    return State(apps=apps, webhooks=webhooks, file=path.name)


def _app(reader: Reader, folder: Path, name: str, app_id: str, line: int, node: Node) -> AppState:
    what = f"apps.{name}"
    table = reader.table(node, what, _APP)
    packages = {
        version: found
        for version, where, inner in reader.tables(table, "packages", f"{what}.packages")
        if (found := _package(reader, folder, f'{what}.packages."{version}"', version, where, inner)) is not None
    }
    channels = {
        word: _channel(reader, f"{what}.channels.{word}", word, where, inner)
        for word, where, inner in reader.tables(table, "channels", f"{what}.channels")
    }
    groups = {
        word: _group(reader, folder, what, word, where, inner)
        for word, where, inner in reader.tables(table, "groups", f"{what}.groups")
    }
    return AppState(
        name=name,
        id=app_id,
        label=reader.text(table, "label", what),
        description=reader.text(table, "description", what),
        product_id=reader.text(table, "product_id", what),
        packages=packages,
        channels=channels,
        groups=groups,
        line=line,
    )


def _package(reader: Reader, folder: Path, what: str, version: str, line: int, node: Node) -> PackageState | None:
    table = reader.table(node, what, _PACKAGE)
    reader.checked(line, versions.parse, version)
    sources = [name for name in _SOURCES if name in table.entries]
    if len(sources) != 1:
        reader.refuse(
            line, f"{what}: give one of {', '.join(_SOURCES)}" + (f", not {' and '.join(sources)}" if sources else "")
        )
        return None
    kind = sources[0]
    for name in ("size_bytes", "sha256", "sha1", "digest", "name"):
        if name in table.entries and name not in _OF_SOURCE[kind]:
            reader.refuse(line_of(table, name), f"{what}.{name}: has no meaning with {kind}; leave it out")
    arch = reader.text(table, "arch", what)
    if arch is not None:
        arch = reader.checked(line_of(table, "arch"), checked_architecture, arch)
    payload = _payload(reader, folder, what, version, line, table, kind)
    if payload is None:
        return None
    return PackageState(
        version=version,
        payload=payload,
        arch=arch,
        required=reader.flag(table, "required", what),
        release_notes=reader.text(table, "release_notes", what),
        tasks=read_tasks(reader, what, table, is_image=kind == "image"),
        extra_files=read_extra_files(reader, folder, what, table, kind),
        line=line,
    )


def _payload(
    reader: Reader, folder: Path, what: str, version: str, line: int, table: Table, kind: str
) -> Payload | None:
    where_line = line_of(table, kind)
    if kind == "files":
        return _inline(reader, what, version, table)
    where = reader.text(table, kind, what)
    if where is None:
        if not reader.problems:
            reader.refuse(where_line, f"{what}.{kind}: is empty")
        return None
    said = reader.text(table, "sha256", what)
    sha256 = (reader.checked(line_of(table, "sha256"), sha256_hex, said) or "") if said else ""
    if kind == "url":
        if problem := http_problem(where):
            reader.refuse(where_line, f"{what}.url {where!r}: {problem}")
        size, sha1 = reader.number(table, "size_bytes", what), reader.text(table, "sha1", what) or ""
        missing = [name for name in ("size_bytes", "sha256") if name not in table.entries]
        if missing:
            reader.refuse(line, f"{what}: a url needs {' and '.join(missing)}: clients can't verify it otherwise")
        return Payload(kind="url", where=where, size_bytes=size, sha256=sha256, sha1=sha1)
    if kind == "file":
        path = folder / Path(where).expanduser()
        if path.is_dir():
            reader.refuse(where_line, f"{what}.file {where}: is a folder; pack it as a tar")
        elif not path.is_file() and not sha256:
            reader.refuse(where_line, f"{what}.file {where}: no such file in {folder.resolve()}")
        return Payload(kind="file", where=path.name, path=path, sha256=sha256)
    if kind == "image":
        reader.checked(where_line, parse_image, where)
        digest = reader.text(table, "digest", what)
        if digest:
            digest = reader.checked(line_of(table, "digest"), checked_digest, digest)
        return Payload(kind="image", where=where, digest=digest or "")
    name = reader.text(table, "name", what)
    if name is None:
        reader.refuse(line, f"{what}: stored needs name, the payload's file name")
    stored = reader.checked(where_line, sha256_hex, where)
    return Payload(kind="stored", where=name or "", sha256=stored or "")


def _inline(reader: Reader, what: str, version: str, table: Table) -> Payload | None:
    inner = reader.table(table.entries["files"], f"{what}.files")
    texts: dict[str, str] = {}
    for name in inner.entries:
        text = reader.text(inner, name, f"{what}.files")
        if problem := problem_of(name):
            reader.refuse(line_of(inner, name), f"{what}.files {name!r}: {problem}")
        texts[name] = text or ""
    for name in texts:
        if any(other.startswith(f"{name}/") for other in texts):
            reader.refuse(line_of(inner, name), f"{what}.files {name!r}: is a file and a folder")
            return None
    if not texts:
        reader.refuse(inner.line, f"{what}.files: is empty")
    if any(problem_of(name) for name in texts):
        return None
    content = pack(texts)
    return Payload(
        kind="files", where=f"files-{version}.tar", content=content, sha256=hashlib.sha256(content).hexdigest()
    )


def _channel(reader: Reader, what: str, name: str, line: int, node: Node) -> ChannelState:
    table = reader.table(node, what, _CHANNEL)
    reader.checked(line, check_part, "channel", name)
    version = reader.text(table, "version", what)
    if version is not None:
        reader.checked(line_of(table, "version"), versions.parse, version)
    follow = reader.text(table, "follow", what)
    if follow:
        reader.checked(line_of(table, "follow"), parse_follow, follow)
    floors = _floors(reader, what, table)
    excluded = _versions(reader, what, table)
    if version is not None and excluded and version in excluded:
        reader.refuse(line_of(table, "version"), f"{what}.version {version}: is excluded by the same channel")
    return ChannelState(
        name=name,
        version=version,
        publish=reader.flag(table, "publish", what),
        follow=follow,
        follow_moves=reader.flag(table, "follow_moves", what),
        floors=floors,
        excluded=excluded,
        allow_missing=reader.flag(table, "allow_missing", what) or False,
        line=line,
    )


def _floors(reader: Reader, what: str, table: Table) -> dict[str, str] | None:
    if "floors" not in table.entries:
        return None
    inner = reader.table(table.entries["floors"], f"{what}.floors")
    found = {}
    for version in inner.entries:
        reader.checked(line_of(inner, version), versions.parse, version)
        found[version] = reader.text(inner, version, f"{what}.floors") or ""
    return found


def _versions(reader: Reader, what: str, table: Table) -> frozenset[str] | None:
    node = table.entries.get("excluded")
    if node is None:
        return None
    if not isinstance(node, Items):
        reader.refuse(node.line, f"{what}.excluded: must be a list of versions")
        return frozenset()
    found = set()
    for item in node.items:
        version = str(getattr(item, "value", ""))
        reader.checked(item.line, versions.parse, version)
        found.add(version)
    return frozenset(found)


def _group(reader: Reader, folder: Path, app: str, name: str, line: int, node: Node) -> GroupState:
    what = f"{app}.groups.{name}"
    table = reader.table(node, what, _GROUP)
    reader.checked(line, check_part, "group", name)
    channel, slots = reader.text(table, "channel", what), reader.number(table, "slots", what)
    if channel is not None:
        reader.checked(line_of(table, "channel"), check_part, "channel", channel)
    if slots is not None and not 1 <= slots <= MAX_SLOTS:
        reader.refuse(
            line_of(table, "slots"), f"{what}.slots: {slots}: write 1 to {MAX_SLOTS}; paused = true stops all"
        )
    identity = reader.text(table, "identity", what)
    if identity not in (None, "auto", "required", "optional"):
        reader.refuse(
            line_of(table, "identity"), f'{what}.identity: {identity!r}: write "auto", "required" or "optional"'
        )
    policy = read_policy(reader, f"{what}.policy", table.entries["policy"]) if "policy" in table.entries else None
    environment = None
    if "environment" in table.entries:
        environment = read_environment(reader, folder, f"{what}.environment", table.entries["environment"])
    sidekick = _sidekick(reader, what, table) if "sidekick" in table.entries else {}
    return GroupState(
        name=name,
        channel=channel,
        label=reader.text(table, "label", what),
        slots=slots,
        paused=reader.flag(table, "paused", what),
        identity=identity,
        policy=policy,
        environment=environment,
        sidekick=sidekick,
        line=line,
    )


def _sidekick(reader: Reader, what: str, table: Table) -> dict[str, dict[str, object]]:
    """Settings of the group's sidekicks: sections and keys as in a sidekick's own file."""
    from outrider.config.load import check_setting, check_together

    found: dict[str, dict[str, object]] = {}
    lines: dict[str, int] = {}
    place, before = f"{what}.sidekick", len(reader.problems)
    inner = reader.table(table.entries["sidekick"], place)
    for section, node in inner.entries.items():
        keys = reader.table(node, f"{place}.{section}")
        for key, value in keys.entries.items():
            line = lines[f"{section}.{key}"] = line_of(keys, key)
            if f"{section}.{key}" in _EACH_ITS_OWN:
                reader.refuse(line, f"{place}.{section}.{key}: each sidekick has its own; leave it out")
                continue
            taken = plain(value)
            reader.checked(line, check_setting, f"{section}.{key}", taken, place)
            found.setdefault(section, {})[key] = taken
    if len(reader.problems) == before:
        # files are on the machines of the sidekicks, and need not be here
        values = {
            f"{section}.{key}": value
            for section, keys_of in found.items()
            for key, value in keys_of.items()
            if section != "etcd" and not key.endswith("_file")
        }
        try:
            check_together(values, place)
        except ConfigError as error:
            said = str(error).removeprefix(f"{place}: ")
            where = lines.get(said.partition(":")[0], inner.line)
            reader.refuse(where, f"{place}: {said}")
    return found


def _webhook(reader: Reader, folder: Path, name: str, line: int, node: Node) -> WebhookState | None:
    what = f"webhooks.{name}"
    table = reader.table(node, what, _WEBHOOK)
    reader.checked(line, check_part, "webhook", name)
    url, least = reader.text(table, "url", what), reader.text(table, "least", what)
    if url is None:
        reader.refuse(line, f"{what}: url is missing")
        return None
    if problem := http_problem(url):
        reader.refuse(line_of(table, "url"), f"{what}.url {url!r}: {problem}")
    if least is not None and least not in SEVERITIES:
        reader.refuse(line_of(table, "least"), f"{what}.least {least!r}: write one of {', '.join(SEVERITIES)}")
    app = reader.text(table, "app", what)
    if "app" in table.entries:
        app = (reader.checked(line_of(table, "app"), app_id_of, app) or "") if app else ""
    secret = _secret(reader, folder, what, table)
    if secret and not re.fullmatch(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}", secret):
        reader.refuse(
            line_of(table, "secret" if "secret" in table.entries else "secret_file"),
            f"{what}.secret: must be whsec_ and 24 to 64 bytes in base64, {MASKED!r}, or left out: then one is made",
        )
    return WebhookState(name=name, url=url, app=app, least=least, secret=secret, line=line)


def _secret(reader: Reader, folder: Path, what: str, table: Table) -> str:
    secret, file = reader.text(table, "secret", what), reader.text(table, "secret_file", what)
    if secret and file:
        reader.refuse(line_of(table, "secret_file"), f"{what}: give secret or secret_file, not both")
    if file:
        try:
            return (folder / Path(file).expanduser()).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            reader.refuse(line_of(table, "secret_file"), f"{what}.secret_file {file}: {reason}")
    return "" if secret in (None, MASKED) else secret
