"""The runtime ``command``: the operator's own programs prepare, start, find and stop the versions."""

import difflib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields

from outrider.config.drivers import Problem
from outrider.config.sections import Settings, setting
from outrider.runtimes import Runtime
from outrider.runtimes.drivers import RuntimeContext


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSettings:
    """[command]: runs versions with the operator's own programs, when instance.runtime is command."""

    prepare: tuple[str, ...] = setting(
        (), "Program and arguments that do ahead of the turn what takes long: pull, unpack. Default: nothing is done."
    )
    check: tuple[str, ...] = setting(
        (),
        "Program and arguments that look whether this version can start now: before the turn, and again in it. "
        "Default: it always can.",
    )
    start: tuple[str, ...] = setting((), "Program and arguments that start a version and then end. Needed.")
    find: tuple[str, ...] = setting(
        (), "Program and arguments that exit with 0 when the version runs, and with 1 or 3 when it does not. Needed."
    )
    stop: tuple[str, ...] = setting((), "Program and arguments that end a version. Needed.")
    prepare_timeout_s: float = setting(300.0, "Longest time for prepare.", above=0)
    check_timeout_s: float = setting(30.0, "Longest time for check.", above=0)
    find_timeout_s: float = setting(10.0, "Longest time for find.", above=0)
    find_interval_s: float = setting(2.0, "Time from one look to the next whether the version still runs.", above=0)


SETTINGS = CommandSettings
PLACEHOLDERS = ("version", "host", "port", "workload", "payload")
_EXAMPLES = {
    "start": '["/usr/local/bin/example-update", "start"]',
    "find": '["/usr/local/bin/example-update", "find"]',
    "stop": '["/usr/local/bin/example-update", "stop"]',
}


def problems(settings: Settings) -> tuple[Problem, ...]:
    """The programs that there must be, and that they are on this machine."""
    return tuple(_problems(settings))


def _problems(settings: Settings) -> Iterator[Problem]:
    own = settings.of(CommandSettings)
    for name, example in _EXAMPLES.items():
        if not getattr(own, name):
            yield f"command.{name}", f"missing; for example {example}"
    for each in fields(own):
        words = getattr(own, each.name)
        if isinstance(words, tuple) and words:
            yield from _program_problems(f"command.{each.name}", words)
    limit_s = settings.download.verify_timeout_s
    if own.prepare_timeout_s + own.check_timeout_s > limit_s:
        yield (
            "command.prepare_timeout_s",
            f"with command.check_timeout_s it is longer than download.verify_timeout_s ({limit_s:g}); raise that one",
        )


def _program_problems(key: str, words: tuple[str, ...]) -> Iterator[Problem]:
    program = words[0]
    if not program:
        yield key, "the program's name is empty"
    elif "/" in program and not program.startswith("/"):
        yield key, f"{program!r} is relative; write the whole path, beginning with /"
    elif shutil.which(program) is None:
        what = "not executable" if os.path.isfile(program) else "no such program on this machine"
        yield key, f"{program}: {what}"
    for word in words:
        for name in re.findall(r"(?<!\$)\{([A-Za-z_]+)\}", word):
            near = difflib.get_close_matches(name.lower(), PLACEHOLDERS, n=1, cutoff=0.7)
            if name not in PLACEHOLDERS and near:
                yield key, f"{word!r}: {{{name}}} is not replaced; did you mean {{{near[0]}}}?"


def make(settings: Settings, context: RuntimeContext) -> Runtime:
    """The runtime that keeps what it knows below ``instance.state_dir``."""
    from outrider.runtimes.command.runtime import CommandRuntime

    return CommandRuntime(
        settings.of(CommandSettings),
        settings.workload,
        settings.instance,
        environment=context.environment,
        only_sidekicks=context.owns_process or context.shares_process,
    )
