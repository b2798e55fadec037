"""Tasks: programs that run once for a release, and not once on each instance.

A task is known by its name; how often it runs is decided by its key: once for each payload of a group, once for each
release of it (``per = "release"``), or once for each payload of the whole app (``scope = "app"``).
"""

import hashlib
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from outrider.core.errors import ConfigError
from outrider.core.release import ReleaseId

TaskKind = Literal["pre", "post", "contract", "on-failure"]
"""When it runs. ``pre``: before the first instance swaps. ``post``: once the group has wholly taken the release.
``contract``: after those, and nothing older may run in the group from then on. ``on-failure``: once the release is
blocked for the group.
"""
Per = Literal["payload", "release"]
TaskScope = Literal["group", "app"]
KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
FOLLOWING: tuple[TaskKind, ...] = ("post", "contract")
"""Those that follow a finished rollout, in this order."""

MAX_TASKS = 16
"""Of one package; each is compared by the transaction that takes a turn."""
MAX_WORDS, MAX_WORD = 100, 4000
LIMIT_S, MAX_LIMIT_S = 600.0, 86_400.0
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """A task, as its package has it.

    Attributes:
        name: Unique in its package.
        command: The program and its arguments. A relative path, or a name, is looked for in the payload; an absolute
            path is a program of the machine.
        limit_s: After so many seconds it is ended, and has failed.
        repeatable: Running it twice does no harm, so it is run again when nobody knows how it ended.
        per: ``release``: also for another environment of the same payload, and for a rolling restart.
        scope: ``app``: once for all groups.
    """

    name: str
    kind: TaskKind
    command: tuple[str, ...]
    limit_s: float = LIMIT_S
    repeatable: bool = False
    per: Per = "payload"
    scope: TaskScope = "group"

    @property
    def is_of_machine(self) -> bool:
        """Its program is the machine's, not the payload's."""
        return self.command[0].startswith("/")

    def part(self, release: ReleaseId, group: str) -> str:
        """Its name as a part of the key: with ``per = "release"`` each release has its own."""
        if self.per == "payload":
            return self.name
        return f"{self.name}:{hashlib.sha256(release.key(group).encode()).hexdigest()[:16]}"

    @property
    def words(self) -> str:
        """The command as a person types it."""
        return shlex.join(self.command)


def check_tasks(tasks: Iterable[TaskSpec], *, is_image: bool = False) -> tuple[TaskSpec, ...]:
    """Return the tasks of a package if they can be run.

    Args:
        is_image: The payload is a container image: nothing of it can be run as a task.

    Raises:
        ConfigError: which one can't, and what to do.
    """
    checked = tuple(tasks)
    if len(checked) > MAX_TASKS:
        raise ConfigError(f"{len(checked)} tasks: a package has at most {MAX_TASKS}")
    names = [task.name for task in checked]
    for task in checked:
        where = f"task {task.name!r}"
        if not _NAME.fullmatch(task.name):
            raise ConfigError(f"{where}: a name has 1 to 40 lower-case letters, digits or - and no - at its start")
        if names.count(task.name) > 1:
            raise ConfigError(f"{where}: two tasks have this name; write KIND:NAME=COMMAND")
        if task.kind not in KINDS:
            raise ConfigError(f"{where}: kind {task.kind!r} is none of {', '.join(KINDS)}")
        if not task.command or not task.command[0].strip():
            raise ConfigError(f"{where}: names no program")
        if len(task.command) > MAX_WORDS or any(len(word) > MAX_WORD or "\0" in word for word in task.command):
            raise ConfigError(f"{where}: at most {MAX_WORDS} words of {MAX_WORD} characters, without NUL")
        if not 1.0 <= task.limit_s <= MAX_LIMIT_S:
            raise ConfigError(f"{where}: a time limit is 1 s to {MAX_LIMIT_S / 3600:g} h, not {task.limit_s:g} s")
        if is_image and not task.is_of_machine:
            raise ConfigError(
                f"{where}: the payload is a container image, and a task can't run in it; name a program of the machine"
                " by its absolute path"
            )
    return checked


def task_of(text: str) -> TaskSpec:
    """Read ``KIND=COMMAND`` or ``KIND:NAME=COMMAND``.

    Raises:
        ConfigError: it is something else.
    """
    head, equals, command = text.partition("=")
    kind, _, name = head.partition(":")
    known: TaskKind | None = next((one for one in KINDS if one == kind), None)
    if not equals or known is None:
        raise ConfigError(f"task {text!r}: write KIND=COMMAND or KIND:NAME=COMMAND with a kind of {', '.join(KINDS)}")
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigError(f"task {text!r}: {error}") from error
    return TaskSpec(name=name or kind, kind=known, command=words)
