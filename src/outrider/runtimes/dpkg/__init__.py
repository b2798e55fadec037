"""The runtime ``dpkg``: installs a Debian package in place of the one before, such as outrider's own.

It is how outrider updates itself: a sidekick of its own (``outrider-updater.service``), as root and stop-first, whose
app is the package. What it promises beside what every runtime promises:

- A package is installed only while no other instance of this machine is in a swap.
- The package before is kept until the new one has proved itself, and is installed again if it doesn't.
- The new one has proved itself when the sidekicks, and the other units of the package that ran before, run again: each
  sidekick has resumed its journal and written its presence.
- Until then the updater runs the code of the version before (``launcher``), so what judges is never what is judged.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outrider.config.drivers import Problem
from outrider.config.sections import Settings, setting
from outrider.runtimes import Runtime
from outrider.runtimes.drivers import RuntimeContext


@dataclass(frozen=True, slots=True, kw_only=True)
class DpkgSettings:
    """[dpkg]: installs a Debian package, by default outrider's own, when instance.runtime is dpkg."""

    package: str = setting(
        "outrider",
        "Name of the Debian package.",
        pattern=r"[a-z0-9][a-z0-9+.-]+",
        wanted="the name of a Debian package, such as outrider",
        empty=False,
    )
    instances: tuple[str, ...] = setting(
        ("/var/lib/outrider",),
        "Folders in which the instances of this machine have their state folders: nothing is installed while one of "
        "them is in a swap, and each must be back afterwards.",
    )
    units: tuple[str, ...] = setting(
        (
            "outrider-sidekick@*.service",
            "outrider-sidekicks.service",
            "outrider-balancer-agent@*.service",
            "outrider-serve.service",
        ),
        "Units, * stands for anything: those of them that ran before an installation must run after it.",
    )
    check: tuple[str, ...] = setting(
        ("/opt/outrider/bin/outrider", "config", "check", "--config", "/etc/outrider/updater.toml"),
        "Program and arguments of the new version that must exit with 0 before it counts as healthy. None: none.",
    )
    quiet_timeout_s: float = setting(
        300.0, "Longest wait, with the turn, until no instance of this machine is in a swap.", above=0
    )
    install_timeout_s: float = setting(300.0, "Longest time for dpkg.", above=0)
    look_interval_s: float = setting(
        10.0, "Time from one look to the next whether the package is still installed.", above=0
    )


SETTINGS = DpkgSettings


def problems(settings: Settings) -> tuple[Problem, ...]:
    """It has to be signed, stop-first and without a balancer, and dpkg must be here."""
    return tuple(_problems(settings))


def _problems(settings: Settings) -> Iterator[Problem]:
    own = settings.of(DpkgSettings)
    if not settings.trust.keys:
        yield "trust.keys", "missing: a package is installed as root, so its signature is needed; name public keys here"
    if settings.instance.strategy != "stop-first":
        yield "instance.strategy", "a package replaces the one before: set it to stop-first"
    if settings.instance.balancer != "none":
        yield "instance.balancer", "a package has no address: set it to none"
    if settings.probe.kind != "healthcheck":
        yield "probe.kind", "the runtime dpkg says itself whether a package is well: set it to healthcheck"
    for program in ("dpkg", "dpkg-query", "dpkg-deb"):
        if shutil.which(program) is None:
            yield "instance.runtime", f"dpkg needs {program}, which is not on this machine"
            break
    for folder in own.instances:
        if not os.path.isabs(folder):
            yield "dpkg.instances", f"{folder!r} is relative; write the whole path, beginning with /"
        elif settings.instance.state_dir.parent == Path(folder):
            yield "instance.state_dir", f"lies in {folder}, whose instances it would wait for; name a folder elsewhere"
    needed_s = own.quiet_timeout_s + own.install_timeout_s
    if settings.workload.start_timeout_s < needed_s:
        yield (
            "workload.start_timeout_s",
            f"is below dpkg.quiet_timeout_s and dpkg.install_timeout_s together ({needed_s:g}); raise it",
        )


def make(settings: Settings, context: RuntimeContext) -> Runtime:
    """The runtime that keeps what it knows below ``instance.state_dir``."""
    from outrider.runtimes.dpkg.runtime import DpkgRuntime

    return DpkgRuntime(settings.of(DpkgSettings), settings.instance, environment=context.environment)
