"""Tasks of a package, as ``package create`` takes them on the command line."""

import re
from collections.abc import Iterable
from dataclasses import replace

from outrider.cli.rest_client import Json
from outrider.core.errors import ConfigError
from outrider.core.tasks import TaskSpec, check_tasks, task_of

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|)")
_UNITS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}


def given_tasks(
    tasks: Iterable[str],
    limits: Iterable[str] = (),
    repeatable: Iterable[str] = (),
    per_release: Iterable[str] = (),
    per_app: Iterable[str] = (),
) -> list[Json]:
    """The tasks, for the body of a request.

    Raises:
        ConfigError: which option says what can't be.
    """
    known = {spec.name: spec for spec in check_tasks(task_of(text) for text in tasks)}

    def find(option: str, name: str) -> TaskSpec:
        if name not in known:
            raise ConfigError(f"{option} {name}: no --task has this name; there is {', '.join(known) or 'none'}")
        return known[name]

    for text in limits:
        name, _, time = text.partition("=")
        known[name] = replace(
            find("--task-limit", name), limit_s=time_limit(f"--task-limit {text}", time, "NAME=TIME with a time")
        )
    for name in repeatable:
        known[name] = replace(find("--task-repeatable", name), repeatable=True)
    for name in per_release:
        known[name] = replace(find("--task-per-release", name), per="release")
    for name in per_app:
        known[name] = replace(find("--task-per-app", name), scope="app")
    return [task_body(spec) for spec in check_tasks(known.values())]


def time_limit(where: str, time: str, wanted: str = "a time") -> float:
    """Seconds of a time such as ``90s``, ``15min`` or ``2h``.

    Raises:
        ConfigError: it is something else.
    """
    found = _TIME.fullmatch(time.strip())
    if found is None:
        raise ConfigError(f"{where}: write {wanted} such as 90s, 15min or 2h")
    return float(found[1]) * _UNITS[found[2]]


def task_body(spec: TaskSpec) -> Json:
    """A task in the body of a request."""
    return {
        "name": spec.name,
        "kind": spec.kind,
        "command": list(spec.command),
        "limit_s": spec.limit_s,
        "repeatable": spec.repeatable,
        "per": spec.per,
        "scope": spec.scope,
    }
