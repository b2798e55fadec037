"""One probe of each kind against a real small server, and the setting that a bad answer names."""

import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from outrider.config.sections import ProbeSettings
from outrider.core.blame import judge
from outrider.runtimes import TASK
from outrider.runtimes.process.identity import marked
from outrider.sidekick.prober import Failed, Passed
from outrider.sidekick.probes import ask, hint, name_of, says_nothing_of_the_app
from tests.sidekick.test_prober import verdict_of
from tests.support.rest_stub import RestStub, Say
from tests.support.waiting import eventually

SETTINGS = ProbeSettings(interval_s=0.02, timeout_s=5, successes=2, failures=2, deadline_s=5)
NAME = "app.example"


class Answers:
    """What the app answers now."""

    status = 200


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def app(answers: Answers) -> Iterator[RestStub]:
    with RestStub(lambda _: Say(status=answers.status)) as running:
        yield running


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A PEM file of an authority that no machine knows, and an app's side with a certificate for ``NAME`` alone."""
    known = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    known.cert_pem.write_to_path(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    known.issue_cert(NAME).configure_cert(context)
    return path, context


@pytest.fixture
def tls_app(authority: tuple[Path, ssl.SSLContext]) -> Iterator[str]:
    """Its address as the runtime gives it: always http."""
    with RestStub(lambda _: Say(), context=authority[1]) as running:
        yield running.url.replace("https://", "http://")


def test_the_request_has_the_host_and_the_fields_that_are_set(app: RestStub) -> None:
    settings = replace(
        SETTINGS, host=f"{NAME}:8443", headers={"Authorization": "Bearer x", "X-Probe": "1"}, path="/up?full=1"
    )

    assert "" == ask(app.url, settings)

    (asked,) = app.asked
    assert ("GET", "/up?full=1") == (asked.method, asked.target)
    assert {"host": f"{NAME}:8443", "authorization": "Bearer x", "x-probe": "1"}.items() <= asked.headers.items()


def test_without_a_host_the_address_itself_is_named(app: RestStub) -> None:
    ask(app.url, SETTINGS)

    assert app.url.removeprefix("http://") == app.asked[0].headers["host"]


@pytest.mark.parametrize(
    ("statuses", "status", "said"),
    [
        (("200-299",), 204, ""),
        (("200-299",), 301, "301"),
        (("200-299", "301"), 301, ""),
        (("200-399",), 302, ""),
        (("401",), 401, ""),
        (("401",), 200, "200"),
        (("204",), 200, "200"),
        (("503",), 503, ""),
    ],
)
def test_the_expected_status_codes_are_healthy_and_no_others(
    app: RestStub, answers: Answers, statuses: tuple[str, ...], status: int, said: str
) -> None:
    answers.status = status

    assert said == ask(app.url, replace(SETTINGS, statuses=statuses))


@pytest.mark.parametrize(
    ("status", "named"),
    [
        (301, "probe.scheme"),
        (308, "probe.path"),
        (400, "probe.host (the Host header)"),
        (421, "probe.host (the Host header)"),
        (401, "probe.headers (credentials)"),
        (403, "probe.headers (credentials)"),
        (404, "check probe.path"),
    ],
)
def test_an_answer_that_a_setting_may_be_to_blame_for_names_the_setting(
    app: RestStub, answers: Answers, status: int, named: str
) -> None:
    answers.status = status

    verdict = verdict_of(app.url, "prove", replace(SETTINGS, deadline_s=0.2))

    assert isinstance(verdict, Failed)
    assert verdict.reason.startswith(f"/health: {status} (")
    assert named in verdict.reason


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_an_answer_of_an_app_that_is_not_well_names_no_setting(app: RestStub, answers: Answers, status: int) -> None:
    answers.status = status

    verdict = verdict_of(app.url, "watch", SETTINGS)

    assert isinstance(verdict, Failed)
    assert "probe." not in verdict.reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verify": False}, ""),
        ({"host": NAME, "ca_file": "known"}, ""),
        ({"host": f"{NAME}:443", "ca_file": "known"}, ""),
        ({"host": NAME}, "certificate refused"),
        ({"ca_file": "known"}, "certificate refused"),
        ({"host": "other.example", "ca_file": "known"}, "certificate refused"),
    ],
)
def test_https_is_verified_against_the_name_and_the_authorities_that_are_set(
    tls_app: str, authority: tuple[Path, ssl.SSLContext], changes: dict[str, object], said: str
) -> None:
    known = {name: authority[0] if value == "known" else value for name, value in changes.items()}
    settings = replace(SETTINGS, scheme="https", **known)  # type: ignore[arg-type]

    answer = ask(tls_app, settings)

    assert said == answer.partition(":")[0]
    assert ("probe.ca_file" in hint(answer)) == bool(said)


def test_plain_http_and_https_taken_for_each_other_name_the_scheme(app: RestStub, tls_app: str) -> None:
    over_tls = ask(app.url, replace(SETTINGS, scheme="https", verify=False))
    in_the_clear = ask(tls_app, SETTINGS)

    assert "no TLS answer" == over_tls
    assert "probe.scheme" in hint(over_tls)
    assert "probe.scheme" in hint(in_the_clear)


def test_an_app_that_only_takes_connections_is_proved_by_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        proved = verdict_of(url, "prove", replace(SETTINGS, kind="tcp"))
        by_http = ask(url, replace(SETTINGS, timeout_s=0.2))

    assert isinstance(proved, Passed)
    assert "no answer in 0.2 s" == by_http
    refused = verdict_of(url, "watch", replace(SETTINGS, kind="tcp"))
    assert isinstance(refused, Failed)
    assert refused.reason == "TCP connection: connection refused (2 of 2 answers)"


def test_an_app_with_another_protocol_is_told_which_setting_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.settimeout(10)

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        answer = ask(url, SETTINGS)
        thread.join()

    assert "no HTTP answer" == answer
    assert "probe.kind" in hint(answer)


PYTHON = (sys.executable, "-c")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("pass", ""),
        ("raise SystemExit(3)", "exit 3"),
        ("print('one'); print('no primary'); raise SystemExit(1)", "exit 1: no primary"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "signal 15"),
    ],
)
def test_a_command_is_healthy_when_it_exits_with_0_and_else_says_why(script: str, said: str) -> None:
    assert said == ask("http://127.0.0.1:1", replace(SETTINGS, kind="command", command=(*PYTHON, script)))


def test_a_command_gets_the_place_of_the_app_and_nothing_of_the_sidekicks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTRIDER_ETCD_PASSWORD", "geheim")
    script = (
        "import os, sys; told = (*sys.argv[1:], os.environ['PORT'], os.environ.get('OUTRIDER_ETCD_PASSWORD'));"
        " sys.exit(str(told))"
    )
    command = (*PYTHON, script, "{host}", "{port}", "{url}/x", "{other}")

    said = ask("http://[::1]:8085", replace(SETTINGS, kind="command", command=command))

    assert "exit 1: ('::1', '8085', 'http://[::1]:8085/x', '{other}', '8085', None)" == said


def test_a_command_that_hangs_is_ended_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROBED_BY", str(os.getpid()))
    script = "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
    settings = replace(SETTINGS, kind="command", command=(*PYTHON, script), timeout_s=0.5)
    began = time.monotonic()

    said = ask("http://127.0.0.1:1", settings)

    assert "no answer in 0.5 s" == said
    assert time.monotonic() - began < 60
    assert eventually(lambda: not marked({TASK: "probe", "PROBED_BY": str(os.getpid())}))


@pytest.mark.parametrize("program", ["/nowhere/check", "no-such-program-at-all", "/etc/passwd"])
def test_a_command_that_this_machine_cannot_run_says_nothing_of_the_release(program: str) -> None:
    settings = replace(SETTINGS, kind="command", command=(program,))

    verdict = verdict_of("http://127.0.0.1:1", "watch", settings)

    assert isinstance(verdict, Failed)
    assert "world" == judge(verdict.evidence)
    assert f"this machine: probe.command: {program}: " in verdict.reason
    assert says_nothing_of_the_app(ask("http://127.0.0.1:1", settings))


def test_what_is_probed_is_named_after_its_kind() -> None:
    settings = replace(SETTINGS, command=("/usr/bin/pg_isready", "-q"))

    kinds = [name_of(replace(settings, kind=kind)) for kind in ("http", "tcp", "command")]

    assert ["/health", "TCP connection", "pg_isready"] == kinds
