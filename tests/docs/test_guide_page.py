"""docs/use/guide.md, typed as it stands: three sidekicks as units of a real systemd, containers, and a real Traefik.

etcd, Traefik, the registry and the update service run here; the units run on a machine that systemd runs, and reach
this machine's Docker. Replaced are addresses, and the app's id, by which Docker's containers are told apart. The
commands of the original guide are those of test_guide.py.
"""

import contextlib
import html
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests

from outrider.demo.programs import ProgramMissing, start_etcd, start_traefik
from tests.docs import test_guide
from tests.support import docker_images
from tests.support.containers import docker_client
from tests.support.requirements import skip_or_fail
from tests.support.servers import etcd_binary
from tests.support.socket_proxy import SocketProxy
from tests.support.systemd_machine import SystemdMachine, outrider_machine
from tests.support.terminal import QUICK, Terminal, blocks_of, typed_blocks
from tests.support.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs" / "use" / "guide.md"
NAMES, GROUP = ("a", "b", "c"), test_guide.GROUP
DOCKER_GROUP = 61235
"""Of the group ``docker`` on the machine, and of the socket that leads to Docker."""
WITHIN_S = 180.0


class Site:
    """What the guide needs before it begins, and the terminal that it is typed into."""

    def __init__(self, terminal: Terminal, machine: SystemdMachine, app: str) -> None:
        self.terminal, self.machine, self.app = terminal, machine, app

    def type_all(self, lines: list[str]) -> str:
        """What the last of these lines prints."""
        return [self.terminal.type(line) for line in lines][-1]

    def table(self, line: str) -> list[dict[str, str]]:
        """What updatectl prints, row by row, by the columns' names."""
        header, *rows = self.terminal.type(line).splitlines()
        return [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]

    def explain(self) -> str:
        """What the sidekicks said last."""
        return self.machine.run("journalctl", "--no-pager", "-n", "60", "-u", "outrider-sidekick@*", check=False)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    docker_client().close()
    if shutil.which("curl") is None:
        skip_or_fail("no curl; apt-get install curl")
    monkeypatch.setenv("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    app = str(uuid4())
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, tmp_path, ignore_errors=True)
        try:
            etcd = start_etcd(tmp_path / "programs")
            stack.callback(etcd.stop)
            etcd.wait_ready()
            traefik = start_traefik(tmp_path / "programs", etcd.endpoint)
            stack.callback(traefik.stop)
        except ProgramMissing as missing:
            skip_or_fail(str(missing))
        registry = stack.enter_context(docker_images.registry())
        for version in ("1.0.0", "2.0.0"):
            registry.push(docker_images.build(version), f"example:{version}")
        stack.callback(remove_containers, app)
        # behind a rule of its own, as Docker's socket is on a real machine
        proxy = SocketProxy(tmp_path / "docker.sock", "/var/run/docker.sock")
        stack.callback(proxy.cut)
        proxy.path.chmod(0o660)
        shutil.chown(proxy.path, group=DOCKER_GROUP)
        machine = outrider_machine(tmp_path, read_only={proxy.path: "/run/docker.sock"})
        stack.callback(machine.remove)
        machine.run("groupadd", "--gid", str(DOCKER_GROUP), "docker")
        machine.run("systemctl", "set-environment", *(f"{name}={value}" for name, value in QUICK.items()))
        endpoint = f"{etcd.endpoint.host}:{etcd.endpoint.port}"
        terminal = Terminal(
            tmp_path,
            endpoint,
            "/outrider/v1",
            {"OUTRIDER_ETCD": endpoint},
            replaced={
                test_guide.APP: app,
                "http://127.0.0.1/": f"{traefik.web_url}/",
                "http://127.0.0.1:8080": traefik.api_url,
                "registry.example:5000": registry.host,
            },
            programs=machine.programs("systemctl", "journalctl", "usermod"),
        )
        stack.callback(terminal.close)
        terminal.type("outrider serve --listen 127.0.0.1:8000 --etcd 127.0.0.1:2379 --payload-dir payloads &")
        log = tmp_path / "background-0.log"
        eventually(lambda: log.exists() and "outrider update service on " in log.read_text(), within_s=90)
        yield Site(terminal, machine, app)
        with contextlib.suppress(AssertionError):
            terminal.type("kill -TERM $(jobs -p); wait")


class Visitor:
    """A browser without JavaScript, let in by a link of ``outrider page``."""

    def __init__(self, link: str) -> None:
        self._session, self._url = requests.Session(), "/".join(link.split("/", 3)[:3])
        form = self._session.get(link, timeout=60)
        assert "Log in as" in form.text, form.text
        headers = {"Origin": self._url, "Content-Type": "application/x-www-form-urlencoded"}
        sent = self._session.post(link, headers=headers, timeout=60, allow_redirects=False)
        assert 303 == sent.status_code, sent.text

    def read(self, path: str) -> str:
        """A page, without its marks."""
        answer = self._session.get(self._url + path, timeout=60)
        assert 200 == answer.status_code, answer.text
        return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", answer.text)))


def containers_of(app: str) -> list[Any]:
    """This test's containers, ended ones too."""
    found: list[Any] = docker_client().containers.list(
        all=True, ignore_removed=True, filters={"label": f"outrider.app={app}"}
    )
    return found


def remove_containers(app: str) -> None:
    """Remove them, with the tags of their images."""
    images = set()
    for one in containers_of(app):
        images |= {tag for tag in one.image.tags if tag.startswith("outrider/")}
        one.remove(force=True, v=True)
    for image in images:
        docker_images.remove(image)


def versions_of(printed: str) -> set[str]:
    """The versions that a load balancer's answers name."""
    lines = printed.splitlines()
    assert all(re.fullmatch(r"\d\.\d\.\d", line) for line in lines), lines
    return set(lines)


def test_the_guide_on_todays_parts(site: Site) -> None:
    """
    1. the original's commands make app, group, package and channel; the page lets the operator in
    2. three units are started, and each way to verify them shows 1.0.0 three times
    3. one instance every five minutes: after one swap the load balancer answers with both versions, and two wait
    4. without that limit all three follow, and the load balancer answers with 2.0.0 alone
    5. the clean-up leaves no container
    """
    create, page, start, units, load, listing, trouble, package, rate, promote, middle, rest, clean = typed_blocks(PAGE)
    for command in (test_guide.CREATE_APP, test_guide.CREATE_GROUP, test_guide.UPDATE_CHANNEL.format(version="1.0.0")):
        assert command in create, "the original's"
    assert listing == [test_guide.LIST]

    site.type_all(create)
    browser = Visitor(site.type_all(page).strip())
    assert "Example App" in browser.read("/")
    packages = browser.read(f"/apps/{site.app}/packages")
    assert [] == [each for each in ("1.0.0", "master", "Example Group") if each not in packages], packages

    (configuration,) = blocks_of(PAGE, "toml")
    for name in NAMES:
        text = site.terminal.replaced("\n".join(configuration))
        site.machine.write(f"/etc/outrider/instances/{name}.toml", text)
    try:
        site.type_all(start)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{site.explain()}") from error

    (shown,) = blocks_of(PAGE, "text")
    assert shown == [re.sub(r" +", " ", line).strip() for line in site.type_all(units).splitlines()]
    eventually(lambda: {"1.0.0"} == versions_of(site.type_all(load)), within_s=WITHIN_S, every_s=0.5)
    rows = site.table(listing[0])
    assert [(name, "1.0.0", "complete") for name in NAMES] == [
        (row["ClientID"], row["Version"], row["Status"]) for row in rows
    ]
    why, log = (site.terminal.type(line) for line in trouble)
    assert f"a of {site.app}" in why
    assert "outrider" in log

    for lines in (package, rate, promote):
        site.type_all(lines)

    def one_is_through() -> bool:
        found = sorted((row["Version"], row["Status"]) for row in site.table(listing[0]))
        assert found == [("1.0.0", "on-hold"), ("1.0.0", "on-hold"), ("2.0.0", "complete")], site.explain()
        return True

    eventually(one_is_through, within_s=WITHIN_S, every_s=0.5)
    status, rollout, answers = (site.terminal.type(line) for line in middle)
    assert 2 == len(re.findall(r"1 per 5 min; next at \d", status)), status
    assert "2.0.0" in rollout
    assert {"1.0.0", "2.0.0"} == versions_of(answers)
    seen = browser.read(f"/apps/{site.app}/groups/{GROUP}")
    assert [] == [each for each in ("1.0.0", "2.0.0", "1 per 5 min; next at") if each not in seen], seen

    finished = [site.terminal.type(line) for line in rest]
    assert "2.0.0 finished" in finished[1]
    assert {"2.0.0"} == versions_of(finished[2])

    site.terminal.type(clean[0])
    eventually(lambda: containers_of(site.app) == [], within_s=WITHIN_S, every_s=0.5)
    site.terminal.type(clean[1])
