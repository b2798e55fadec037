"""Contexts: named sets of addresses and defaults, kept in ``~/.config/outrider/config.toml``.

A command takes from the chosen context what neither an option nor the environment says.
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outrider.core.errors import ConfigError

KEYS: Mapping[str, str] = {
    "server": "address of the update service",
    "token": "token of a user",
    "token_file": "file that holds the token",
    "ca_file": "PEM file of the authority of the service's certificate",
    "etcd": "etcd endpoints",
    "prefix": "prefix of all keys in etcd",
    "etcd_ca_file": "PEM file of the authority of etcd's certificate",
    "etcd_cert_file": "client certificate for etcd",
    "etcd_key_file": "its key",
    "etcd_user": "etcd user",
    "etcd_password_file": "file with that user's password",
    "app": "app of commands that name none",
    "group": "group of commands that name none",
}
"""What a context may say, and what it means."""
_FILES = frozenset(key for key in KEYS if key.endswith("_file"))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """What the file says.

    Attributes:
        current: Name of the chosen one; empty: none.
    """

    path: Path
    current: str = ""
    known: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def values(self) -> Mapping[str, str]:
        """Of the chosen context; nothing without one."""
        return self.known.get(self.current, {})


def folder() -> Path:
    """Where the file is: as the XDG Base Directory Specification has it. A user without a home has no contexts."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    if home.startswith("/"):
        return Path(home) / "outrider"
    # a dynamic user of systemd has no home where libnss-systemd isn't installed, and then "~" stays as it is
    home = os.path.expanduser("~")
    return Path(home if home.startswith("/") else "/nonexistent") / ".config/outrider"


def load(wanted: str = "") -> Contexts:
    """Read the contexts; ``wanted`` is chosen, else that of ``OUTRIDER_CONTEXT``, ``context use``, or ``default``.

    Raises:
        ConfigError: the file can't be read or says something unknown, or there is no such context.
    """
    path = folder() / "config.toml"
    known, default = _read(path)
    asked = {
        "--context": wanted,
        "OUTRIDER_CONTEXT": os.environ.get("OUTRIDER_CONTEXT", ""),
        f"{path.with_name('current-context')}": _chosen(path),
        f"{path}: default": default,
    }
    source, current = next(((where, name) for where, name in asked.items() if name), ("", ""))
    if current and current not in known:
        there = ", ".join(known) or "none"
        raise ConfigError(f"{source}: no context {current!r} in {path}; known: {there}")
    return Contexts(path=path, current=current, known=known)


def value(name: str, wanted: str = "") -> str | None:
    """What the chosen context says of ``name``; None when it says nothing.

    Raises:
        ConfigError: as ``load``, or the file of the token can't be read.
    """
    contexts = load(wanted)
    found = contexts.values.get(name)
    if name == "token" and found is None and "token_file" in contexts.values:
        file = Path(contexts.values["token_file"])
        try:
            return file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{contexts.path}: token_file {file}: {error}") from error
    return found


def use(name: str) -> Contexts:
    """Choose a context for the commands that follow.

    Raises:
        ConfigError: there is none of that name, or it can't be written down.
    """
    contexts = load(name)
    try:
        _write(contexts.path.with_name("current-context"), f"{name}\n")
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    return contexts


def add(name: str, values: Mapping[str, str]) -> Path:
    """Add a context at the end of the file, which stays as it is otherwise; the first one is used from then on.

    Raises:
        ConfigError: the name can't be used or is taken, or the file can't be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"context {name!r}: write letters, digits, '.', '_' and '-', 64 at most")
    path = folder() / "config.toml"
    known, _ = _read(path)
    if name in known:
        raise ConfigError(f"context {name!r} is in {path} already: change it there")
    lines = [f"{key} = {json.dumps(text)}" for key, text in values.items()]
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    blank = "\n" if before else ""
    try:
        _write(path, before + blank + "\n".join([f"[contexts.{json.dumps(name)}]", *lines, ""]))
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    if not known:
        use(name)
    return path


def _read(path: Path) -> tuple[dict[str, dict[str, str]], str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}, ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    for key in content:
        if key not in ("default", "contexts"):
            raise ConfigError(f"{path}: {key!r} isn't known; write default = NAME and [contexts.NAME]")
    default, found = content.get("default", ""), content.get("contexts", {})
    if not isinstance(default, str) or not isinstance(found, dict):
        raise ConfigError(f"{path}: write default = NAME and [contexts.NAME]")
    return {name: _checked(path, name, table) for name, table in found.items()}, default


def _checked(path: Path, name: str, table: object) -> dict[str, str]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: contexts.{name} must be a table: [contexts.{name}]")
    values: dict[str, str] = {}
    for key, text in table.items():
        if key not in KEYS:
            raise ConfigError(f"{path}: contexts.{name}.{key} isn't known; known: {', '.join(KEYS)}")
        if not isinstance(text, str):
            raise ConfigError(f"{path}: contexts.{name}.{key} must be text")
        values[key] = str(path.parent / Path(text).expanduser()) if key in _FILES else text
    return values


def _chosen(path: Path) -> str:
    try:
        return path.with_name("current-context").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _write(path: Path, text: str) -> None:
    """As a whole or not at all; for its owner alone, since it may hold a token."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
