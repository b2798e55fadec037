"""A group's environment: variables, references to files of the machine, and arguments that its app is started with.

Pure: what it may say, and how two of them differ. A *secret* is a variable whose value nobody is shown. A *reference*
names where the machine finds the value just before the start; its value never leaves the machine.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from outrider.core.errors import ConfigError

MAX_BYTES = 64 * 1024
"""Of names, values and arguments together; Linux takes 128 KiB for one of them, and etcd 1.5 MB for a document."""
MAX_ENTRIES = 256
MASK = "***"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OURS = re.compile(r"PORT|HOST|OUTRIDER_.*|NOTIFY_SOCKET|WATCHDOG_(USEC|PID)|LISTEN_(FDS|PID|FDNAMES)")
"""What outrider or systemd says to the app itself."""
_UNFIT = re.compile(r"[\x00\ud800-\udfff]")
_REFERENCE = re.compile(
    r"file:/[^\x00-\x1f\ud800-\udfff]{1,1000}|(?:credential|docker-secret):[A-Za-z0-9][A-Za-z0-9._@-]{0,254}"
)
_REFERENCES = "file:/PATH, credential:NAME (of systemd) or docker-secret:NAME"

Kind = Literal["value", "secret", "reference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What an app is started with, besides what its machine's settings say.

    Attributes:
        variables: Name -> value that everybody may see.
        secrets: Name -> value that is masked everywhere.
        references: Name -> where the machine finds the value: ``file:/PATH``, ``credential:NAME`` or
            ``docker-secret:NAME``.
        arguments: Added to the app's command.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    def digest(self, salt: str) -> str:
        """SHA-256 of all of it, 64 hex digits. The salt keeps a reader from finding a secret by trying."""
        content = [salt, *map(dict, (self.variables, self.secrets, self.references)), list(self.arguments)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def shown(self) -> dict[str, tuple[Kind, str]]:
        """Name -> kind and text for people, by name; secrets masked."""
        found: dict[str, tuple[Kind, str]] = {name: ("value", text) for name, text in self.variables.items()}
        found |= dict.fromkeys(self.secrets, ("secret", MASK))
        found |= {name: ("reference", text) for name, text in self.references.items()}
        return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What one environment has that the other hasn't. None: it is not there; secrets are masked."""

    name: str
    before: str | None
    after: str | None


ARGUMENTS = "(arguments)"


def checked(environment: Environment) -> Environment:
    """Return ``environment`` if an app can be started with it.

    Raises:
        ConfigError: a name, value or reference that can't be used, one name twice, or too much of it.
    """
    kinds = (environment.variables, environment.secrets, environment.references)
    names = [name for kind in kinds for name in kind]
    for name in names:
        _check_name(name)
        if names.count(name) > 1:
            raise ConfigError(f"variable {name}: given twice; it is a value, a secret or a reference")
    for name, value in (*environment.variables.items(), *environment.secrets.items()):
        if _UNFIT.search(value):
            raise ConfigError(
                f"variable {name}: its value has a NUL, or half a character, which no environment can hold"
            )
    for name, text in environment.references.items():
        if not _REFERENCE.fullmatch(text):
            raise ConfigError(f"variable {name}: reference {text[:100]!r}: write {_REFERENCES}")
    if any(_UNFIT.search(argument) for argument in environment.arguments):
        raise ConfigError("an argument has a NUL, or half a character, which no command can hold")
    texts = [text for kind in kinds for pair in kind.items() for text in pair] + list(environment.arguments)
    size = sum(len(text.encode()) for text in texts)
    if size > MAX_BYTES or len(texts) > 2 * MAX_ENTRIES:
        raise ConfigError(
            f"{len(texts)} names, values and arguments of {size} bytes; at most {MAX_ENTRIES} variables and"
            f" {MAX_BYTES} bytes: put large values into files, and refer to them"
        )
    return environment


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"variable {name[:100]!r}: use letters, digits and _, and begin with a letter or _")
    if _OURS.fullmatch(name):
        raise ConfigError(f"variable {name}: outrider sets it itself; take another name")


def differences(before: Environment, after: Environment) -> tuple[Difference, ...]:
    """What is different, by name; the arguments last."""
    return tuple(_differences(before, after))


def _differences(before: Environment, after: Environment) -> Iterator[Difference]:
    was, now = before.shown(), after.shown()
    for name in sorted({*was, *now}):
        same_secret = before.secrets.get(name) == after.secrets.get(name)
        if was.get(name) != now.get(name) or not same_secret:
            yield Difference(
                name=name,
                before=was[name][1] if name in was else None,
                after=now[name][1] if name in now else None,
            )
    if before.arguments != after.arguments:
        yield Difference(name=ARGUMENTS, before=_words(before.arguments), after=_words(after.arguments))


def _words(arguments: tuple[str, ...]) -> str | None:
    return json.dumps(list(arguments), ensure_ascii=False) if arguments else None
