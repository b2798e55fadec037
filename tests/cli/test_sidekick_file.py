"""`sidekick run --file`: settings files made of the file of `outrider apply`."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from outrider.cli import main
from outrider.cli.declared.reading import read_declaration
from outrider.cli.declared.sidekicks import write_settings
from outrider.config.folder import Folder
from outrider.core.errors import ConfigError, NotFound

EXAMPLES = Path(__file__).parents[2] / "docs" / "use" / "examples"


@pytest.mark.parametrize("name", ["quickstart.toml", "web-servers.toml", "worker.yaml", "database.toml"])
def test_the_files_are_a_folder_that_sidekicks_run(name: str, tmp_path: Path) -> None:
    folder = Folder(write_settings(EXAMPLES / name, None, 3, tmp_path), (), {})

    folder.read()

    assert {} == folder.problems
    found = [loaded.settings for loaded in folder.loaded.values()]
    group = found[0].instance.group
    assert [f"{group}-{number}" for number in (1, 2, 3)] == [one.instance.id for one in found]
    assert {"none"} == {one.instance.balancer for one in found}
    assert 3 == len({one.instance.state_dir for one in found})
    assert all(one.instance.state_dir.is_relative_to(tmp_path) for one in found)


def test_a_setting_of_every_form_arrives(tmp_path: Path) -> None:
    declared = tmp_path / "shop.yaml"
    declared.write_text(
        "apps:\n  shop:\n    channels: {stable: {}}\n    groups:\n      Web:\n        channel: stable\n"
        "        sidekick:\n          instance: {balancer: none, drain_at_shutdown: yes}\n"
        "          process: {command: [./run, '{port}']}\n"
        "          workload: {ports: 7000-7009, env: {MODE: 'a \"b\"'}, stop_grace_s: 3}\n"
    )
    declared.write_text(declared.read_text().replace("drain_at_shutdown: yes", "drain_at_shutdown: true"))

    folder = Folder(write_settings(declared, "shop/Web", 1, tmp_path / "run"), (), {})
    folder.read()

    ((path, loaded),) = folder.loaded.items()
    settings = loaded.settings
    assert "web-1.toml" == path.name
    assert (True, "Web", "7000-7009", 3.0) == (
        settings.instance.drain_at_shutdown,
        settings.instance.group,
        settings.workload.ports,
        settings.workload.stop_grace_s,
    )
    assert {"MODE": 'a "b"'} == dict(settings.workload.env)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('etcd = { user = "shop", password_file = "/nowhere/password", ca_file = "/nowhere/ca.pem" }', ""),
        ('probe = { kind = "healthcheck" }', r"shop\.toml:5: .*sidekick: probe\.kind: healthcheck needs a runtime"),
        ('instance = { id = "web-7" }', r"shop\.toml:5: .*sidekick\.instance\.id: each sidekick has its own"),
        ("probe = { interval_s = 0 }", r"shop\.toml:5: .*sidekick: probe\.interval_s: "),
    ],
)
def test_settings_are_checked_together_but_for_files_of_other_machines(
    settings: str, said: str, tmp_path: Path
) -> None:
    declared = tmp_path / "shop.toml"
    instance = "" if settings.startswith("instance") else 'instance = { balancer = "none" }'
    declared.write_text(
        '[apps.shop.channels.c]\n[apps.shop.groups.web]\nchannel = "c"\n[apps.shop.groups.web.sidekick]\n'
        f'{settings}\n{instance}\nprocess = {{ command = ["./run"] }}\n'
    )

    if not said:
        assert {"web"} == set(read_declaration(declared).apps["shop"].groups)
        return
    with pytest.raises(ConfigError, match=said):
        read_declaration(declared)


def test_what_is_no_longer_wanted_goes_and_the_rest_stays_as_it_is(tmp_path: Path) -> None:
    here = write_settings(EXAMPLES / "quickstart.toml", "hello/web", 3, tmp_path)
    before = (here / "web-1.toml").stat().st_mtime_ns

    write_settings(EXAMPLES / "quickstart.toml", "hello/web", 2, tmp_path)

    assert ["web-1.toml", "web-2.toml"] == sorted(path.name for path in here.glob("*.toml"))
    assert before == (here / "web-1.toml").stat().st_mtime_ns


def test_which_group_must_be_clear(tmp_path: Path) -> None:
    two = tmp_path / "two.toml"
    text = '[apps.a.channels.c]\n[apps.a.groups.x]\nchannel = "c"\n[apps.a.groups.y]\nchannel = "c"\n'
    two.write_text(text)

    with pytest.raises(ConfigError, match=r"two.toml has 2 groups: write which one, of a/x, a/y"):
        write_settings(two, None, 1, tmp_path)
    with pytest.raises(NotFound, match=r"two\.toml has no group 'a/z'; its groups: a/x, a/y"):
        write_settings(two, "a/z", 1, tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hello/web"], "APP/GROUP needs --file"),
        (
            ["--file", str(EXAMPLES / "quickstart.toml"), "--config-dir", "x"],
            "--file and --config-dir exclude each other",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(words: list[str], said: str) -> None:
    refused = CliRunner().invoke(main, ["sidekick", "run", *words])

    assert 2 == refused.exit_code
    assert said in refused.stderr
