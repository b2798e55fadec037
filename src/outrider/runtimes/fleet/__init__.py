# ruff: noqa: RUF009 - setting() makes dataclass fields, ruff only knows field() itself
"""The runtime ``fleet``: runs each version as a unit that fleet schedules, made from a template."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outrider.config.drivers import Problem
from outrider.config.sections import Settings, setting
from outrider.core.addresses import http_problem
from outrider.core.errors import ConfigError
from outrider.runtimes import Runtime
from outrider.runtimes.drivers import RuntimeContext
from outrider.runtimes.fleet.template import PLACEHOLDERS, read_template, unknown_placeholders


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """[fleet]: runs versions as fleet units, when instance.runtime is fleet."""

    url: str = setting(
        "unix:///var/run/fleet.sock",
        "Address of fleet's API: unix:// and the path of its socket, or http://HOST:PORT.",
        pattern=r"unix:///\S+|https?://[^\s/?#]+",
        wanted="unix:///PATH, or http://HOST:PORT",
        empty=False,
    )
    template: Path | None = setting(
        None,
        "Unit file with placeholders such as {version}, {port} and {image}, for the unit of each version. Needed.",
    )
    unit: str = setting(
        "",
        "Name of a version's unit, with {version} and {instance} in it. "
        "Default: the template's name, as example@{version}-{instance}.service.",
        pattern=r"[a-zA-Z0-9:_.@{}-]+\.service",
        wanted="a name such as example@{version}-{instance}.service",
    )
    machine_of: str = setting(
        "",
        "Unit whose machine the versions run on, usually the sidekick's own; written as MachineOf= into [X-Fleet]. "
        "Empty when the template says it.",
        pattern=r"[a-zA-Z0-9:_.@-]+\.[a-z]+",
        wanted="the name of a unit, such as outrider-sidekick@a.service",
    )
    timeout_s: float = setting(10.0, "Longest time for one answer of fleet's API.", above=0)
    poll_interval_s: float = setting(1.0, "Time from one look to the next at what fleet says of a unit.", above=0)
    max_unpacked_bytes: int = setting(16 * 1024**3, "Largest sum of the files in a payload.", least=1)
    max_members: int = setting(200_000, "Most files, folders and links in a payload.", least=1)


SETTINGS = FleetSettings


def problems(settings: Settings) -> tuple[Problem, ...]:
    """There must be a template, with placeholders that are replaced, and names that tell versions apart."""
    return tuple(_problems(settings))


def _problems(settings: Settings) -> Iterator[Problem]:
    own = settings.of(FleetSettings)
    if own.url.startswith("http") and (problem := http_problem(own.url)):
        yield "fleet.url", f"{own.url!r}: {problem}"
    if own.template is None:
        yield "fleet.template", "missing; name a unit file such as /etc/outrider/example@.service"
        return
    try:
        template = read_template(own.template)
    except ConfigError as error:
        yield "fleet.template", str(error)
        return
    for word in unknown_placeholders(own.template.read_text()):
        yield "fleet.template", f"{own.template}: {{{word}}} is not replaced; known: {', '.join(sorted(PLACEHOLDERS))}"
    if not any(each.section == "Service" and each.name == "ExecStart" for each in template):
        yield "fleet.template", f"{own.template}: has no ExecStart= in [Service]"
    if any(each.section == "Install" for each in template):
        yield "fleet.template", f"{own.template}: has [Install]; fleet enables such units instead of running them"
    if any(each.section == "X-Fleet" and each.name == "Global" for each in template):
        yield "fleet.template", f"{own.template}: has Global=; a version runs on the sidekick's machine alone"
    follows = [each for each in template if each.name in ("MachineOf", "X-ConditionMachineOf", "MachineID")]
    if own.machine_of and follows:
        yield "fleet.machine_of", f"{own.template} has {follows[0].name}= too; keep one of them"
    if not own.machine_of and not follows:
        yield (
            "fleet.machine_of",
            "missing; the versions must run on the sidekick's machine: name the sidekick's unit here, such as "
            f"outrider-sidekick@{settings.instance.id}.service",
        )
    for name in re.findall(r"\{(\w+)\}", own.unit):
        if name not in ("version", "instance"):
            yield "fleet.unit", f"{own.unit!r}: {{{name}}} is not replaced; known: instance, version"
    if own.unit and settings.instance.strategy == "start-first" and "{version}" not in own.unit:
        yield (
            "fleet.unit",
            f"start-first runs two versions at once, and {own.unit} is one unit; put {{version}} into its name, or set "
            "instance.strategy to stop-first",
        )


def make(settings: Settings, context: RuntimeContext) -> Runtime:
    """The runtime that keeps what it knows below ``instance.state_dir``."""
    from outrider.runtimes.fleet.runtime import FleetRuntime

    return FleetRuntime(settings.of(FleetSettings), settings.workload, settings.instance)
