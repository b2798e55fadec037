"""`status` and `why` without etcd: by the update service, with the same words."""

import json
import shlex

import pytest
from click.testing import CliRunner, Result

from outrider.cli import main
from tests.support.service import NOON, Service
from tests.support.service_examples import APP, be_alive, block, make_app
from tests.support.typing_verbs import Run, typist

NOBODY = "127.0.0.1:9"
"""The port of the discard service, where nothing listens."""

DRAW = f"statechart draw --live {APP}/beta --format dot"


@pytest.fixture
def run(service: Service) -> Run:
    make_app(service.store)
    be_alive(service.store, "web-1", NOON, version="0.9.0", state="checking")
    be_alive(service.store, "web-2", NOON)
    block(service.store, "1.0.0", "47 of 47 answers were 503", NOON)
    return typist(service)


def ask(service: Service, command: str, *, etcd: str | None) -> Result:
    """A command where no variable but these is set."""
    environment = {"OUTRIDER_SERVER": service.url, "OUTRIDER_PREFIX": service.prefix, "OUTRIDER_ETCD": etcd}
    return CliRunner().invoke(main, shlex.split(command), env=environment)


@pytest.mark.parametrize(
    "command",
    [
        "status",
        f"status {APP}",
        f"status {APP}/beta",
        f"why {APP} web-1",
        f"why {APP}",
        f"why {APP}/beta",
        f"why {APP}/web-1",
        f"why {APP}/beta/web-1 --json",
        f"why {APP}/beta --json",
        f"status {APP} --json",
        f"statechart draw --live {APP}/beta --format dot",
    ],
)
def test_the_service_says_the_same_as_etcd_and_it_is_told_who_was_asked(
    run: Run, service: Service, command: str
) -> None:
    """
    1. etcd is asked
    2. etcd is named and doesn't answer: a note says so
    3. only the service is named
    """
    read = run(command).stdout

    instead = ask(service, command, etcd=NOBODY)
    asked = ask(service, command, etcd=None)

    assert (0, read) == (instead.exit_code, instead.stdout)
    assert instead.stderr.startswith("note: etcd doesn't answer (")
    assert f"127.0.0.1:9: connection refused; asked the update service {service.url} instead" in instead.stderr
    assert (0, read) == (asked.exit_code, asked.stdout)
    assert "asked the update service" not in asked.stderr


def test_what_does_not_exist_is_the_same_line_from_both(run: Run, service: Service) -> None:
    for command in ("status nothing", f"status {APP}/nothing", f"why {APP} nothing", f"why {APP}/nothing"):
        read = run(command, code=1).stderr

        asked = ask(service, command, etcd=None)

        assert (1, read) == (asked.exit_code, asked.stderr)


def test_neither_of_them_is_one_line_that_names_both() -> None:
    environment = {"OUTRIDER_SERVER": f"http://{NOBODY}", "OUTRIDER_ETCD": NOBODY}

    told = CliRunner().invoke(main, ["why", "shop", "web-1"], env=environment)

    assert 1 == told.exit_code
    error = told.stderr.splitlines()[-1]
    assert error.startswith("Error: etcd doesn't answer (")
    assert f"update service http://{NOBODY} doesn't answer" in error
    assert error.endswith("check --etcd (OUTRIDER_ETCD) and --server")


def test_programs_get_the_cells_and_the_facts(run: Run, service: Service) -> None:
    (facts,) = json.loads(run("status --json").stdout)

    (shown,) = json.loads(json.dumps(facts["instances"][:1]))

    assert "web-1" == shown["instance"]
    assert "0.9.0" == shown["alive"]["version"]


def test_where_instances_are_is_drawn(run: Run) -> None:
    drawn = run(f"statechart draw --live {APP}/beta --strategy start-first --format svg").stdout

    assert ">1 instance: web-1</text>" in drawn
    assert f"where the 2 instances of {APP}/beta that are connected stand now." in drawn.replace("</text>\n", " ")
