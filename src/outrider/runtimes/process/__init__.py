"""The runtime ``process``: runs a version as a process that is unpacked from an archive."""

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


SETTINGS = ProcessSettings


def problems(settings: Settings) -> tuple[Problem, ...]:
    """There must be a command."""
    command = settings.of(ProcessSettings).command
    if not command or not command[0]:
        return (("process.command", 'missing; for example ["./server", "--port", "{port}"]'),)
    return ()


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
    )
