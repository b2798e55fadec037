"""``outrider units`` and ``outrider install-units``: what they write, and what they leave alone."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from outrider.cli import main
from tests.support.requirements import skip_or_fail

UNITS = Path(__file__).parents[2] / "units"
CONFIG = """
[instance]
app = "example"
group = "production"
balancer = "none"
"""


def run(*words: object) -> Result:
    return CliRunner().invoke(main, list(map(str, words)))


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_all_units_with_drop_ins_and_users_are_written_below_a_root(tmp_path: Path) -> None:
    done = run("install-units", "--root", tmp_path, "--program", "/srv/outrider/bin/outrider")

    assert 0 == done.exit_code, done.output
    system = "etc/systemd/system"
    assert {
        "etc/sysusers.d/outrider.conf",
        f"{system}/outrider-serve.service",
        f"{system}/outrider-sidekick@.service",
        f"{system}/outrider-sidekicks.service",
        f"{system}/outrider-apps@.service",
        f"{system}/outrider-shutdown@.service",
        f"{system}/outrider-balancer-agent@.service",
        f"{system}/outrider-balancer-agent@haproxy.service.d/product.conf",
        f"{system}/outrider-balancer-agent@nginx.service.d/product.conf",
        f"{system}/outrider-balancer-agent@envoy.service.d/product.conf",
    } == written(tmp_path)
    text = (tmp_path / system / "outrider-serve.service").read_text()
    assert "\nExecStart=/srv/outrider/bin/outrider serve " in text
    assert "/opt/outrider" not in text
    assert text.startswith("# written by outrider ")


def test_what_asks_for_more_is_written_when_asked_for(tmp_path: Path) -> None:
    done = run("install-units", "--root", tmp_path, "--app-elsewhere", "--polkit")

    assert 0 == done.exit_code, done.output
    assert {
        "etc/systemd/system/outrider-sidekick@.service.d/app-elsewhere.conf",
        "etc/systemd/system/outrider-sidekicks.service.d/app-elsewhere.conf",
        "etc/polkit-1/rules.d/50-outrider.rules",
    } <= written(tmp_path)
    rules = (tmp_path / "etc/polkit-1/rules.d/50-outrider.rules").read_text()
    assert rules.startswith("// written by outrider "), "polkit reads JavaScript"


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = run("install-units", "--root", tmp_path, "--dry-run")

    assert 0 == done.exit_code
    assert f"{tmp_path}/etc/systemd/system/outrider-serve.service would be written" in done.output
    assert [] == list(tmp_path.iterdir())


def test_only_units_go_to_a_folder_that_is_named(tmp_path: Path) -> None:
    done = run("install-units", "--dir", tmp_path)

    assert 0 == done.exit_code
    assert written(tmp_path)
    assert all(".service" in name for name in written(tmp_path))
    assert 2 == run("install-units", "--dir", tmp_path, "--polkit").exit_code


def test_a_second_time_changes_nothing_and_another_program_replaces(tmp_path: Path) -> None:
    run("install-units", "--root", tmp_path)

    again, other = (run("install-units", "--root", tmp_path, "--program", p) for p in ("/opt/a", "/opt/a"))

    assert "outrider-serve.service replaced" in again.output
    assert "sysusers.d/outrider.conf unchanged" in again.output
    assert "replaced" not in other.output + other.output.replace("unchanged", "")


def test_a_unit_that_somebody_changed_stays_and_stops_the_rest_until_forced(tmp_path: Path) -> None:
    run("install-units", "--root", tmp_path)
    unit = tmp_path / "etc/systemd/system/outrider-serve.service"
    unit.write_text(unit.read_text() + "Nice=5\n")
    other = unit.with_name("outrider-sidekicks.service")
    other.unlink()

    refused = run("install-units", "--root", tmp_path)

    assert 1 == refused.exit_code
    assert f"Error: {unit}: changed by somebody" in refused.stderr
    assert 1 == len(refused.stderr.splitlines())
    assert unit.read_text().endswith("Nice=5\n")
    assert not other.exists()
    assert 0 == run("install-units", "--root", tmp_path, "--force").exit_code
    assert not unit.read_text().endswith("Nice=5\n")
    assert other.exists()


def test_a_folder_that_cant_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file")

    refused = run("install-units", "--root", tmp_path)

    assert 1 == refused.exit_code
    assert f"{tmp_path}/etc/" in refused.stderr
    assert 1 == len(refused.stderr.splitlines())


@pytest.mark.parametrize("program", ["outrider", "/opt/my programs/outrider"])
def test_a_program_that_systemd_could_not_start_is_refused(tmp_path: Path, program: str) -> None:
    assert "absolute path without blanks" in run("install-units", "--root", tmp_path, "--program", program).stderr


def test_units_are_listed_and_shown() -> None:
    assert sorted(path.name for path in UNITS.glob("*.service")) == run("units", "list").output.split()

    shown = run("units", "show", "outrider-serve.service", "--program", "/opt/outrider/bin/outrider")

    assert (UNITS / "outrider-serve.service").read_text() == shown.output
    unknown = run("units", "show", "outrider.service")
    assert "no unit 'outrider.service'; known: example@.service, " in unknown.stderr


def rendered(tmp_path: Path, more: str = "", *words: str) -> dict[str, dict[str, str]]:
    """Unit -> its ``[Service]`` and other keys, as systemd reads them, the last of each."""
    config = tmp_path / "web-a.toml"
    config.write_text(CONFIG + more + ("" if "[" in more else '[process]\ncommand = ["bin/x"]\n'))
    folder = tmp_path / "units"
    folder.mkdir()
    done = run("units", "render", "--config", config, "--dir", folder, "--program", "/bin/true", *words)
    assert 0 == done.exit_code, done.output
    found = {}
    for path in sorted(folder.iterdir()):
        parser = configparser.RawConfigParser(strict=False)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read_string(path.read_text())
        found[path.name] = {key: value for section in parser.sections() for key, value in parser.items(section)}
        assert "%i" not in path.read_text()
    return found


def test_a_rendered_unit_names_instance_file_and_folder(tmp_path: Path) -> None:
    units = rendered(tmp_path)

    assert ["outrider-apps-web-a.service", "outrider-sidekick-web-a.service"] == list(units)
    keys = units["outrider-sidekick-web-a.service"]
    assert "network-online.target outrider-apps-web-a.service" == keys["Wants"]
    assert "outrider-sidekick-web-a.service" == units["outrider-apps-web-a.service"]["MachineOf"]
    assert f"/bin/true sidekick run --config {tmp_path}/web-a.toml" == keys["ExecStart"]
    assert "outrider/web-a" == keys["StateDirectory"]
    assert "OUTRIDER_INSTANCE_ID=web-a OUTRIDER_INSTANCE_STATE_DIR=/var/lib/outrider/web-a" == keys["Environment"]
    assert "yes" == keys["Delegate"]
    assert "PrivateTmp" not in keys


def test_a_folder_elsewhere_may_be_written(tmp_path: Path) -> None:
    keys = rendered(tmp_path, 'state_dir = "/srv/web-a"\n')["outrider-sidekick-web-a.service"]

    assert "/srv/web-a" == keys["ReadWritePaths"]
    assert not {"StateDirectory", "StateDirectoryMode"} & keys.keys()


def test_a_runtime_elsewhere_confines_more(tmp_path: Path) -> None:
    (keys,) = rendered(tmp_path, 'runtime = "systemd"\n[systemd]\ncommand = ["bin/x"]\n').values()

    assert ("no", "yes", "0077") == (keys["Delegate"], keys["PrivateTmp"], keys["UMask"])
    assert "network-online.target" == keys["Wants"]


def test_the_drain_at_shutdown_gets_the_time_that_it_may_take(tmp_path: Path) -> None:
    more = "drain_at_shutdown = true\nshutdown_wait_s = 500.0\n"

    keys = rendered(tmp_path, more)["outrider-shutdown-web-a.service"]

    assert int(keys["TimeoutStopSec"]) > 500
    text = (tmp_path / "units/outrider-shutdown-web-a.service").read_text()
    ends_later = {word for line in text.splitlines() if line.startswith("After=") for word in line[6:].split()}
    assert {"outrider-sidekick-web-a.service", "outrider-apps-web-a.service"} <= ends_later


def test_for_fleet_the_sidekick_follows_the_app(tmp_path: Path) -> None:
    keys = rendered(tmp_path, "", "--machine-of", "example@a.service")["outrider-sidekick-web-a.service"]

    assert "example@a.service" == keys["MachineOf"]
    assert "Conflicts" not in keys


@pytest.mark.parametrize("runtime", ["process", "systemd"])
def test_systemd_takes_what_was_rendered(tmp_path: Path, runtime: str) -> None:
    if shutil.which("systemd-analyze") is None:
        skip_or_fail("systemd-analyze is not installed")
    rendered(tmp_path, f'drain_at_shutdown = true\nruntime = "{runtime}"\n[{runtime}]\ncommand = ["bin/x"]\n')
    paths = sorted(map(str, (tmp_path / "units").iterdir()))

    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, timeout=60, check=False
    )

    assert (3 if runtime == "process" else 2) == len(paths)
    assert [] == re.findall(r"^.*web-a.*$", said.stderr, re.MULTILINE)
    assert 0 == said.returncode, said.stderr


def test_a_broken_configuration_is_refused_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "web-a.toml"
    config.write_text(CONFIG + "runtimes = 1\n")

    refused = run("units", "render", "--config", config)

    assert 1 == refused.exit_code
    assert "web-a.toml: instance.runtimes: unknown" in refused.stderr
