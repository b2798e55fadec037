"""The runtime ``process``: runs a version as a process that is unpacked from an archive."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from outrider.config.drivers import Problem
from outrider.config.sections import Settings, setting
from outrider.runtimes import Runtime
from outrider.runtimes.drivers import RuntimeContext


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """[process]: runs a version as a process unpacked from a tar file."""

    command: tuple[str, ...] = setting(
        (),
        "Program and arguments, found in the unpacked payload first. {port}, {host} and {version} are replaced. "
        "Needed when instance.runtime is process.",
    )
    max_unpacked_bytes: int = setting(16 * 1024**3, "Largest sum of the files in a payload.", least=1)
    max_members: int = setting(200_000, "Most files, folders and links in a payload.", least=1)
    output_max_bytes: int = setting(
        16 * 1024**2, "Size at which output.log is kept as output.log.1 and begins anew; 0: never.", least=0
    )


SETTINGS = ProcessSettings
PLACEHOLDERS = ("port", "host", "version")


def problems(settings: Settings) -> tuple[Problem, ...]:
    """There must be a command, with placeholders that are replaced."""
    command = settings.of(ProcessSettings).command
    if not command or not command[0]:
        return (("process.command", 'missing; for example ["./server", "--port", "{port}"]'),)
    return tuple(_placeholder_problems(command))


def _placeholder_problems(command: tuple[str, ...]) -> Iterator[Problem]:
    """A slip in a placeholder, which would be handed to the app as it stands; other words in braces are the app's."""
    for word in command:
        for name in re.findall(r"(?<!\$)\{([A-Za-z_]+)\}", word):
            near = difflib.get_close_matches(name.lower(), PLACEHOLDERS, n=1, cutoff=0.7)
            if name not in PLACEHOLDERS and near:
                yield "process.command", f"{word!r}: {{{name}}} is not replaced; did you mean {{{near[0]}}}?"


def make(settings: Settings, context: RuntimeContext) -> Runtime:
    """The runtime that keeps its workloads below ``instance.state_dir``."""
    from outrider.runtimes.process.runtime import ProcessRuntime

    return ProcessRuntime(
        settings.of(ProcessSettings),
        settings.workload,
        state_dir=settings.instance.state_dir,
        instance=settings.instance.id,
        environment=context.environment,
        owns_process=context.owns_process,
        shares_process=context.shares_process,
        reserve_bytes=settings.instance.reserve_bytes,
    )
