"""Unit files for a machine: those that come along, with another program's path, or filled in for one instance."""

import hashlib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from outrider import __version__
from outrider.config.sections import Settings
from outrider.core.errors import ConfigError
from outrider.shipped import shipped

PROGRAM = "/opt/outrider/bin/outrider"
"""Where the shipped units look for the program."""
UNITS, USERS, RULES = "etc/systemd/system", "etc/sysusers.d/outrider.conf", "etc/polkit-1/rules.d/50-outrider.rules"
"""Where things go, below the root of a machine."""
ELSEWHERE = "app-elsewhere.conf"
"""The drop-in for runtimes whose app doesn't run in the sidekick's unit."""
_SIDEKICK = "outrider-sidekick@.service"
_APPS_UNIT = ("Environment=OUTRIDER_WORKLOAD_UNIT=", "# systemctl kill ")
APP_ELSEWHERE = frozenset({"systemd", "docker", "fleet"})

WITH_PACKAGES = frozenset({"outrider-updater.service"})
"""Units that only serve an outrider that a package of the system has installed."""

_MARK = re.compile(r"\A(?:#|//) written by outrider (\S+), sha256 ([0-9a-f]{64})[^\n]*\n")
_SPARE_S = 45  # beyond what draining may take: for etcd, and for the end of the sidekick


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file for a machine.

    Attributes:
        path: Below the machine's root, as ``etc/systemd/system/outrider-serve.service``.
        text: Its content, without our mark.
    """

    path: str
    text: str

    @property
    def marked(self) -> str:
        """The text below a line that tells whether somebody has changed it since."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        comment = "//" if self.path.endswith(".rules") else "#"
        mark = f"{comment} written by outrider {__version__}, sha256 {digest}; your own changes: systemctl edit"
        return f"{mark}\n{self.text}"


def is_ours(text: str) -> bool:
    """Whether we wrote this and nobody has changed it since."""
    found = _MARK.match(text)
    return found is not None and hashlib.sha256(text[found.end() :].encode()).hexdigest() == found[2]


def unit_names() -> list[str]:
    """The units that come along."""
    return sorted(path.name for path in shipped("units").glob("*.service"))


def unit_text(name: str, program: str = PROGRAM) -> str:
    """One unit as it is shipped, with another program.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in unit_names():
        raise ConfigError(f"no unit {name!r}; known: {', '.join(unit_names())}")
    return _with_program((shipped("units") / name).read_text(encoding="utf-8"), program)


def machine_files(*, program: str, app_elsewhere: bool, polkit: bool) -> list[File]:
    """All that a machine gets: the units with their drop-ins, the users, and where asked the rule of polkit.

    Args:
        app_elsewhere: Confine sidekicks more, whose app does not run in their unit.
        polkit: Let sidekicks start the units of the runtime ``systemd``.
    """
    folder, found = shipped("units"), []
    for name in unit_names():
        if name.startswith("outrider-") and name not in WITH_PACKAGES:  # example@.service is to be copied
            found.append(File(path=f"{UNITS}/{name}", text=unit_text(name, program)))
    for path in sorted(folder.glob("*.service.d/*.conf")):
        if path.name != ELSEWHERE or app_elsewhere:
            text = path.read_text(encoding="utf-8")
            found.append(File(path=f"{UNITS}/{path.parent.name}/{path.name}", text=text))
    found.append(File(path=USERS, text=(folder / "outrider.sysusers.conf").read_text(encoding="utf-8")))
    if polkit:
        found.append(File(path=RULES, text=(folder / "outrider.rules").read_text(encoding="utf-8")))
    return found


def instance_units(settings: Settings, config: Path, *, program: str, machine_of: str = "") -> Mapping[str, str]:
    """The units of one instance, with all that its configuration says: plain names, no ``%i``, no drop-in needed.

    Args:
        config: The instance's file, an absolute path.
        machine_of: For fleet: the app's unit whose machine the sidekick follows.

    Returns:
        File name -> text: the sidekick, what holds its apps unless they run elsewhere, and the drain at shutdown when
        ``instance.drain_at_shutdown`` is set.
    """
    name, folder = settings.instance.id, settings.instance.state_dir
    unit, apps = f"outrider-sidekick-{name}.service", f"outrider-apps-{name}.service"
    template = f"outrider-apps@{name}.service"
    lines = [line.replace(template, apps) for line in _rendered(_SIDEKICK, name, config, folder, program)]
    if settings.instance.runtime in APP_ELSEWHERE:
        lines = [line.replace(f" {apps}", "") for line in lines if not line.startswith(_APPS_UNIT)]
        text = (shipped("units") / "outrider-sidekick@.service.d" / ELSEWHERE).read_text(encoding="utf-8")
        more = [line for line in text.splitlines() if line and not line.startswith(("#", "["))]
        lines = _without(lines, {line.partition("=")[0] for line in more if not line.startswith("SystemCallFilter=~")})
        end = lines.index("[X-Fleet]")
        lines[end:end] = [f"# the app runs elsewhere (instance.runtime = {settings.instance.runtime})", *more, ""]
    if machine_of:
        start = lines.index("[X-Fleet]") + 1
        lines[start:] = [f"MachineOf={machine_of}"]
    found = {unit: "\n".join(lines) + "\n"}
    if settings.instance.runtime not in APP_ELSEWHERE:
        text = "\n".join(_rendered("outrider-apps@.service", name, config, folder, program)) + "\n"
        found[apps] = text.replace(f"outrider-sidekick@{name}.service", unit)
    if settings.instance.drain_at_shutdown:
        needs_s = settings.instance.shutdown_wait_s + settings.drain.max_s + settings.drain.confirm_timeout_s + _SPARE_S
        text = "\n".join(_rendered("outrider-shutdown@.service", name, config, folder, program)) + "\n"
        text = text.replace(f"outrider-sidekick@{name}.service", unit).replace(template, apps)
        found[f"outrider-shutdown-{name}.service"] = re.sub(
            "(?m)^TimeoutStopSec=.*$", f"TimeoutStopSec={needs_s:.0f}", text
        )
    return found


def _rendered(unit: str, name: str, config: Path, folder: Path, program: str) -> Iterator[str]:
    """The lines of a template for one instance."""
    text = unit_text(unit, program)
    text = text.replace("/etc/outrider/instances/%i.toml", str(config)).replace("/var/lib/outrider/%i", str(folder))
    text = re.sub(r"\A(#.*\n)+", f"# The instance {name}, of {config}. Made by `outrider units render`.\n", text)
    for line in text.splitlines():
        if line.startswith("StateDirectory="):
            root = Path("/var/lib")
            if folder.is_relative_to(root):
                yield f"StateDirectory={folder.relative_to(root)}"
            else:
                yield f"ReadWritePaths={folder}"
        elif not line.startswith("StateDirectoryMode=") or folder.is_relative_to("/var/lib"):
            yield line.replace("%i", name)


def _without(lines: list[str], keys: set[str]) -> list[str]:
    return [line for line in lines if line.partition("=")[0] not in keys]


def _with_program(text: str, program: str) -> str:
    quoted = shlex.quote(program).replace("%", "%%")
    return re.sub(rf"(?m)^(Exec\w+=){re.escape(PROGRAM)} ", lambda found: f"{found[1]}{quoted} ", text)
