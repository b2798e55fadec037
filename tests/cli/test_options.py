"""How the verbs find the service and say who asks, and what they make of its answers."""

import base64
import json
import shlex
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner, Result

from outrider.cli import main
from outrider.cli.rest_client import ServiceClient
from outrider.core.errors import DriverError
from tests.support.rest_stub import Asked, RestStub, Say

EMPTY = Say(body={"items": []})


def run(command: str, environment: dict[str, str] | None = None, *, code: int = 0) -> Result:
    """Run a command line; ``code`` is what it must leave with. No variable of the machine's counts."""
    names = [f"{brand}_{name}" for brand in ("OUTRIDER", "UPDATECTL") for name in ("SERVER", "USER", "KEY", "TOKEN")]
    cleared: dict[str, str | None] = dict.fromkeys(names)
    result = CliRunner().invoke(main, shlex.split(command), env=cleared | (environment or {}))
    assert code == result.exit_code, f"{command}: {result.output}{result.exception!r}"
    return result


@pytest.fixture
def stub() -> Iterator[RestStub]:
    with RestStub(lambda _: EMPTY) as running:
        yield running


def basic(user: str, key: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()


@pytest.mark.parametrize(
    ("options", "environment", "sent"),
    [
        ("", {}, None),
        ("--token=or_t", {}, "Bearer or_t"),
        ("", {"OUTRIDER_TOKEN": "or_e"}, "Bearer or_e"),
        ("--token=or_t", {"OUTRIDER_TOKEN": "or_e"}, "Bearer or_t"),
        ("--user=admin --key=or_k", {}, basic("admin", "or_k")),
        ("", {"UPDATECTL_USER": "admin", "UPDATECTL_KEY": "or_k"}, basic("admin", "or_k")),
        (
            "",
            {"OUTRIDER_USER": "me", "OUTRIDER_KEY": "or_m", "UPDATECTL_USER": "you", "UPDATECTL_KEY": "or_y"},
            basic("me", "or_m"),
        ),
        ("--key=or_x", {"UPDATECTL_USER": "admin", "UPDATECTL_KEY": "or_k"}, basic("admin", "or_x")),
        ("--user=jürgen --key=or_ü", {}, basic("jürgen", "or_ü")),
        ("--user=admin --key=or_k", {"OUTRIDER_TOKEN": "or_e"}, "Bearer or_e"),
    ],
)
def test_who_asks_goes_with_every_call(
    stub: RestStub, options: str, environment: dict[str, str], sent: str | None
) -> None:
    run(f"app list {options}", {"OUTRIDER_SERVER": stub.url} | environment)

    assert [sent] == [asked.headers.get("authorization") for asked in stub.asked]


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        ("--server={url} app list", {}),
        ("app --no-such list", {}),
        ("app list --server={url}", {"OUTRIDER_SERVER": "http://127.0.0.1:1"}),
        ("--server={url} app list", {"OUTRIDER_SERVER": "http://127.0.0.1:1"}),
        ("--server=http://127.0.0.1:1 app list --server={url}", {}),
        ("app list", {"UPDATECTL_SERVER": "{url}/"}),
        ("app list", {"OUTRIDER_SERVER": "{url}", "UPDATECTL_SERVER": "http://127.0.0.1:1"}),
    ],
)
def test_the_server_is_the_one_that_is_named_nearest(stub: RestStub, command: str, environment: dict[str, str]) -> None:
    known = "--no-such" not in command
    variables = {name: value.format(url=stub.url) for name, value in environment.items()}

    run(command.format(url=stub.url), variables, code=0 if known else 2)

    assert (["/api/v1/apps"] if known else []) == [asked.target for asked in stub.asked]


@pytest.mark.parametrize("given", ["--user=admin", "--key=or_k"])
def test_half_of_user_and_key_is_one_line(given: str) -> None:
    result = run(f"app list {given}", code=1)

    assert "--user and --key need each other" in result.stderr
    assert 1 == len(result.stderr.splitlines())


def test_a_netrc_of_the_user_is_not_sent(stub: RestStub, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")

    run("app list", {"OUTRIDER_SERVER": stub.url, "HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc")})

    assert [None] == [asked.headers.get("authorization") for asked in stub.asked]


@pytest.mark.parametrize(
    ("say", "words"),
    [
        (
            Say(status=401, body={"kind": "unauthorized", "detail": "no valid token"}),
            "Error: no valid token; give --token (OUTRIDER_TOKEN), or --user and --key, or log in (outrider login)",
        ),
        (Say(status=401, body=b"go away"), "Error: status 401; give --token"),
        (
            Say(status=403, body={"kind": "forbidden", "detail": "needs operator, bob is viewer"}),
            "Error: needs op",
        ),
        (Say(status=412, body={"kind": "precondition", "detail": "changed by bob"}), "Error: changed by bob"),
        (Say(status=307, headers={"Location": "https://x/"}), "redirects to 'https://x/'; give that address"),
        (Say(status=200, body=b"<html>"), "isn't an outrider update service (status 200, not JSON)"),
        (Say(status=503, body={"kind": "unknown", "detail": "etcd doesn't answer"}), "Error: etcd doesn't"),
        (Say(status=500, body={"detail": "oops"}), "Error: oops"),
    ],
)
def test_what_the_service_refuses_is_one_line(say: Say, words: str) -> None:
    with RestStub(lambda _: say) as stub:
        result = run(f"app delete --app-id=x --server={stub.url}", code=1)

    assert words in result.stderr
    assert 1 == len(result.stderr.splitlines())


def test_a_long_list_is_read_to_its_end() -> None:
    def page(asked: Asked) -> Say:
        number = int(asked.target.partition("after=")[2] or 0)
        one = {"id": f"app-{number}", "label": "", "description": ""}
        return Say(body={"items": [one], "next": str(number + 1) if number < 4 else None})

    with RestStub(page) as stub:
        shown = json.loads(run(f"app list --json --server={stub.url}").stdout)

    assert [f"app-{number}" for number in range(5)] == [one["id"] for one in shown]


def test_a_list_that_never_ends_is_noticed() -> None:
    with RestStub(lambda _: Say(body={"items": [], "next": "again"})) as stub:
        result = run(f"app list --server={stub.url}", code=1)

    assert "repeats page 'again'" in result.stderr


def test_a_filter_stays_on_every_page() -> None:
    def page(asked: Asked) -> Say:
        return Say(body={"items": [], "next": None if "after=" in asked.target else "a/b=c"})

    with RestStub(page) as stub:
        run(f"instance list-updates --app-id=x --group-id=beta --server={stub.url}")

    assert ["/api/v1/apps/x/instances?group=beta", "/api/v1/apps/x/instances?group=beta&after=a%2Fb%3Dc"] == [
        asked.target for asked in stub.asked
    ]


def test_debug_prints_the_calls_and_no_secret(stub: RestStub) -> None:
    result = run(f"--debug app list --token=or_secret --server={stub.url}")

    assert "/api/v1/apps" in result.stderr
    assert "status=200" in result.stderr
    assert "or_secret" not in result.output


def test_the_kind_of_an_error_is_in_the_log_and_not_in_the_line_for_a_person() -> None:
    with RestStub(lambda _: Say(status=404, body={"kind": "not-found", "detail": "no app 'web'"})) as stub:
        plain = run(f"app list --server={stub.url}", code=1)
        logged = run(f"--debug app list --server={stub.url}", code=1)

    assert "Error: no app 'web'\n" == plain.stderr
    assert "error_kind=not-found" in logged.stderr


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A PEM file of an authority that nobody knows, and a server's side with a certificate of it."""
    known = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    known.cert_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    known.issue_cert("127.0.0.1").configure_cert(context)
    return path, context


@pytest.mark.parametrize(
    ("option", "words"),
    [("", "TLS failed: "), ("--ca-file={ca}", None), ("--skip-ssl-verify", None), ("--ca-file=/x", "--ca-file /x")],
)
def test_a_certificate_is_checked_unless_the_operator_says_otherwise(
    authority: tuple[Path, ssl.SSLContext], option: str, words: str | None
) -> None:
    path, context = authority
    with RestStub(lambda _: EMPTY, context=context) as stub:
        result = run(f"app list --server={stub.url} {option.format(ca=path)}", code=0 if words is None else 1)

    assert (words or "Id") in result.output
    assert (1 if words is None else 0) == len(stub.asked)
    assert len(result.stderr.splitlines()) == (0 if words is None else 1)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("help", 0, "Usage: main [OPTIONS] COMMAND"),
        ("help group create", 0, "Usage: main group create [OPTIONS]"),
        ("help package create bulk", 0, "Usage: main package create bulk"),
        ("help nothing", 3, "no command 'nothing'"),
        ("help group nothing", 3, "'main group' has no command 'nothing'"),
        ("help status deeper", 2, "has no commands below it"),
    ],
)
def test_help_shows_what_a_command_takes(words: str, code: int, said: str) -> None:
    assert said in run(words, code=code).output


@pytest.mark.parametrize("verb", ["create", "update", "list", "delete", "sync"])
def test_upstream_says_what_to_do_instead(verb: str) -> None:
    result = run(f"upstream {verb} --url=http://x --label=y --id=z", code=1)

    assert result.stderr.startswith(f"Error: upstream {verb}: outrider doesn't copy")
    assert "package download" in result.stderr
    assert 1 == len(result.stderr.splitlines())


@pytest.mark.parametrize(
    ("server", "asked"),
    [
        ("http://x:8000", "http://x:8000/v1/update/"),
        ("http://x:8000/", "http://x:8000/v1/update/"),
        ("https://x/behind/a/proxy/", "https://x/behind/a/proxy/v1/update/"),
        ("http://x/v1/update/SECRET", "http://x/v1/update/SECRET"),
    ],
)
def test_omaha_is_asked_below_the_server_unless_its_address_leads_there(server: str, asked: str) -> None:
    assert asked == ServiceClient(server).omaha_url


@pytest.mark.parametrize(
    ("host", "asked"),
    [("localhost", False), ("127.0.0.1", False), ("[::1]", False), ("[::ffff:127.0.0.1]", False), ("10.0.0.1", True)],
)
def test_a_proxy_is_asked_for_other_machines_alone(
    stub: RestStub, monkeypatch: pytest.MonkeyPatch, host: str, asked: bool
) -> None:
    """The stub is the proxy: what it hears is answered, and nothing listens at port 1 of any of these hosts."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", stub.url)

    with suppress(DriverError):
        ServiceClient(f"http://{host}:1").get("apps")

    assert asked == bool(stub.asked)
