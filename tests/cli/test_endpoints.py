"""etcd's endpoints as people write them, wherever they can be given: taken, or refused in one line."""

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import trustme
from click.testing import CliRunner, Result

from outrider.cli import main
from outrider.config.load import load_settings
from outrider.config.sections import EtcdSettings
from outrider.core.errors import ConfigError, DriverError
from outrider.etcd.client import connect
from outrider.service.server import bind, parse_listen
from outrider.sidekick.assemble import Assembly, etcd_address
from tests.cli.test_updatectl_parity import everything

WRONG = ["127.0.0.1:2379/v2", "unix:///run/etcd", "127.0.0.1", "etcd:²", "http://a:1,https://b:1"]
INSTALL = Path(__file__).parents[2] / "docs/use/install.md"


def with_etcd() -> list[tuple[str, click.Command]]:
    """Every command that is told where etcd is."""
    return [
        (path, command)
        for path, command in everything()
        if any("--etcd" in each.opts for each in command.params if isinstance(each, click.Option))
    ]


def needed(command: click.Command) -> list[str]:
    """Something for each argument and option without which click would not begin."""
    arguments = [each for each in command.params if isinstance(each, click.Argument) and each.nargs == 1]
    options = [each for each in command.params if isinstance(each, click.Option) and each.required]
    # an argument that click could do without (a scope), and one that must be a program
    words = ["x" for _ in arguments] or ["true"] * (command.name == "watch") or ["x", "y"] * (command.name == "why")
    return [*(f"{each.opts[0]}={'1' if each.name in ('number', 'version') else 'x'}" for each in options), *words]


def run(words: list[str], environment: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(main, words, env={"OUTRIDER_ETCD": None} | (environment or {}))


def one_line(result: Result) -> str:
    assert (1, SystemExit) == (result.exit_code, type(result.exception)), result.output
    assert 1 == len(result.stderr.splitlines()), result.stderr
    return result.stderr


@pytest.mark.parametrize(("path", "command"), [pytest.param(*one, id=one[0]) for one in with_etcd()])
def test_every_command_refuses_a_wrong_endpoint_in_one_line(path: str, command: click.Command) -> None:
    verb, rest = path.split()[1:], needed(command)

    for wrong in WRONG:
        assert "--etcd (OUTRIDER_ETCD)" in one_line(run([*verb, f"--etcd={wrong}", *rest]))
        assert "--etcd (OUTRIDER_ETCD)" in one_line(run([*verb, *rest], {"OUTRIDER_ETCD": wrong}))


@pytest.mark.parametrize("written", ["{0}", "{0}/", "http://{0}", "http://{0}/", " {0} , {0}/"])
def test_a_command_takes_an_endpoint_with_scheme_and_slash(written: str) -> None:
    closed = "127.0.0.1:1"

    result = run(["lock", "list", f"--etcd={written.format(closed)}"])

    assert "127.0.0.1:1: connection refused" in one_line(result)


def config(folder: Path, etcd: str) -> Path:
    path = folder / "x.toml"
    path.write_text(
        f"[instance]\nid='x'\napp='e'\ngroup='g'\nbalancer='none'\nstate_dir='{folder}/s'\n"
        f"[process]\ncommand=['true']\n[etcd]\n{etcd}\n"
    )
    return path


@pytest.mark.parametrize("wrong", WRONG)
def test_a_sidekick_refuses_a_wrong_endpoint_as_the_check_does(tmp_path: Path, wrong: str) -> None:
    path = config(tmp_path, f"endpoints={wrong.split(',')!r}")

    checked, shown, started = (
        one_line(run([*verb, "--config", str(path)]))
        for verb in (["config", "check"], ["config", "show"], ["sidekick", "run"])
    )

    assert checked.startswith("Error: x.toml: etcd.endpoints: ")
    assert checked == shown == started
    assert "OUTRIDER_ETCD_ENDPOINTS: etcd.endpoints: " in one_line(
        run(["config", "check", "--config", str(config(tmp_path, ""))], {"OUTRIDER_ETCD_ENDPOINTS": wrong})
    )


@pytest.mark.parametrize(
    "endpoints",
    ["['127.0.0.1:1/']", "['http://127.0.0.1:1/']", "['http://[::1]:1', 'a:1']", "['https://127.0.0.1:1']"],
)
def test_a_config_that_passes_the_check_starts(tmp_path: Path, endpoints: str) -> None:
    path = config(tmp_path, f"endpoints={endpoints}")

    assert "ok: x of e, group g\n" == run(["config", "check", "--config", str(path)]).output
    Assembly(load_settings((path,), {}).settings)._close()


def files(folder: Path) -> dict[str, Path]:
    """Files of certificates, right and wrong."""
    authority, other = trustme.CA(), trustme.CA()
    found = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key", "other_key", "text", "empty")}
    authority.cert_pem.write_to_path(str(found["ca"]))
    mine, theirs = authority.issue_cert("me"), other.issue_cert("you")
    mine.cert_chain_pems[0].write_to_path(str(found["cert"]))
    mine.private_key_pem.write_to_path(str(found["key"]))
    theirs.private_key_pem.write_to_path(str(found["other_key"]))
    found["text"].write_text("nothing\n")
    found["empty"].write_text("")
    return found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ca_file": "text"}, "etcd.ca_file: .*text.pem: is not a PEM file of certificates"),
        ({"ca_file": "empty"}, "etcd.ca_file: .*empty.pem: is not a PEM file"),
        ({"ca_file": "key"}, "etcd.ca_file: .*key.pem: is not a PEM file of certificates"),
        ({"ca_file": "ca", "cert_file": "cert", "key_file": "other_key"}, "does not belong to etcd.key_file"),
        ({"ca_file": "ca", "cert_file": "text", "key_file": "key"}, "is not a PEM file"),
        ({"ca_file": "ca", "cert_file": "cert", "key_file": "text"}, "is not a PEM file"),
    ],
)
def test_certificates_that_can_not_work_fail_at_the_check(tmp_path: Path, given: dict[str, str], words: str) -> None:
    found = files(tmp_path)
    path = config(tmp_path, "\n".join(f"{key}='{found[name]}'" for key, name in given.items()))

    assert re.search(words, one_line(run(["config", "check", "--config", str(path)])))


def test_a_client_certificate_needs_no_authority_of_its_own_with_https(tmp_path: Path) -> None:
    found = files(tmp_path)
    path = config(
        tmp_path, f"endpoints=['https://127.0.0.1:1']\ncert_file='{found['cert']}'\nkey_file='{found['key']}'"
    )

    Assembly(load_settings((path,), {}).settings)._close()


@pytest.mark.parametrize("place", ["s", "s/t"])
def test_a_file_where_the_state_folder_must_be_fails_at_the_check(tmp_path: Path, place: str) -> None:
    (tmp_path / "s").write_text("")
    path = config(tmp_path, "")
    path.write_text(path.read_text().replace(f"'{tmp_path}/s'", f"'{tmp_path / place}'"))

    assert "instance.state_dir: " in one_line(run(["config", "check", "--config", str(path)]))


def test_the_file_of_the_install_page_is_shown_checked_and_started(tmp_path: Path) -> None:
    """The unit names instance and folder; at a prompt the host and the unit's own place stand for them."""
    path = tmp_path / "a.toml"
    path.write_text(next(text for text in re.findall(r"```toml\n(.*?)```", INSTALL.read_text(), re.DOTALL)))

    shown = run(["config", "show", "--config", str(path)], {"OUTRIDER_INSTANCE_ID": "a"})
    checked = run(["config", "check", "--config", str(path)], {"OUTRIDER_INSTANCE_ID": "a"})

    assert (0, 0) == (shown.exit_code, checked.exit_code), shown.output + checked.output
    assert re.search(r'instance\.state_dir +"/var/lib/outrider/a" +default', shown.stdout)
    unit = {"OUTRIDER_INSTANCE_ID": "a", "OUTRIDER_INSTANCE_STATE_DIR": str(tmp_path / "state")}
    Assembly(load_settings((path,), unit).settings)._close()


@pytest.fixture
def first_bytes() -> Iterator["Peer"]:
    peer = Peer()
    yield peer
    peer.close()


class Peer:
    """Accepts connections and keeps the first bytes of each."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.first: list[bytes] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
                with connection:
                    connection.settimeout(2)
                    self.first.append(connection.recv(16))
            except TimeoutError:
                continue
            except OSError:
                return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.mark.parametrize(
    ("written", "begins"),
    [
        ("https://{0}", b"\x16\x03"),
        ("HTTPS://{0}/", b"\x16\x03"),
        ("http://{0}", b"PRI"),
        ("{0}/", b"PRI"),
    ],
)
def test_an_https_endpoint_is_spoken_to_over_tls_and_no_other(first_bytes: Peer, written: str, begins: bytes) -> None:
    """A TLS client begins with 16 03 (a handshake record), HTTP/2 without TLS with PRI."""
    cluster = connect(etcd_address(EtcdSettings(endpoints=(written.format(first_bytes.address),), timeout_s=0.3)))
    try:
        with pytest.raises(DriverError):
            cluster.get("/x")
    finally:
        cluster.close()

    said = [each for each in first_bytes.first if each]
    assert said
    assert all(each.startswith(begins) for each in said), said


def test_a_command_uses_tls_for_https_too(first_bytes: Peer) -> None:
    one_line(run(["lock", "list", f"--etcd=https://{first_bytes.address}/"]))

    assert all(each.startswith(b"\x16\x03") for each in first_bytes.first if each)
    assert any(first_bytes.first)


@pytest.mark.parametrize(
    "listen", ["http://127.0.0.1:8000", "127.0.0.1:8000/", "127.0.0.1", "127.0.0.1:²", "127.0.0.1:70000"]
)
def test_a_wrong_listen_is_refused_in_words(listen: str) -> None:
    with pytest.raises(ConfigError, match="write HOST:PORT"):
        parse_listen(listen)


def test_a_name_that_nobody_can_look_up_is_no_traceback() -> None:
    with pytest.raises(ConfigError, match=r"listen a\.\.b:0: "):
        bind(parse_listen("a..b:0"))


@pytest.mark.parametrize("server", ["127.0.0.1:8000", "http://a:x", "http://a..b", "http://a/?b", "http://u:p@a"])
def test_a_wrong_address_of_the_service_is_refused_in_one_line(server: str) -> None:
    assert "--server" in one_line(run(["app", "list", f"--server={server}"]))
