"""Unit files as fleet's API wants them: a list of options, read from a template and filled in.

Source: systemd.syntax(7); fleet 1.0 ``unit/file.go`` and Documentation/unit-files-and-scheduling.md.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from outrider.core.errors import ConfigError

PLACEHOLDERS = frozenset(
    {"version", "instance", "workload", "host", "port", "image", "payload", "root", "sha256", "stop_grace_s"}
)
"""What is replaced in a template."""
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9:_.@-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One line of a unit file, with its section."""

    section: str
    name: str
    value: str


def read_template(path: Path) -> tuple[Option, ...]:
    """Read a unit file.

    Raises:
        ConfigError: it can't be read, or isn't one; with the line.
    """
    try:
        return tuple(_options(path.read_text(), path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _options(text: str, path: Path) -> Iterator[Option]:
    section, rest = "", ""
    for number, line in enumerate(text.splitlines(), 1):
        if not rest and (not line.strip() or line.lstrip().startswith(("#", ";"))):
            continue
        if line.endswith("\\"):
            rest += line[:-1] + " "
            continue
        line, rest = (rest + line).strip(), ""
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        elif "=" in line and section:
            name, _, value = line.partition("=")
            yield Option(section=section, name=name.strip(), value=value.strip())
        else:
            raise ConfigError(f"{path}:{number}: neither a section nor NAME=VALUE")


def unknown_placeholders(text: str) -> tuple[str, ...]:
    """Words in braces that look like placeholders and are none; ``${VARIABLE}`` is systemd's own."""
    return tuple(
        word for word in dict.fromkeys(re.findall(r"(?<!\$)\{([a-z_0-9]+)\}", text)) if word not in PLACEHOLDERS
    )


def filled(template: Sequence[Option], values: Mapping[str, str], env: Mapping[str, str]) -> list[dict[str, str]]:
    """The options of one version's unit, as the API takes them.

    Args:
        values: What stands for each placeholder.
        env: Variables to add to the app's environment.
    """
    options = [
        {
            "section": each.section,
            "name": each.name,
            "value": re.sub(r"(?<!\$)\{([a-z_0-9]+)\}", lambda found: values.get(found[1], found[0]), each.value),
        }
        for each in template
    ]
    return options + [
        {"section": "Service", "name": "Environment", "value": _quoted(f"{name}={text}")} for name, text in env.items()
    ]


def name_of(pattern: str, version: str, instance: str) -> str:
    """A unit's name. What fleet doesn't take in names, such as a plus sign, becomes ``_``."""
    text = re.sub(r"\{(version|instance)\}", lambda found: version if found[1] == "version" else instance, pattern)
    return _FORBIDDEN.sub("_", text)


def default_name(template: Path) -> str:
    """The pattern of names for a template: of ``example@.service`` it is ``example@{version}-{instance}.service``."""
    stem = template.name.removesuffix(".service").removesuffix("@")
    return f"{stem}@{{version}}-{{instance}}.service"


def _quoted(text: str) -> str:
    """As systemd.syntax(7) reads it: in double quotes, with ``%`` doubled."""
    return '"' + text.translate({ord("\\"): "\\\\", ord('"'): '\\"', ord("%"): "%%"}) + '"'
