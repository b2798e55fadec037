"""The systemd units name real commands and keep what the design needs of them: workloads that outlive the sidekick."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from outrider.cli import main
from outrider.config.sections import DrainSettings, InstanceSettings
from outrider.runtimes.fleet.template import read_template, unknown_placeholders
from outrider.sidekick.shutdown import MARGIN_S
from tests.support.requirements import skip_or_fail

UNITS = Path(__file__).parent.parent / "units"
SIDEKICK = UNITS / "outrider-sidekick@.service"
SIDEKICKS = UNITS / "outrider-sidekicks.service"
EXAMPLE = UNITS / "example@.service"
SERVE = UNITS / "outrider-serve.service"
APPS = UNITS / "outrider-apps@.service"
SHUTDOWN = UNITS / "outrider-shutdown@.service"
AGENT = UNITS / "outrider-balancer-agent@.service"
UPDATER = UNITS / "outrider-updater.service"
INSTALLED = "/opt/outrider/bin/outrider"
EXPOSURE = {
    "outrider-serve.service": 1.5,
    "outrider-apps@a.service": 1.5,
    "outrider-shutdown@a.service": 1.5,
    "outrider-balancer-agent@haproxy.service": 1.5,
    "outrider-balancer-agent@caddy.service": 1.5,
    "outrider-balancer-agent@envoy.service": 1.5,
    "outrider-balancer-agent@nginx.service": 1.9,  # nginx -t and a reload: units/README.md
    "outrider-sidekick@a.service": 1.5,
    "outrider-sidekicks.service": 1.5,
    "example@1.0.0-a.service": 1.5,
}
"""What systemd-analyze security may say at most, each with the drop-ins that are shipped for it."""
WITHOUT_DROP_IN = 2.5
"""A sidekick whose app runs inside its unit."""

# fleet 1.0 ignores what it doesn't know without a word (its unit-files documentation lists these)
FLEET_OPTIONS = {"MachineID", "MachineOf", "MachineMetadata", "Conflicts", "Global", "Replaces"}

Unit = dict[str, list[tuple[str, str]]]


def read_unit(path: Path) -> Unit:
    """Section -> its assignments in order; a key may come several times."""
    sections: Unit = {}
    section = ""
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            sections[section] = []
        elif line and not line.startswith(("#", ";")):
            key, equals, value = line.partition("=")
            assert equals, f"{path.name}: neither a section nor an assignment: {line}"
            sections[section].append((key, value))
    return sections


def only(unit: Unit, section: str, key: str) -> str:
    """The value of a key that must be there exactly once."""
    (value,) = (value for name, value in unit[section] if name == key)
    return value


@pytest.fixture(params=[SIDEKICK, SIDEKICKS, SERVE, SHUTDOWN, AGENT], ids=lambda path: path.name)
def unit(request: pytest.FixtureRequest) -> Unit:
    return read_unit(request.param)


def test_every_unit_file_is_looked_at_here() -> None:
    assert set(UNITS.glob("*.service")) == {SIDEKICK, SIDEKICKS, APPS, SERVE, SHUTDOWN, AGENT, UPDATER, EXAMPLE}


@pytest.mark.parametrize("path", [SIDEKICK, SIDEKICKS, UPDATER], ids=lambda path: path.name)
def test_a_restart_of_the_sidekick_leaves_the_workload_running(path: Path) -> None:
    unit = read_unit(path)

    assert only(unit, "Service", "KillMode") == "process"
    assert only(unit, "Service", "OOMPolicy") == "continue"
    assert "PrivateTmp" not in dict(unit["Service"])


@pytest.mark.parametrize(("path", "name"), [(SIDEKICK, "%i"), (SIDEKICKS, "sidekicks")], ids=["one", "all"])
def test_apps_are_moved_to_a_unit_that_is_there_before_the_sidekick_and_ends_after_it(path: Path, name: str) -> None:
    unit, apps = read_unit(path), read_unit(APPS)

    home = f"outrider-apps@{name}.service"
    assert ("Environment", f"OUTRIDER_WORKLOAD_UNIT={home}") in unit["Service"]
    for key in ("Wants", "After"):
        assert home in only(unit, "Unit", key).split()
    assert not {"Requires", "BindsTo", "PartOf", "Upholds"} & dict(unit["Unit"]).keys(), "apps outlive their sidekick"
    # what systemd needs to move a process there that isn't root's
    assert dict(unit["Service"])["User"] == dict(apps["Service"])["User"]
    assert only(apps, "Service", "Delegate") == "yes"
    assert (only(apps, "Service", "Type"), only(apps, "Service", "RemainAfterExit")) == ("oneshot", "yes")
    assert only(apps, "Service", "OOMPolicy") == "continue"
    assert only(apps, "Unit", "RefuseManualStop") == "yes"


def test_the_drain_at_shutdown_ends_before_the_sidekick_and_has_the_time_that_it_may_take() -> None:
    unit = read_unit(SHUTDOWN)
    instance, drain = InstanceSettings(app="a", group="b"), DrainSettings()

    ends_later = {"outrider-sidekick@%i.service", "outrider-sidekicks.service"}
    ends_later |= {"outrider-apps@%i.service", "outrider-apps@sidekicks.service"}
    ends_later |= {f"{name}.service" for name in ("dbus", "polkit", "docker")}
    assert ends_later <= {word for key, value in unit["Unit"] if key == "After" for word in value.split()}
    assert not {"PartOf", "BindsTo", "Requires", "ConsistsOf"} & {key for key, _ in unit["Unit"]}, "a plain restart"
    longest_s = instance.shutdown_wait_s + drain.max_s + drain.confirm_timeout_s + MARGIN_S
    assert int(only(unit, "Service", "TimeoutStopSec")) > longest_s


@pytest.mark.parametrize("path", [SIDEKICK, SIDEKICKS, UPDATER], ids=lambda path: path.name)
def test_a_hanging_sidekick_is_restarted_for_ever(path: Path) -> None:
    unit = read_unit(path)

    assert only(unit, "Service", "Type") == "notify"
    assert only(unit, "Service", "NotifyAccess") == "main"
    assert int(only(unit, "Service", "WatchdogSec")) > 0
    assert only(unit, "Service", "Restart") == "always"
    assert only(unit, "Unit", "StartLimitIntervalSec") == "0"


def test_the_unit_for_all_instances_confines_as_the_one_for_one_does() -> None:
    alone, together = (dict(read_unit(path)["Service"]) for path in (SIDEKICK, SIDEKICKS))
    differ = {"ExecStart", "ExecReload", "Environment", "StateDirectory"}

    assert differ == {key for key in alone | together if alone.get(key) != together.get(key)}
    one, all_ = (UNITS / f"{path.name}.d/app-elsewhere.conf" for path in (SIDEKICK, SIDEKICKS))
    assert one.read_text() == all_.read_text()


def test_the_example_of_an_apps_own_unit_is_a_template_that_fleets_runtime_takes() -> None:
    text = EXAMPLE.read_text()
    unit = read_unit(EXAMPLE)

    assert () == unknown_placeholders(text)
    options = {(one.section, one.name): one.value for one in read_template(EXAMPLE)}
    assert "outrider-sidekick@{instance}.service" == options["X-Fleet", "MachineOf"]
    assert "Install" not in unit
    variables = set(re.findall(r"\$\{(\w+)\}", text))
    assert {"HOST", "PORT", "OUTRIDER_IMAGE"} == variables, "what the runtime systemd writes into the file env"


def test_started_means_that_the_update_service_answers() -> None:
    unit = read_unit(SERVE)

    assert ("notify", "main") == (only(unit, "Service", "Type"), only(unit, "Service", "NotifyAccess"))


def test_what_is_started_is_a_command_with_options_that_outrider_has(unit: Unit) -> None:
    does = "ExecStop" if "ExecStop" in dict(unit["Service"]) else "ExecStart"
    program, *words = shlex.split(only(unit, "Service", does).replace("agent %i", "agent nginx"))
    assert program == INSTALLED

    command: click.Command = main
    context = click.Context(main, info_name="outrider")
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"no command {name}"
        command, context = found, click.Context(found, parent=context, info_name=name)

    _, left, _ = command.make_parser(context).parse_args(words)  # click's own UsageError names an unknown option
    assert not left


def test_fleet_reads_the_same_file(unit: Unit) -> None:
    assert {key for key, _ in unit["X-Fleet"]} <= FLEET_OPTIONS
    assert "Install" not in unit, "fleet doesn't track units with an [Install] section"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root folder with the units and their drop-ins."""
    if shutil.which("systemd-analyze") is None:
        skip_or_fail("systemd-analyze is not installed")
    folder = tmp_path / "etc/systemd/system"
    shutil.copytree(UNITS, folder)
    return tmp_path


def exposure(root: Path, unit: str) -> tuple[float, str]:
    """What systemd says about a unit, with the lines that lead there."""
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--root={root}", "--no-pager", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said.stdout)
    assert found, said.stderr
    return float(found[1]), "\n".join(line for line in said.stdout.splitlines() if line.startswith("✗"))


def test_what_a_unit_leaves_open_is_little_and_named_in_the_readme(installed: Path) -> None:
    readme = (UNITS / "README.md").read_text()
    told = {unit: exposure(installed, unit) for unit in EXPOSURE}

    assert {} == {unit: found for unit, found in told.items() if found[0] > EXPOSURE[unit]}
    assert set() == {
        name
        for _, lines in told.values()
        for name in re.findall(r"✗ ([A-Za-z/]+)=", lines)
        if not all(f"`{one}`" in readme for one in name.split("/"))
    }


def test_a_sidekick_is_confined_without_its_drop_in_too(installed: Path) -> None:
    for unit in ("outrider-sidekick@a.service", "outrider-sidekicks.service"):
        shutil.rmtree(installed / f"etc/systemd/system/{unit.replace('@a', '@')}.d")

        found, lines = exposure(installed, unit)

        assert found <= WITHOUT_DROP_IN, lines


def test_what_units_and_pages_set_for_an_agent_are_options_that_it_has() -> None:
    agent = main.get_command(click.Context(main), "balancer-agent")
    assert isinstance(agent, click.Group)
    known = set()
    for product in ("haproxy", "nginx", "caddy", "envoy"):
        command = agent.get_command(click.Context(agent), product)
        assert command is not None
        known |= {f"OUTRIDER_BALANCER_AGENT_{product}_{one.name}".upper() for one in command.params}
    pages = [AGENT, *UNITS.glob("*agent@*.d/*"), UNITS.parent / "docs/use/install.md"]

    found = {name for page in pages for name in re.findall(r"OUTRIDER_BALANCER_AGENT_\w+", page.read_text())}

    assert {"OUTRIDER_BALANCER_AGENT_HAPROXY_SERVICES"} <= found
    assert found <= known


def test_systemd_knows_every_key_and_value(tmp_path: Path, installed: Path) -> None:
    program = Path(sys.executable).with_name("outrider")
    copies = []
    for path in (SIDEKICK, SIDEKICKS, APPS, SERVE, SHUTDOWN, AGENT, EXAMPLE):
        for product in ("haproxy", "nginx", "envoy") if path == AGENT else ("a",):
            name = path.name.replace("@", f"@{product}")
            copies.append(tmp_path / name)
            # Docker's client need not be here: any program is one that systemd finds
            text = path.read_text().replace(INSTALLED, str(program)).replace("/usr/bin/docker", "/bin/true")
            copies[-1].write_text(text)
            for folder in {path.name, name}:  # drop-ins lie beside the file
                if (UNITS / f"{folder}.d").is_dir():
                    shutil.copytree(UNITS / f"{folder}.d", tmp_path / f"{folder}.d", dirs_exist_ok=True)

    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, copies)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    # it leaves with 0 after an unknown key, and it talks of other units of the machine as well
    problems = [line for line in said.stderr.splitlines() if "outrider" in line or "example" in line]
    assert problems == []
    assert said.returncode == 0, said.stderr
