"""Settings: what is right arrives in its type and with its origin, secrets stay secret, and the page keeps step."""

import dataclasses
import importlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from outrider.balancers.drivers import BALANCERS
from outrider.cli import main
from outrider.cli.main import COMMANDS
from outrider.config.load import SECTIONS, Loaded, _obey, all_fields, drop_ins, load_settings
from outrider.config.sections import Rule, Secret, Settings, port_range, unit_of
from outrider.core.errors import ConfigError
from outrider.runtimes.drivers import RUNTIMES
from outrider.sidekick.assemble import contender

# By name: mypy knows the tools as modules of their own, pytest finds them in their folder.
settings_doc = importlib.import_module("tools.settings_doc")

BASE = """
[instance]
id = "web1"
app = "shop"
group = "production"
state_dir = "/var/lib/outrider/web1"
[process]
command = ["./server", "{port}"]
[balancer]
service = "shop"
"""


def write(folder: Path, text: str, name: str = "90-site.toml") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def load(folder: Path, text: str = "", environment: dict[str, str] | None = None) -> Loaded:
    """Settings from the smallest file that works and one more."""
    files = (write(folder, BASE, "10-base.toml"), write(folder, text))
    return load_settings(files, environment)


# What arrives


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    loaded = load(tmp_path)

    assert 30.0 == loaded.settings.lock.ttl_s
    assert 4 * 1024**3 == loaded.settings.download.max_bytes
    assert "default" == loaded.origin["lock.ttl_s"]


def test_what_is_said_arrives_with_the_file_it_came_from(tmp_path: Path) -> None:
    loaded = load(
        tmp_path, "[lock]\nttl_s = 20\n[workload]\nenv = {COLOUR = 'blue'}\n[etcd]\nendpoints = ['a:1', 'b:2']"
    )

    assert (20.0, float) == (loaded.settings.lock.ttl_s, type(loaded.settings.lock.ttl_s))
    assert {"COLOUR": "blue"} == loaded.settings.workload.env
    assert ("a:1", "b:2") == loaded.settings.etcd.endpoints
    assert str(tmp_path / "90-site.toml") == loaded.origin["lock.ttl_s"]
    assert str(tmp_path / "10-base.toml") == loaded.origin["process.command"], "another key of the same section stays"


def test_every_setting_has_an_origin(tmp_path: Path) -> None:
    assert {f"{section}.{name}" for section, name, _, _ in all_fields()} == load(tmp_path).origin.keys()


def test_names_that_follow_from_others_are_filled_in(tmp_path: Path) -> None:
    loaded = load(tmp_path)

    assert "web1" == loaded.settings.balancer.server_id
    assert () == loaded.warnings


def test_turns_are_those_of_the_group_unless_a_scope_is_named(tmp_path: Path) -> None:
    assert "turns/shop/production" == contender(load(tmp_path).settings).scope
    assert "shared-turns/mine" == contender(load(tmp_path, "[lock]\nscope = 'mine'").settings).scope


def test_names_of_any_length_have_turns(tmp_path: Path) -> None:
    app, group = "a" * 128, "g" * 128
    settings = load(tmp_path, f"[instance]\napp = '{app}'\ngroup = '{group}'").settings

    assert f"turns/{app}/{group}" == contender(settings).scope


def test_the_case_of_an_apps_uuid_makes_no_other_scope(tmp_path: Path) -> None:
    uuid = "E96281A6-d1af-4bde-9a0a-97b76e56dc57"
    settings = [load(tmp_path, f"[instance]\napp = '{each}'").settings for each in (uuid, uuid.lower())]

    one, other = (contender(each) for each in settings)

    assert (f"turns/{uuid.lower()}/production", uuid.lower()) == (one.scope, one.app)
    assert (one.scope, one.app) == (other.scope, other.app)


def test_the_instance_is_called_like_its_host_unless_that_is_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, BASE.replace('id = "web1"', ""))
    monkeypatch.setattr(socket, "gethostname", lambda: "Web7.Example")
    assert "web7.example" == load_settings((path,)).settings.instance.id

    monkeypatch.setattr(socket, "gethostname", lambda: "web_ä")
    with pytest.raises(ConfigError, match=r"^instance\.id: the host name 'web_ä' can't be used; set it: 1 to 63"):
        load_settings((path,))


def test_drop_ins_are_sorted_by_name_across_folders_and_a_later_folder_hides_the_same_name(tmp_path: Path) -> None:
    vendor, site, run = folders = tuple(tmp_path / name for name in ("usr", "etc", "run"))
    write(vendor, BASE + "[soak]\nduration_s = 1", "50-app.toml")
    write(vendor, "[lock]\nslots = 9\n[drain]\nwait_s = 9", "60-vendor.toml")
    write(site, "[soak]\nduration_s = 2\n[lock]\nttl_s = 8", "40-site.toml")
    write(site, "", "60-vendor.toml")
    write(run, "[soak]\nduration_s = 3", "55-run.toml")
    write(run, "nonsense", "99-not-toml.txt")

    loaded = load_settings(folders=folders)

    assert ["40-site.toml", "50-app.toml", "55-run.toml", "60-vendor.toml"] == [path.name for path in drop_ins(folders)]
    assert 3.0 == loaded.settings.soak.duration_s
    assert (8.0, 1, 5.0) == (loaded.settings.lock.ttl_s, loaded.settings.lock.slots, loaded.settings.drain.wait_s)


def test_a_link_to_dev_null_masks_the_vendors_file(tmp_path: Path) -> None:
    write(tmp_path / "usr", BASE, "10-base.toml")
    write(tmp_path / "usr", "[lock]\nslots = 9", "20-vendor.toml")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "20-vendor.toml").symlink_to("/dev/null")

    assert 1 == load_settings(folders=(tmp_path / "usr", tmp_path / "etc")).settings.lock.slots


def test_given_files_replace_the_folders(tmp_path: Path) -> None:
    write(tmp_path / "etc", "[lock]\nslots = 9")

    assert 1 == load_settings((write(tmp_path, BASE),), folders=(tmp_path / "etc",)).settings.lock.slots


def test_the_environment_wins_over_files_and_flags_win_over_both(tmp_path: Path) -> None:
    files = (write(tmp_path, BASE + "[lock]\nslots = 2\nttl_s = 10"),)
    environment = {"OUTRIDER_LOCK_SLOTS": "3", "OUTRIDER_LOCK_TTL_S": "11", "HOME": "/root"}

    loaded = load_settings(files, environment, {"lock.slots": 4, "lock.ttl_s": None})

    assert (4, "flag lock.slots") == (loaded.settings.lock.slots, loaded.origin["lock.slots"])
    assert (11.0, "OUTRIDER_LOCK_TTL_S") == (loaded.settings.lock.ttl_s, loaded.origin["lock.ttl_s"])


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("OUTRIDER_INSTANCE_ALLOW_DOWNGRADE", "false", "instance.allow_downgrade", False),
        ("OUTRIDER_ETCD_ENDPOINTS", "a:1, b:2", "etcd.endpoints", ("a:1", "b:2")),
        ("OUTRIDER_PROCESS_COMMAND", '["sh", "-c", "a, b"]', "process.command", ("sh", "-c", "a, b")),
        ("OUTRIDER_WORKLOAD_ENV", '{"A": "1"}', "workload.env", {"A": "1"}),
        ("OUTRIDER_BALANCER_SERVER_ID", "web-a", "balancer.server_id", "web-a"),
        ("OUTRIDER_INSTANCE_STATE_DIR", "/srv/x", "instance.state_dir", Path("/srv/x")),
        ("OUTRIDER_INSTANCE_APP", "123", "instance.app", "123"),
        ("OUTRIDER_LOG_LEVEL", "debug", "log.level", "debug"),
        ("OUTRIDER_DOWNLOAD_MAX_BYTES", "1000", "download.max_bytes", 1000),
        ("OUTRIDER_ETCD_CA_FILE", "", "etcd.ca_file", None),
    ],
)
def test_variables_are_read_in_the_type_of_their_setting(
    tmp_path: Path, variable: str, text: str, key: str, value: object
) -> None:
    section, _, name = key.partition(".")

    assert value == getattr(load(tmp_path, "", {variable: text}).settings.section(section), name)


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    environment = {
        "OUTRIDER": "x",
        "OUTRIDER_SERVER": "http://x",
        "OUTRIDER_ETCD": "127.0.0.1:2379",
        "OUTRIDER_INSTANCE": "web1",
        "OUTRIDER_INSTANCE_DIR": "/x",
        "OUTRIDER_WORKLOAD": "x",
        "OUTRIDER_SIDEKICK_RUN_CONFIG": "x",
    }

    assert load(tmp_path) == load(tmp_path, "", environment)


def variables_of(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    """The variable that click reads for each option of a command and those below it."""
    for option in command.params:
        yield "_".join((*path, option.name or "")).upper()
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from variables_of(below, (*path, name.replace("-", "_")))


@pytest.mark.parametrize("name", sorted(set(COMMANDS) & set(SECTIONS)))
def test_the_command_lines_own_variables_are_not_taken_for_settings(tmp_path: Path, name: str) -> None:
    pytest.importorskip(f"outrider.cli.commands.{name}")
    command = main.get_command(click.Context(main), name)
    assert command is not None
    environment = dict.fromkeys(variables_of(command, ("OUTRIDER", name)), "x")

    assert environment
    assert load(tmp_path) == load(tmp_path, "", environment)


# Secrets


def test_a_password_comes_from_its_file_and_shows_itself_to_nobody(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("geheim\n")

    loaded = load(tmp_path, f"[etcd]\nuser = 'web1'\npassword_file = '{secret}'")

    assert "geheim" == loaded.settings.etcd.password.reveal()
    assert str(secret) == loaded.origin["etcd.password"]
    assert "geheim" not in f"{loaded} {loaded!r} {loaded.settings.etcd.password}"


def test_a_secret_compares_and_counts_as_set_by_its_text() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert not Secret()
    assert "***" == repr(Secret("a")) == str(Secret("a"))


# The dataclasses themselves


def test_every_section_is_frozen_and_every_setting_has_help_and_a_type_that_can_be_written() -> None:
    for section, name, each, rule in all_fields():
        assert isinstance(rule, Rule)
        assert rule.help.endswith("."), f"{section}.{name}"
        assert each.kw_only
    drivers = {name for name in RUNTIMES if RUNTIMES.load(name).SETTINGS is not None}
    drivers |= {name for name in BALANCERS if BALANCERS.load(name).SETTINGS is not None}
    assert set(SECTIONS) == {each.name for each in dataclasses.fields(Settings)} - {"drivers"} | drivers
    with pytest.raises(dataclasses.FrozenInstanceError):
        SECTIONS["lock"]().slots = 2


def test_every_default_obeys_its_own_rule() -> None:
    for section, name, each, rule in all_fields():
        if each.default is not dataclasses.MISSING and not (each.default == "" and rule.empty):
            try:
                _obey(rule, each.default)
            except ValueError as problem:
                pytest.fail(f"{section}.{name}: its default: {problem}")


def test_numbers_carry_their_unit() -> None:
    assert ("s", "bytes", "") == (unit_of("ttl_s"), unit_of("max_bytes"), unit_of("slots"))
    for section, name, each, _ in all_fields():
        plain = f"{section}.{name}" in ("analysis.ratio", "analysis.base_rate", "analysis.false_alarms")
        assert plain or unit_of(name) == "s" or not isinstance(each.default, float), f"{section}.{name}"


def test_port_ranges() -> None:
    assert (None, (80, 80), (80, 90)) == (port_range(""), port_range("80"), port_range("80-90"))
    with pytest.raises(ValueError, match="FIRST-LAST"):
        port_range("all")


# The commands and the page


def test_config_show_prints_values_units_and_origins_and_no_secret(tmp_path: Path) -> None:
    path = write(tmp_path, BASE + "[etcd]\nuser = 'x'\npassword = 'geheim'")

    shown = CliRunner().invoke(main, ["config", "show", "--config", str(path)], env={"OUTRIDER_LOCK_TTL_S": "20"})

    assert 0 == shown.exit_code, shown.output
    lines = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines()}
    assert ["20.0", "s", "OUTRIDER_LOCK_TTL_S"] == lines["lock.ttl_s"]
    assert ["1", "default"] == lines["lock.slots"]
    assert ['"***"', str(path)] == lines["etcd.password"]
    assert "geheim" not in shown.output


def test_config_show_has_the_same_facts_as_json(tmp_path: Path) -> None:
    path = write(tmp_path, BASE)

    told = json.loads(CliRunner().invoke(main, ["config", "show", "--json", "--config", str(path)]).stdout)

    assert {"value": 30.0, "unit": "s", "from": "default"} == told["lock.ttl_s"]
    assert {"value": ["./server", "{port}"], "unit": "", "from": str(path)} == told["process.command"]
    assert {f"{section}.{name}" for section, name, _, _ in all_fields()} == told.keys()


def test_config_check_says_ok_or_one_line(tmp_path: Path) -> None:
    good, bad = write(tmp_path, BASE, "good.toml"), write(tmp_path, "[lock]\nttl = 3", "bad.toml")

    right = CliRunner().invoke(main, ["config", "check", "--config", str(good)])
    wrong = CliRunner().invoke(main, ["config", "check", "--config", str(good), "--config", str(bad)])

    assert (0, "ok: web1 of shop, group production\n") == (right.exit_code, right.stdout)
    assert (1, "") == (wrong.exit_code, wrong.stdout)
    assert (
        "Error: bad.toml: lock.ttl: unknown; known: alarm_after_s, scope, slots, ttl_s (did you mean ttl_s?)\n"
        == wrong.stderr
    )


def test_the_page_of_settings_is_made_from_the_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == settings_doc.main(["--check"])
    page = tmp_path / settings_doc.PAGE
    page.parent.mkdir(parents=True)
    page.write_text((settings_doc.ROOT / settings_doc.PAGE).read_text().replace("Lease lifetime", "Something"))

    assert 1 == settings_doc.main(["--check"], tmp_path)

    assert "-| `ttl_s` | number | `30.0` | Something" in capsys.readouterr().out
    assert 0 == settings_doc.main([], tmp_path)
    assert 0 == settings_doc.main(["--check"], tmp_path)


def test_the_example_on_the_page_is_a_configuration_that_works(tmp_path: Path) -> None:
    page = (settings_doc.ROOT / settings_doc.PAGE).read_text()
    example = page.partition("```toml\n")[2].partition("```")[0]

    settings = load_settings((write(tmp_path, example),), {"OUTRIDER_INSTANCE_ID": "a"}).settings

    assert ("example", "production") == (settings.instance.app, settings.instance.group)


@pytest.fixture(autouse=True)
def no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("OUTRIDER_")]:
        monkeypatch.delenv(variable)
