"""Settings at their old places: they work, with one line that names the new place; never silently, never twice."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from outrider.cli import main
from outrider.config.load import all_fields, load_settings
from outrider.config.moved import MOVED
from outrider.core.errors import ConfigError
from tests.config.test_load import load, write
from tests.support.waiting import eventually

OLD_BASE = """
[instance]
id = "web1"
app = "shop"
group = "production"
state_dir = "/var/lib/outrider/web1"
[process]
command = ["./server", "{port}"]
host = "10.0.1.7"
ports = "8085-8086"
env = {COLOUR = "blue"}
stop_grace_s = 3
[traefik]
service = "shop"
server_id = "web-1"
"""


def test_what_has_moved_exists_where_it_is_said_to_be_and_nowhere_else() -> None:
    there = {f"{section}.{name}" for section, name, _, _ in all_fields()}

    assert set(MOVED.values()) <= there
    assert not set(MOVED) & there


def test_a_file_of_before_means_what_it_meant_with_one_line_for_each_old_place(tmp_path: Path) -> None:
    path = write(tmp_path, OLD_BASE)

    loaded = load_settings((path,))

    workload, balancer = loaded.settings.workload, loaded.settings.balancer
    assert ("10.0.1.7", "8085-8086", 3.0) == (workload.host, workload.ports, workload.stop_grace_s)
    assert {"COLOUR": "blue"} == workload.env
    assert ("shop", "web-1") == (balancer.service, balancer.server_id)
    assert str(path) == loaded.origin["workload.host"]
    assert sorted(MOVED) == sorted(line.split(": ")[1] for line in loaded.warnings)
    assert "90-site.toml: process.host: has moved; write host in [workload]" in loaded.warnings
    assert "90-site.toml: traefik.server_id: has moved; write server_id in [balancer]" in loaded.warnings


def test_variables_and_flags_of_before_work_too(tmp_path: Path) -> None:
    variable = load(tmp_path, "", {"OUTRIDER_PROCESS_STOP_GRACE_S": "4"})
    flag = load_settings((tmp_path / "10-base.toml",), {}, {"process.stop_grace_s": 5})

    assert 4.0 == variable.settings.workload.stop_grace_s
    assert (
        "OUTRIDER_PROCESS_STOP_GRACE_S: has moved; set OUTRIDER_WORKLOAD_STOP_GRACE_S instead",
    ) == variable.warnings
    assert 5.0 == flag.settings.workload.stop_grace_s
    assert ("flag process.stop_grace_s: process.stop_grace_s: has moved; write stop_grace_s in [workload]",) == (
        flag.warnings
    )


@pytest.mark.parametrize(
    ("text", "environment", "line"),
    [
        (
            "[process]\nhost = 'a'\n[workload]\nhost = 'b'",
            {},
            "90-site.toml: process.host: has moved to workload.host, which is set in 90-site.toml; keep that one",
        ),
        (
            "[traefik]\nservice = 'other'",
            {},
            "90-site.toml: traefik.service: has moved to balancer.service, which is set in 10-base.toml; keep that one",
        ),
        (
            "[workload]\nports = '80-90'",
            {"OUTRIDER_PROCESS_PORTS": "1-2"},
            "OUTRIDER_PROCESS_PORTS: process.ports: has moved to workload.ports, which is set in 90-site.toml; keep"
            " that one",
        ),
    ],
)
def test_old_and_new_place_together_are_a_mistake(
    tmp_path: Path, text: str, environment: dict[str, str], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, environment)

    assert line == str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[process]\nstop_grace_s = -1",
            "90-site.toml: workload.stop_grace_s: -1 is too small; at least 0 (written as process.stop_grace_s, its old"
            " place)",
        ),
        (
            "[process]\nports = '0'",
            "90-site.toml: workload.ports: '0': ports are 1 to 65535 (written as process.ports, its old place)",
        ),
    ],
)
def test_a_mistake_at_an_old_place_names_both(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)

    assert line == str(caught.value)


def test_the_commands_say_so_on_stderr_and_answer_as_before(tmp_path: Path) -> None:
    path = write(tmp_path, OLD_BASE)

    checked = CliRunner().invoke(main, ["config", "check", "--config", str(path)])

    assert (0, "ok: web1 of shop, group production\n") == (checked.exit_code, checked.stdout)
    assert "Warning: 90-site.toml: process.ports: has moved; write ports in [workload]\n" in checked.stderr
    assert len(MOVED) == checked.stderr.count("Warning: ")


# What has no effect


@pytest.mark.parametrize("name", ["service", "server_id"])
def test_without_a_balancer_its_names_are_not_used_and_that_is_said(tmp_path: Path, name: str) -> None:
    base = OLD_BASE.partition("[process]")[0]
    command = "[process]\ncommand = ['./server']\n"
    path = write(tmp_path, f"{base}balancer = 'none'\n{command}[balancer]\n{name} = 'x'\n")

    loaded = load_settings((path,))

    assert (f"90-site.toml: balancer.{name}: has no effect while instance.balancer is none",) == loaded.warnings
    assert name == "server_id" or not loaded.settings.balancer.server_id


def test_without_a_balancer_nothing_is_missing_and_nothing_is_said(tmp_path: Path) -> None:
    base = OLD_BASE.partition("[process]")[0]
    path = write(tmp_path, f"{base}balancer = 'none'\n[process]\ncommand = ['./server']\n[traefik]\nthrottle_s = 1\n")

    loaded = load_settings((path,))

    assert () == loaded.warnings
    assert ("", "") == (loaded.settings.balancer.service, loaded.settings.balancer.server_id)


def test_a_sidekick_logs_each_old_place_and_starts(tmp_path: Path) -> None:
    path = write(tmp_path, OLD_BASE.replace("/var/lib/outrider", str(tmp_path / "state")))
    command = [sys.executable, "-m", "outrider", "sidekick", "run", "--config", str(path)]

    def told() -> list[str]:
        lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line["setting"] for line in lines if line["message"] == "a setting should be changed"]

    log, errors = tmp_path / "log", tmp_path / "errors"
    with log.open("wb") as out, errors.open("wb") as err, subprocess.Popen(command, stdout=out, stderr=err) as sidekick:
        try:
            eventually(lambda: len(told()) == len(MOVED))
            eventually(lambda: (tmp_path / "state/web1/journal.jsonl").exists())
        finally:
            sidekick.terminate()

    assert "90-site.toml: process.host: has moved; write host in [workload]" in told()
    assert sidekick.returncode in (0, -signal.SIGTERM), errors.read_text()
    assert "Traceback" not in errors.read_text()
