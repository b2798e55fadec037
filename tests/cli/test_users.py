"""``outrider admin-user`` and ``outrider database init``, as an operator types them."""

import json
import re
import shlex
from collections.abc import Callable

import pytest
import requests
from click.testing import CliRunner, Result

from outrider.cli import main
from tests.support.service import Service
from tests.support.waiting import eventually

Run = Callable[..., Result]


@pytest.fixture
def run(service: Service) -> Run:
    """Run a command line against the service, signed in with ``token`` when given."""
    environment = {"OUTRIDER_SERVER": service.url, "OUTRIDER_ETCD": service.etcd, "OUTRIDER_PREFIX": service.prefix}

    def typed(command: str, *, token: str = "", code: int = 0) -> Result:
        result = CliRunner().invoke(main, shlex.split(command), env={**environment, "OUTRIDER_TOKEN": token})
        assert code == result.exit_code, f"{command}: {result.output}{result.exception!r}"
        return result

    return typed


def role_of(service: Service, token: str) -> str:
    answer = requests.get(f"{service.url}/api/v1/whoami", headers={"Authorization": f"Bearer {token}"}, timeout=60)
    return str(answer.json().get("role"))


def test_init_prints_the_first_admins_token_alone_on_stdout(run: Run, service: Service) -> None:
    result = run("database init")

    token = result.stdout.strip()
    assert result.stdout.startswith("or_")
    assert 1 == len(result.stdout.splitlines())
    assert "not shown again" in result.stderr
    eventually(lambda: role_of(service, token) == "admin")


def test_init_is_for_the_first_user_alone(run: Run, service: Service) -> None:
    first = run("database init --name=ann").stdout.strip()

    refused = run("database init --name=bob", code=1)

    assert "Error: users exist already (ann); nothing was done" == refused.stderr.strip()
    assert "" == refused.stdout
    eventually(lambda: role_of(service, first) == "admin")


def test_who_lost_every_admins_token_gets_another_from_etcd(run: Run, service: Service) -> None:
    lost = run("database init").stdout.strip()

    found = run("database init --again").stdout.strip()

    eventually(lambda: role_of(service, found) == "admin")
    assert "None" == role_of(service, lost)


def test_users_are_made_listed_and_removed(run: Run, service: Service) -> None:
    token = run("database init --name=ann").stdout.strip()
    eventually(lambda: role_of(service, token) == "admin")

    made = run("admin-user create bob --role=viewer", token=token)
    again = run("admin-user create bob --json", token=token)
    made_admin = run("admin-user create eve", token=token)
    shown = run("admin-user list", token=token)
    run("admin-user delete bob", token=token)

    assert "bob is viewer" in made.stderr
    assert "viewer" == json.loads(again.stdout)["role"]
    assert "eve is admin" in made_admin.stderr
    header = re.split(" {2,}", shown.stdout.splitlines()[0])
    assert ["Name", "Role", "Token", "Created", "Token Created", "Apps"] == header
    assert ["ann", "bob", "eve"] == [line.split()[0] for line in shown.stdout.splitlines()[1:]]
    assert f"...{json.loads(again.stdout)['token'][-4:]}" in shown.stdout
    assert made.stdout.strip() not in shown.stdout
    assert ["ann", "eve"] == [user.name for user in service.store.users.list()]


def test_who_has_no_token_reads_one_clear_line(run: Run) -> None:
    run("database init")

    eventually(lambda: "token" in run("admin-user list", code=1).stderr)
    assert 1 == len(run("admin-user list", code=1).stderr.splitlines())
