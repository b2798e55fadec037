"""The runtime ``systemd``: runs each version as a unit of its own."""

import difflib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from outrider.config.drivers import Problem
from outrider.config.sections import Settings, computed, setting
from outrider.runtimes import Runtime
from outrider.runtimes.drivers import RuntimeContext
from outrider.runtimes.systemd.properties import property_problems


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemdSettings:
    """[systemd]: runs versions as systemd units, when instance.runtime is systemd."""

    command: tuple[str, ...] = setting(
        (),
        "Program and arguments, found in the unpacked payload first. {port}, {host} and {version} are replaced. "
        "Needed unless systemd.unit is set.",
    )
    unit: str = setting(
        "",
        "Your own unit instead of one that outrider makes: a template such as example@.service, or a single unit for "
        "stop-first.",
        pattern=r"[A-Za-z0-9:_.\\-]+@?\.service",
        wanted="the name of a service, such as example@.service",
    )
    user: str = setting(
        "",
        "User that the app runs as. Default: one that exists only while the app runs, the same for all its versions.",
        pattern=r"[a-z_][a-z0-9_-]{0,30}",
        wanted="the name of a user",
    )
    sandbox: bool = setting(
        True, "Whether the app sees a read-only system, no home folders and no devices, and has no capability."
    )
    slice: str = setting(
        "outrider.slice",
        "Slice that the apps' units are in, for limits on all of them together.",
        pattern=r"[A-Za-z0-9:_.\\-]+\.slice",
        wanted="the name of a slice, such as outrider.slice",
        empty=False,
    )
    memory_max_bytes: int = setting(0, "Memory at which a version is killed; 0: no limit of its own.", least=0)
    tasks_max: int = setting(0, "Most processes and threads of a version; 0: systemd's default.", least=0)
    cpu_quota_percent: int = setting(
        0, "Most processor time of a version, 100 for one whole processor; 0: no limit of its own.", least=0
    )
    properties: Mapping[str, str] = computed(
        dict,
        "More directives for the unit, each a text as in a unit file. They override those of the sandbox.",
    )
    max_unpacked_bytes: int = setting(16 * 1024**3, "Largest sum of the files in a payload.", least=1)
    max_members: int = setting(200_000, "Most files, folders and links in a payload.", least=1)
    poll_interval_s: float = setting(1.0, "Time from one look to the next whether a version still runs.", above=0)

    @property
    def is_template(self) -> bool:
        """Whether ``unit`` can run two versions at once."""
        return self.unit.endswith("@.service")


SETTINGS = SystemdSettings
PLACEHOLDERS = ("port", "host", "version")
_WITH_OWN_UNIT = ("command", "user", "memory_max_bytes", "tasks_max", "cpu_quota_percent", "properties")


def problems(settings: Settings) -> tuple[Problem, ...]:
    """There must be a command or a unit, directives that are known, and the library."""
    return tuple(_problems(settings))


def _problems(settings: Settings) -> Iterator[Problem]:
    own = settings.of(SystemdSettings)
    if importlib.util.find_spec("jeepney") is None:
        yield "instance.runtime", "systemd needs the package jeepney: pip install 'outrider[systemd]'"
    if not own.unit and not (own.command and own.command[0]):
        yield "systemd.command", 'missing; for example ["./server", "--port", "{port}"]; or set systemd.unit'
    if own.unit:
        defaults = SystemdSettings()
        for name in _WITH_OWN_UNIT:
            if getattr(own, name) != getattr(defaults, name):
                yield f"systemd.{name}", f"has no effect, for {own.unit} says it; remove this, or systemd.unit"
        if not own.is_template and settings.instance.strategy == "start-first":
            yield (
                "systemd.unit",
                f"start-first runs two versions at once, and {own.unit} is one unit; name a template such as "
                f"{own.unit.removesuffix('.service')}@.service, or set instance.strategy to stop-first",
            )
    for word in own.command:
        for name in re.findall(r"(?<!\$)\{([A-Za-z_]+)\}", word):
            near = difflib.get_close_matches(name.lower(), PLACEHOLDERS, n=1, cutoff=0.7)
            if name not in PLACEHOLDERS and near:
                yield "systemd.command", f"{word!r}: {{{name}}} is not replaced; did you mean {{{near[0]}}}?"
    for problem in property_problems(own.properties):
        yield "systemd.properties", problem


def make(settings: Settings, context: RuntimeContext) -> Runtime:
    """The runtime that keeps what it knows below ``instance.state_dir``."""
    from outrider.runtimes.systemd.runtime import SystemdRuntime

    return SystemdRuntime(settings.of(SystemdSettings), settings.workload, settings.instance)
