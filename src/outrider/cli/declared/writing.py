"""The way back: what the service has, as a file that ``outrider apply`` reads."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from outrider.cli.declared.environments import as_document as as_table
from outrider.cli.declared.extra_files import files_document
from outrider.cli.declared.policies import shown
from outrider.cli.declared.state import MASKED, AppState, ChannelState, GroupState, PackageState, State, WebhookState
from outrider.cli.declared.tasks import tasks_document
from outrider.cli.rest_client import Json
from outrider.core.errors import ConfigError

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def as_document(state: State) -> Json:
    """The file's content: what is empty is left out, and secrets are masked."""
    document: Json = {}
    if state.apps:
        document["apps"] = {app.id: _app(app) for _, app in sorted(state.apps.items())}
    if state.webhooks:
        document["webhooks"] = {name: _webhook(hook) for name, hook in sorted(state.webhooks.items())}
    return document


def _app(app: AppState) -> Json:
    found: Json = {"label": app.label}
    found |= _filled(description=app.description, product_id=app.product_id)
    found |= _filled(packages={one.version: _package(one) for one in app.packages.values()})
    found |= _filled(channels={name: _channel(one) for name, one in sorted(app.channels.items())})
    found |= _filled(groups={name: _group(one) for name, one in sorted(app.groups.items())})
    return found


def _package(package: PackageState) -> Json:
    payload = package.payload
    if payload.kind == "url":
        found: Json = {"url": payload.where, "size_bytes": payload.size_bytes, "sha256": payload.sha256}
        found |= _filled(sha1=payload.sha1)
    elif payload.kind == "image":
        found = {"image": payload.where} | _filled(digest=payload.digest)
    else:
        found = {"stored": payload.sha256, "name": payload.where}
    found |= _filled(arch=package.arch if package.arch != "all" else None, release_notes=package.release_notes)
    found |= _filled(tasks=tasks_document(package.tasks or ()))
    found |= _filled(extra_files=files_document(package.extra_files or ()))
    return found | ({} if package.required else {"required": False})


def _channel(channel: ChannelState) -> Json:
    found = _filled(version=channel.version) | {"publish": channel.publish}
    found |= _filled(follow=channel.follow)
    found |= {"follow_moves": channel.follow_moves} if channel.follow else {}
    return found | _filled(floors=dict(channel.floors or {}), excluded=sorted(channel.excluded or ()))


def _group(group: GroupState) -> Json:
    label = group.label if group.label != group.name else None
    found: Json = {"channel": group.channel} | _filled(label=label) | {"slots": group.slots, "paused": group.paused}
    found |= {"identity": group.identity} if group.identity not in (None, "auto") else {}
    found |= {"policy": shown(group.policy or {})}
    return found | _filled(environment=as_table(group.environment) if group.environment is not None else None)


def _webhook(hook: WebhookState) -> Json:
    return {"url": hook.url} | _filled(app=hook.app) | {"least": hook.least, "secret": MASKED}


def _filled(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value}


def to_toml(document: Mapping[str, Any]) -> str:
    """A document as TOML."""
    return "\n".join(_tables((), document)).strip("\n") + "\n"


def _tables(place: tuple[str, ...], table: Mapping[str, Any]) -> Iterator[str]:
    inner = {name: value for name, value in table.items() if isinstance(value, dict)}
    own = {name: value for name, value in table.items() if name not in inner}
    if place and (own or not inner):
        yield f"\n[{'.'.join(_key(word) for word in place)}]"
    for name, value in own.items():
        yield f"{_key(name)} = {_value(value)}"
    for name, value in inner.items():
        yield from _tables((*place, name), value)


def _key(word: str) -> str:
    return word if _BARE.fullmatch(word) else _text(word)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_value(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    return _text(str(value))


def _text(text: str) -> str:
    """JSON's strings are TOML's basic strings, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def to_yaml(document: Mapping[str, Any]) -> str:
    """A document as YAML.

    Raises:
        ConfigError: the library isn't there.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ConfigError("YAML needs a library: pip install 'outrider[cli]', or take --format=toml") from error
    return str(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, default_flow_style=False, width=120))
