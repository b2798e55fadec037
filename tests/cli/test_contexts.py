"""Contexts and addresses: what a command talks to and about, when it isn't told."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from outrider.cli import contexts, main
from outrider.core.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("OUTRIDER_SERVER", "OUTRIDER_ETCD", "OUTRIDER_TOKEN", "OUTRIDER_CONTEXT", "UPDATECTL_SERVER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "outrider"


def run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(main, list(words), env=environment)


def error(*words: str, **environment: str) -> str:
    result = run(*words, **environment)
    assert 0 != result.exit_code, result.output
    assert "Traceback" not in result.output
    return result.stderr


def test_a_user_without_a_home_has_no_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a dynamic user of systemd on a machine whose libc doesn't know such users."""
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)

    assert {} == contexts.load().known


def test_the_first_context_is_chosen_and_another_by_use(home: Path) -> None:
    assert 0 == run("context", "add", "prod", "server=http://127.0.0.1:1", "app=shop", "group=web").exit_code
    assert 0 == run("context", "add", "test", "server=http://127.0.0.1:2").exit_code

    listed = run("context", "list").stdout.splitlines()
    assert ["NAME", "SERVER", "ETCD", "APP", "GROUP"] == listed[0].split()
    assert ["*", "prod", "http://127.0.0.1:1", "shop", "web"] == listed[1].split()

    assert "context test: http://127.0.0.1:2\n" == run("context", "use", "test").stdout
    assert "127.0.0.1:2" in error("app", "list")
    assert "127.0.0.1:1" in error("--context", "prod", "app", "list")
    assert "127.0.0.1:1" in error("app", "list", OUTRIDER_CONTEXT="prod")


def test_options_and_the_environment_come_before_the_context(home: Path) -> None:
    run("context", "add", "prod", "server=http://127.0.0.1:1", "etcd=127.0.0.1:1")

    assert "127.0.0.1:3" in error("app", "list", "--server=http://127.0.0.1:3")
    assert "127.0.0.1:3" in error("--server=http://127.0.0.1:3", "app", "list")
    assert "127.0.0.1:4" in error("app", "list", OUTRIDER_SERVER="http://127.0.0.1:4")
    assert "127.0.0.1:1" in error("status", "shop")
    assert "127.0.0.1:3" in error("status", "shop", "--etcd=127.0.0.1:3")


def test_app_and_group_are_those_of_the_context_unless_the_command_names_them(home: Path) -> None:
    assert "Missing option '--app-id'" in error("group", "list", "--server=http://127.0.0.1:1")
    run("context", "add", "prod", "server=http://127.0.0.1:1", "app=shop", "group=web")

    assert "127.0.0.1:1" in error("rollout", "pause")
    assert "'--app-id'" not in error("rollout", "pause", "other/canary")
    assert "--group-id says 'b', and the address says 'a'" in error("rollout", "pause", "shop/a", "--group-id=b")
    assert "'shop/web/one' is no address: write APP/GROUP" in error("rollout", "pause", "shop/web/one")


@pytest.mark.parametrize(
    "words",
    [
        ("app", "create", "shop"),
        ("app", "update", "shop", "--label=Shop", "--description=d"),
        ("app", "delete", "shop"),
        ("instance", "list-updates", "shop/web"),
        ("instance", "list-app-versions", "shop"),
        ("activity", "shop/web", "--etcd=127.0.0.1:1"),
        ("lock", "show", "shop/web", "--etcd=127.0.0.1:1"),
        ("lock", "show", "shop", "web", "--etcd=127.0.0.1:1"),
    ],
)
def test_an_app_and_a_group_are_addressed_in_one_form(home: Path, words: tuple[str, ...]) -> None:
    run("context", "add", "prod", "server=http://127.0.0.1:1")

    assert "127.0.0.1:1" in error(*words)


def test_what_is_removed_or_changed_itself_is_never_taken_from_the_context(home: Path) -> None:
    run("context", "add", "prod", "server=http://127.0.0.1:1", "app=shop", "group=web")

    assert "Missing option '--app-id'" in error("app", "delete")
    assert "Missing option '--app-id'" in error("app", "update", "--label=x", "--description=y")
    assert "app 'shop': the group is missing, write shop/GROUP" in error("lock", "show", "shop")


@pytest.mark.parametrize("words", [("shop", "web-1"), ("shop/web/web-1",), ("shop/web-1",), ("web-1",)])
def test_an_instance_is_addressed_in_every_form(home: Path, words: tuple[str, ...]) -> None:
    run("context", "add", "prod", "server=http://127.0.0.1:1", "app=shop", "etcd=127.0.0.1:1")

    assert "127.0.0.1:1" in error("instance", "pause", *words)
    assert "127.0.0.1:1" in error("why", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("web-1",), "which app is 'web-1' of? Write APP INSTANCE or APP/GROUP/INSTANCE"),
        (("a", "b", "c"), "'a b c' is no instance"),
        (("a/b/c/d",), "'a/b/c/d' is no address: write APP/GROUP/INSTANCE"),
        (("a//c",), "'a//c' is no address"),
    ],
)
def test_what_is_no_instance_is_one_clear_line(home: Path, words: tuple[str, ...], said: str) -> None:
    assert said in error("instance", "pause", *words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "config.toml: "),
        ("[context.prod]\n", "'context' isn't known; write default = NAME and [contexts.NAME]"),
        ('[contexts.prod]\nsever = "x"\n', "contexts.prod.sever isn't known; known: server, "),
        ("[contexts.prod]\nserver = 3\n", "contexts.prod.server must be text"),
        ("contexts = 3\n", "write default = NAME and [contexts.NAME]"),
        ("[contexts]\nprod = 3\n", "contexts.prod must be a table"),
        ('default = "prdo"\n[contexts.prod]\n', "no context 'prdo' in"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(home: Path, text: str, said: str) -> None:
    home.mkdir()
    (home / "config.toml").write_text(text)

    assert said in error("app", "list")


def test_a_token_may_lie_in_a_file_beside_it_and_is_never_listed(home: Path) -> None:
    run("context", "add", "a", "token_file=token")
    run("context", "add", "b", "token=secret")
    (home / "token").write_text("from the file\n")

    assert "from the file" == contexts.value("token", "a")
    assert "secret" == contexts.value("token", "b")
    assert "secret" not in run("context", "list", "--json").stdout
    assert 0o600 == stat.S_IMODE((home / "config.toml").stat().st_mode)
    (home / "token").unlink()
    with pytest.raises(ConfigError, match="token_file"):
        contexts.value("token", "a")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("prod", "server"), "'server': write KEY=VALUE"),
        (("prod", "sever=x"), "'sever=x': write KEY=VALUE, with one of server, "),
        (("prod", "etcd=http://a:1/v2"), "has a path"),
        (("pro d",), "context 'pro d': write letters"),
    ],
)
def test_what_cannot_be_added_is_one_clear_line_and_nothing_is_written(
    home: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in error("context", "add", *words)
    assert not home.exists()


def test_a_file_with_comments_stays_as_it_is(home: Path) -> None:
    home.mkdir()
    text = '# ours\n[contexts.prod]  # the real one\nserver = "http://127.0.0.1:1"\n'
    (home / "config.toml").write_text(text)

    assert 0 == run("context", "add", "test", "server=http://127.0.0.1:2").exit_code

    assert (home / "config.toml").read_text().startswith(text)
    assert "context 'prod' is in" in error("context", "add", "prod")
    assert "no context 'nope' in" in error("context", "use", "nope")
