"""The tasks of a package in a declaration, both ways: name = command, or name = a table."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

from outrider.cli.declared.reader import Reader, line_of, plain
from outrider.cli.declared.tree import Scalar, Table
from outrider.cli.rest_client import Json
from outrider.cli.task_options import task_body, time_limit
from outrider.core.errors import ConfigError
from outrider.core.tasks import KINDS, LIMIT_S, Per, TaskScope, TaskSpec, check_tasks

_TASK = ("kind", "command", "limit_s", "repeatable", "per", "scope")


def read_tasks(reader: Reader, what: str, table: Table, *, is_image: bool) -> tuple[TaskSpec, ...] | None:
    """The tasks of a package, in the file's order; None when it doesn't speak of them.

    Args:
        is_image: The payload is a container image.
    """
    if "tasks" not in table.entries:
        return None
    found: list[TaskSpec] = []
    for name, line, node in reader.tables(table, "tasks", f"{what}.tasks"):
        place = f"{what}.tasks.{name}"
        if isinstance(node, Scalar):
            given: Mapping[str, object] = {"command": plain(node)}
        else:
            given = {key: plain(inner) for key, inner in reader.table(node, place, _TASK).entries.items()}
        spec = reader.checked(line, _spec, name, given)
        if spec is not None and reader.checked(line, check_tasks, (spec,), is_image=is_image) is not None:
            found.append(spec)
    reader.checked(line_of(table, "tasks"), check_tasks, found, is_image=is_image)
    return tuple(found)


def _spec(name: str, given: Mapping[str, Any]) -> TaskSpec:
    """One task.

    Raises:
        ConfigError: what it can't say.
    """
    where, word = f"task {name!r}", given.get("kind", name)
    kind = next((one for one in KINDS if one == word), None)
    if kind is None:
        raise ConfigError(f"{where}: kind {word!r} is none of {', '.join(KINDS)}; give it a kind")
    limit = given.get("limit_s", LIMIT_S)
    if isinstance(limit, str):
        limit = time_limit(f"{where}: limit_s {limit!r}", limit)
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ConfigError(f"{where}: limit_s must be seconds, or a text such as 15min")
    repeatable = given.get("repeatable", False)
    if not isinstance(repeatable, bool):
        raise ConfigError(f"{where}: repeatable must be true or false")
    spec = TaskSpec(name=name, kind=kind, command=_words(where, given.get("command")), limit_s=float(limit))
    return replace(
        spec,
        repeatable=repeatable,
        per=_one_of(where, "per", given.get("per", "payload"), get_args(Per)),
        scope=_one_of(where, "scope", given.get("scope", "group"), get_args(TaskScope)),
    )


def _words(where: str, command: object) -> tuple[str, ...]:
    if isinstance(command, str):
        try:
            return tuple(shlex.split(command))
        except ValueError as error:
            raise ConfigError(f"{where}: command {command!r}: {error}") from error
    if isinstance(command, list) and all(isinstance(word, str) for word in command):
        return tuple(command)
    raise ConfigError(f"{where}: command must be a text, split as a shell does, or a list of texts")


def _one_of(where: str, name: str, word: object, known: Iterable[str]) -> Any:
    if word not in tuple(known):
        raise ConfigError(f"{where}: {name} {word!r} is none of {', '.join(known)}")
    return word


def tasks_of_service(shown: Iterable[Json]) -> tuple[TaskSpec, ...]:
    """The tasks of a package, as the service shows them."""
    return tuple(TaskSpec(**{**one, "command": tuple(one["command"])}) for one in shown)


def tasks_document(tasks: Iterable[TaskSpec]) -> Json:
    """As a file has them: what is as usual is left out."""
    return {task.name: _document(task) for task in tasks}


def _document(task: TaskSpec) -> Json:
    usual = TaskSpec(name=task.name, kind=task.kind, command=task.command)
    body, left_out = task_body(task), task_body(usual)
    facts = {name: body[name] for name in ("limit_s", "repeatable", "per", "scope") if body[name] != left_out[name]}
    return ({} if task.kind == task.name else {"kind": task.kind}) | {"command": list(task.command)} | facts


def said_of(task: TaskSpec) -> str:
    """One line of a plan: ``task migrate (pre): bin/migrate up``."""
    return f"task {task.name}" + (f" ({task.kind})" if task.kind != task.name else "") + f": {task.words}"
