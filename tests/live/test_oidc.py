"""Logging in at a real identity provider: in a browser, on another device, and what strangers try with either."""

import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from outrider.demo.programs import free_ports
from tests.service.test_serve import Process, serving
from tests.support.oidc_provider import DEVICE, SECRET, WEB, IdentityProvider, Person
from tests.support.servers import EtcdServer
from tests.support.waiting import eventually

FILE = """\
issuer = "{issuer}"
client_id = "{web}"
client_secret_file = "{secret}"
cli_client_id = "{device}"
name_claim = "preferred_username"
scopes = ["offline_access"]
[[roles]]
value = "sre"
role = "operator"
[[roles]]
value = "shop-devs"
role = "viewer"
apps = ["shop"]
"""


@dataclass(frozen=True, kw_only=True)
class World:
    """A service and the provider that it trusts."""

    service: Process
    url: str
    provider: IdentityProvider
    folder: Path

    @property
    def callback(self) -> str:
        return f"{self.url}/login/oidc/callback"


@pytest.fixture(scope="module")
def world(etcd_server: EtcdServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with trusting(etcd_server, tmp_path_factory.mktemp("oidc"), "127.0.0.1") as world:
        yield world


@contextmanager
def trusting(etcd_server: EtcdServer, folder: Path, host: str) -> Iterator[World]:
    """A service that trusts a provider on ``host``."""
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    provider = IdentityProvider(folder / "provider", f"{url}/login/oidc/callback", host=host).start()
    (folder / "service").mkdir()
    secret, file = folder / "secret", folder / "oidc.toml"
    secret.write_text(SECRET)
    file.write_text(FILE.format(issuer=provider.issuer, web=WEB, secret=secret, device=DEVICE))
    options = ["--etcd", f"127.0.0.1:{etcd_server.port}", "--prefix", f"/test/{uuid.uuid4().hex[:12]}"]
    options += ["--oidc", str(file), "--public-url", url, "--listen", url.removeprefix("http://")]
    try:
        with serving(folder / "service", *options) as running:
            eventually(lambda: requests.get(f"{url}/login/oidc", allow_redirects=False, timeout=60).status_code == 303)
            yield World(service=running, url=url, provider=provider, folder=folder)
    finally:
        provider.stop()


def come_back(person: Person, url: str) -> requests.Response:
    """Follow the address with which the provider sends a browser back."""
    return person.browser.get(url, allow_redirects=False, timeout=30)


def logged_in(world: World, name: str, to: str = "/") -> tuple[Person, str, requests.Response]:
    """A person who has logged in at the page, the address of the way back, and its answer."""
    person = Person(name)
    back = person.follow(f"{world.url}/login/oidc?to={to}", until=world.callback)
    return person, back, come_back(person, back)


def test_the_page_offers_the_provider_and_lets_its_people_in(world: World) -> None:
    offered = requests.get(f"{world.url}/login", timeout=30).text
    person, _, answer = logged_in(world, "ann", "/activity")

    assert "/login/oidc?to=" in offered
    assert (303, "/activity") == (answer.status_code, answer.headers["Location"])
    page = person.browser.get(f"{world.url}/activity", timeout=30)
    assert 200 == page.status_code
    assert "oidc:ann · operator" in page.text
    (session,) = [cookie for cookie in person.browser.cookies if cookie.name == "outrider_session"]
    assert session.has_nonstandard_attr("HttpOnly")
    assert "strict" == (session.get_nonstandard_attr("SameSite") or "").lower()


def test_a_role_of_some_apps_is_one_of_the_page_too(world: World) -> None:
    person, _, _ = logged_in(world, "ben")

    assert 200 == person.browser.get(f"{world.url}/", timeout=30).status_code
    assert 403 == person.browser.get(f"{world.url}/users", timeout=30).status_code


def test_who_has_no_role_is_not_let_in(world: World) -> None:
    person, _, answer = logged_in(world, "cat")

    assert 403 == answer.status_code
    assert "oidc:cat has no role here" in answer.text
    assert 401 == person.browser.get(f"{world.url}/activity", timeout=30).status_code


def test_the_way_back_lets_in_once_and_no_other_browser(world: World) -> None:
    """
    1. somebody logs in; the address of the way back is seen by a stranger, in a log or a history
    2. neither the same browser nor the stranger gets in by it again
    3. nor does a stranger who has the cookie of the attempt as well: the provider takes a code once
    """
    person = Person("ann")
    back = person.follow(f"{world.url}/login/oidc?to=/", until=world.callback)
    stolen = {cookie.name: cookie.value or "" for cookie in person.browser.cookies if cookie.name == "outrider_login"}
    assert stolen
    assert 303 == come_back(person, back).status_code

    again, stranger = come_back(person, back), come_back(Person("eve"), back)
    thief = requests.get(back, cookies=stolen, allow_redirects=False, timeout=30)

    assert [401, 401, 401] == [one.status_code for one in (again, stranger, thief)]
    assert "begun by another browser" in again.text
    assert "begun by another browser" in stranger.text
    assert "refuses this login" in thief.text
    assert not any("outrider_session" in one.headers.get("Set-Cookie", "") for one in (again, stranger, thief))


def test_a_stranger_s_way_back_does_not_log_somebody_else_in_as_the_stranger(world: World) -> None:
    """Login CSRF: the victim's browser is led to the way back of the stranger's own login."""
    victim, stranger = Person("ann"), Person("ben")
    victim.follow(f"{world.url}/login/oidc?to=/", until=world.callback)
    theirs = stranger.follow(f"{world.url}/login/oidc?to=/", until=world.callback)

    assert 401 == come_back(victim, theirs).status_code


@pytest.mark.parametrize(
    "change", [("state=", "state=0"), ("code=", "code=x"), ("&state=", "&iss=https://evil&state=")]
)
def test_what_comes_back_changed_is_refused(world: World, change: tuple[str, str]) -> None:
    person = Person("ann")
    back = person.follow(f"{world.url}/login/oidc?to=/", until=world.callback)

    assert 401 == come_back(person, back.replace(*change)).status_code


@pytest.mark.parametrize("to", ["//evil.example/", "https://evil.example/", "/\\evil.example", "/login/oidc"])
def test_nobody_is_led_elsewhere_after_the_login(world: World, to: str) -> None:
    _, _, answer = logged_in(world, "ann", to)

    assert (303, "/") == (answer.status_code, answer.headers["Location"])


def test_what_the_provider_says_no_to_is_told_and_never_shown_as_a_page(world: World) -> None:
    person = Person("ann")
    back = person.follow(f"{world.url}/login/oidc?to=/", until=world.callback)
    state = re.search(r"state=([0-9a-f]+)", back)
    assert state is not None

    answer = come_back(person, f"{world.callback}?state={state[1]}&error=<script>alert(1)</script>")

    assert 401 == answer.status_code
    assert "<script>alert" not in answer.text


# --- commands -------------------------------------------------------------------------------------------------------


class Commands:
    """Commands of one user of this machine."""

    def __init__(self, world: World, home: Path) -> None:
        self._world = world
        self._environment = {
            **os.environ, "XDG_CONFIG_HOME": str(home), "OUTRIDER_SERVER": world.url, "OUTRIDER_TOKEN": "",
        }  # fmt: skip
        self.logins = home / "outrider" / "logins.json"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "outrider", *words],
            env=self._environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def log_in(self, name: str, *, action: str = "accept") -> tuple[int, str, str]:
        """``outrider login``, whose code a person types into the provider's page; status, output, errors."""
        program = subprocess.Popen(
            [sys.executable, "-m", "outrider", "login"],
            env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        told: list[str] = []
        assert program.stderr is not None
        assert program.stdout is not None
        errors = program.stderr
        reader = threading.Thread(target=lambda: told.extend(iter(errors.readline, "")), daemon=True)
        reader.start()
        eventually(lambda: any(line.startswith("and type ") for line in told), within_s=120)
        address = next(line for line in told if line.startswith("open ")).split()[1]
        code = next(line for line in told if line.startswith("and type ")).split()[-1]
        Person(name).confirm(address, code, action=action)
        output = program.stdout.read()
        status = program.wait(120)
        reader.join(60)
        return status, output, "".join(told)

    def over(self) -> None:
        """The token that is kept ends now, as far as commands know."""
        known = json.loads(self.logins.read_text())
        for login in known.values():
            login["until_s"] = 0.0
        self.logins.write_text(json.dumps(known))


def test_a_login_on_another_device_is_kept_for_its_user_alone_and_renewed(world: World, tmp_path: Path) -> None:
    commands = Commands(world, tmp_path)
    assert "log in (outrider login)" in commands.run("app", "list").stderr

    status, output, errors = commands.log_in("ann")

    assert (0, f"logged in at {world.url} as oidc:ann, operator\n") == (status, output), errors
    assert 0o600 == commands.logins.stat().st_mode & 0o777
    first = json.loads(commands.logins.read_text())[world.url]
    assert 0 == commands.run("app", "list").returncode
    commands.over()
    renewed = commands.run("app", "list")
    assert 0 == renewed.returncode, renewed.stderr
    second = json.loads(commands.logins.read_text())[world.url]
    assert second["token"] != first["token"]
    assert 0o600 == commands.logins.stat().st_mode & 0o777
    assert 0 == commands.run("logout").returncode
    assert 1 == commands.run("app", "list").returncode


def test_a_login_that_its_user_denies_keeps_nothing(world: World, tmp_path: Path) -> None:
    commands = Commands(world, tmp_path)

    status, output, errors = commands.log_in("ann", action="deny")

    assert (1, "") == (status, output)
    assert "access_denied" in errors
    assert not commands.logins.exists()


def test_another_service_is_not_shown_the_token(world: World, tmp_path: Path) -> None:
    commands = Commands(world, tmp_path)
    assert 0 == commands.log_in("ann")[0]

    elsewhere = commands.run("app", "list", "--server", world.url.replace("127.0.0.1", "localhost"))

    assert 1 == elsewhere.returncode
    assert "log in" in elsewhere.stderr


def test_keys_that_were_rotated_and_a_provider_that_is_away(world: World, tmp_path: Path) -> None:
    """
    1. the provider has a new key, and no longer shows the old one: a new login counts, the old token ends
    2. the provider is away: who has a token goes on, nobody gets a new one, nobody else gets in
    """
    commands = Commands(world, tmp_path)
    assert 0 == commands.log_in("ann")[0]
    old = json.loads(commands.logins.read_text())[world.url]["token"]
    world.provider.stop()
    world.provider.rotate()
    world.provider.start()

    def status_of(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return requests.get(f"{world.url}/api/v1/whoami", headers=headers, timeout=30).status_code

    assert 0 == commands.log_in("ann")[0]
    new = json.loads(commands.logins.read_text())[world.url]["token"]
    eventually(lambda: status_of(new) == 200, within_s=60)
    assert 401 == status_of(old)

    world.provider.stop()
    try:
        assert 200 == status_of(new)
        assert 401 == status_of(old)
        commands.over()
        refused = commands.run("app", "list")
        assert 1 == refused.returncode
        assert "doesn't answer" in refused.stderr or "gives no answer" in refused.stderr or "refused" in refused.stderr
    finally:
        world.provider.start()
