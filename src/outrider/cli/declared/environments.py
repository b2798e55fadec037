"""A group's environment: what a file says of it, and the step that makes it so.

An environment that a file names is the whole one. A secret is masked in what the service shows; one that the file masks
too stays as it is, and with a value in the file the service is asked whether it is another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outrider.cli.declared.reader import Reader, line_of
from outrider.cli.declared.state import MASKED, AppState, EnvironmentState, GroupState
from outrider.cli.declared.steps import Session, Step
from outrider.cli.declared.tree import Items, Node, Scalar
from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.environment import Environment, checked
from outrider.core.errors import ConfigError

_KEYS = ("variables", "secrets", "secret_files", "references", "arguments")
ARGUMENTS = "arguments"


def read_environment(reader: Reader, folder: Path, what: str, node: Node) -> EnvironmentState:
    """What the file says of a group's environment; ``secret_files`` are beside it."""
    table = reader.table(node, what, _KEYS)
    texts: dict[str, dict[str, str]] = {}
    for kind in _KEYS[:-1]:
        texts[kind] = {}
        if kind in table.entries:
            inner = reader.table(table.entries[kind], f"{what}.{kind}")
            for name in inner.entries:
                texts[kind][name] = reader.text(inner, name, f"{what}.{kind}") or ""
    for name, file in texts["secret_files"].items():
        try:
            texts["secrets"].setdefault(
                name, (folder / Path(file).expanduser()).read_text(encoding="utf-8").rstrip("\n")
            )
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            reader.refuse(line_of(table, "secret_files"), f"{what}.secret_files.{name} {file}: {reason}")
    found = EnvironmentState(
        variables=texts["variables"],
        secrets=texts["secrets"],
        references=texts["references"],
        arguments=_arguments(reader, what, table.entries.get(ARGUMENTS)),
        line=table.line,
    )
    whole = Environment(
        variables=found.variables, secrets=found.secrets, references=found.references, arguments=found.arguments
    )
    try:
        checked(whole)
    except ConfigError as error:
        reader.refuse(table.line, f"{what}: {error}")
    return found


def _arguments(reader: Reader, what: str, node: Node | None) -> tuple[str, ...]:
    if node is None:
        return ()
    items = node.items if isinstance(node, Items) else ()
    words = tuple(item.value for item in items if isinstance(item, Scalar) and isinstance(item.value, str))
    if not isinstance(node, Items) or len(words) != len(items):
        reader.refuse(node.line, f'{what}.{ARGUMENTS}: write a list of texts, ["--workers", "4"]')
    return words


def of_service(shown: Json) -> EnvironmentState:
    """What the service shows of an environment; secrets are masked."""
    kinds: dict[str, dict[str, str]] = {"value": {}, "secret": {}, "reference": {}}
    for one in shown["variables"]:
        kinds[one["kind"]][one["name"]] = MASKED if one["kind"] == "secret" else one["value"]
    return EnvironmentState(
        variables=kinds["value"],
        secrets=kinds["secret"],
        references=kinds["reference"],
        arguments=tuple(shown["arguments"]),
    )


def as_document(environment: EnvironmentState) -> Json:
    """The way back: as the file says it, without what is empty."""
    found: Json = {name: dict(getattr(environment, name)) for name in ("variables", "secrets", "references")}
    found[ARGUMENTS] = list(environment.arguments)
    return {name: value for name, value in found.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentChange:
    """What a group's environment lacks.

    Attributes:
        body: For the REST API.
        details: A line for each difference.
    """

    body: Json = field(default_factory=dict)
    details: tuple[str, ...] = ()


def environment_change(
    service: ServiceClient, app: AppState, group: GroupState, known: GroupState | None
) -> EnvironmentChange | str:
    """Compare the environment of the file with the service's; a text: why it can't be applied."""
    wanted, old = group.environment, (known.environment if known is not None else None) or EnvironmentState()
    if wanted is None:
        return EnvironmentChange()
    missing = [name for name, value in wanted.secrets.items() if value == MASKED and name not in old.secrets]
    if missing:
        return (
            f"secrets.{missing[0]}: {MASKED!r} keeps a secret that there is, and the group has none; write its value,"
            " or name its file in secret_files"
        )
    given = {name: value for name, value in wanted.secrets.items() if value != MASKED}
    names = {*wanted.variables, *wanted.secrets, *wanted.references}
    body: Json = {
        "variables": dict(wanted.variables),
        "secrets": given,
        "references": dict(wanted.references),
        "unset": sorted({*old.variables, *old.secrets, *old.references} - names),
        "arguments": list(wanted.arguments),
    }
    details = [*_differences(old, wanted)]
    for name in sorted(given.keys() & old.secrets.keys()):
        place = ("apps", app.id, "groups", group.name, "environment")
        asked = service.patch(*place, body={"secrets": {name: given[name]}, "dry_run": True})
        if asked["changes"]:
            details.append(f"environment.{name}: another secret")
    return EnvironmentChange(body=body, details=tuple(details)) if details else EnvironmentChange()


def _differences(old: EnvironmentState, wanted: EnvironmentState) -> list[str]:
    was, now = _shown(old), _shown(wanted)
    found = [
        f"environment.{name}: {was.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]
    if old.arguments != wanted.arguments:
        found.append(f"environment.{ARGUMENTS}: {_words(old.arguments)} -> {_words(wanted.arguments)}")
    return found


def _shown(environment: EnvironmentState) -> Mapping[str, str]:
    return {**environment.variables, **environment.references, **dict.fromkeys(environment.secrets, MASKED)}


def _words(arguments: tuple[str, ...]) -> str:
    return " ".join(arguments) or "none"


def write_environment(session: Session, app: AppState, group: GroupState, change: EnvironmentChange) -> list[str]:
    """Make the change, if nobody has changed the group meanwhile; returns what a person should know."""
    answer = session.write("PATCH", "apps", app.id, "groups", group.name, "environment", body=change.body)
    return list(answer["notes"])


def environment_step(app: AppState, group: GroupState, change: EnvironmentChange, affects: str) -> Step:
    """The change of a group that is there."""
    return Step(
        sign="~",
        what=f"environment of group {app.id}/{group.name}",
        details=change.details,
        affects=affects,
        make=lambda session: tuple(write_environment(session, app, group, change)),
    )
