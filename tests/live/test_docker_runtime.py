"""The runtime ``docker`` against a real Docker: what the contract of all runtimes doesn't ask."""

import queue
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outrider.config.sections import DownloadSettings, InstanceSettings, Settings, WorkloadSettings
from outrider.core.blame import judge
from outrider.core.errors import DriverError, Refused
from outrider.demo.programs import free_ports
from outrider.runtimes import Exited, RunnableRelease, WorkloadSpec
from outrider.runtimes.docker import DockerSettings
from outrider.runtimes.docker import runtime as runtime_module
from outrider.runtimes.docker.engine import Engine
from outrider.runtimes.docker.runtime import DockerRuntime
from tests.support import docker_images
from tests.support.containers import docker_client
from tests.support.waiting import eventually
from tests.support.workloads import release

ID = "web-1.0.0-aa"
Make = Callable[..., DockerRuntime]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes a runtime of the same instance, each time with other settings."""
    docker_client().close()
    state_dir = tmp_path / "state"
    state_dir.mkdir()

    def made(docker: DockerSettings | None = None, workload: WorkloadSettings | None = None) -> DockerRuntime:
        settings = Settings(
            instance=InstanceSettings(id="web", app="hello", group="g", state_dir=state_dir),
            workload=workload or WorkloadSettings(stop_grace_s=5),
            download=DownloadSettings(),
        )
        return DockerRuntime(settings, docker or DockerSettings(), environment={})

    yield made
    docker_images.clean(state_dir)


@pytest.fixture
def good(tmp_path: Path) -> RunnableRelease:
    return release("1.0.0", docker_images.save(docker_images.build("1.0.0"), tmp_path / "image.tar"))


def saved(folder: Path, version: str, files: dict[str, str] | None = None, lines: str = "") -> RunnableRelease:
    """A release whose image has these files and lines."""
    path = folder / f"{version}.tar"
    return release(version, docker_images.save(docker_images.build(version, files, lines), path))


def spec(release: RunnableRelease, workload_id: str = ID) -> WorkloadSpec:
    return WorkloadSpec(workload_id=workload_id, release=release)


def the_container(runtime: DockerRuntime, tmp_path: Path) -> Any:
    (found,) = docker_images.containers_of(tmp_path / "state")
    return found


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
        return body.decode()


def test_a_container_carries_what_it_is_and_how_it_may_run(make: Make, good: RunnableRelease, tmp_path: Path) -> None:
    """Labels for people and for the next sidekick; limits and options as set; no restart policy beside the sidekick."""
    folder = tmp_path / "shared"
    folder.mkdir()
    docker = DockerSettings(
        port=80,
        volumes=(f"{folder}:/shared:ro",),
        tmpfs=("/tmp",),
        user="0:0",
        read_only=True,
        init=True,
        cap_drop=("ALL",),
        cap_add=("NET_BIND_SERVICE",),
        security_options=("no-new-privileges",),
        extra_hosts=("db:192.0.2.7",),
        labels={"team": "shop"},
        memory_bytes=64 * 1024**2,
        cpus="0.5",
        pids=50,
        log_driver="json-file",
        log_options={"max-size": "1m"},
        stop_signal="SIGTERM",
    )
    runtime = make(docker, WorkloadSettings(stop_grace_s=7, env={"COLOUR": "blue"}))

    workload = runtime.start(spec(good))

    told = eventually(lambda: docker_images.answered(lambda: get(f"{workload.url}/cgi-bin/env"))) or ""
    assert "COLOUR=blue" in told
    assert "PORT=80" in told
    facts = the_container(runtime, tmp_path).attrs
    labels, host = facts["Config"]["Labels"], facts["HostConfig"]
    wanted = {"app": "hello", "instance": "web", "workload": ID, "version": "1.0.0", "payload": good.sha256}
    assert wanted.items() <= {name.removeprefix("outrider."): text for name, text in labels.items()}.items()
    assert "shop" == labels["team"]
    assert ("no", 64 * 1024**2, 500_000_000, 50) == (
        host["RestartPolicy"]["Name"], host["Memory"], host["NanoCpus"], host["PidsLimit"],
    )  # fmt: skip
    assert (True, ["ALL"], ["NET_BIND_SERVICE"], {"max-size": "1m"}) == (
        host["ReadonlyRootfs"], host["CapDrop"], host["CapAdd"], host["LogConfig"]["Config"],
    )  # fmt: skip
    assert (7, "SIGTERM", "0:0") == (
        facts["Config"]["StopTimeout"], facts["Config"]["StopSignal"], facts["Config"]["User"],
    )  # fmt: skip


def test_with_the_hosts_network_the_app_listens_on_the_port_itself(
    make: Make, good: RunnableRelease, tmp_path: Path
) -> None:
    runtime = make(DockerSettings(network="host"))

    workload = runtime.start(spec(good))

    told = eventually(lambda: docker_images.answered(lambda: get(f"{workload.url}/cgi-bin/env"))) or ""
    port = workload.url.rpartition(":")[2]
    assert {f"PORT={port}", "HOST=127.0.0.1"} <= set(told.splitlines())


def test_further_networks_are_connected_and_one_that_is_missing_is_this_machines_trouble(
    make: Make, good: RunnableRelease, tmp_path: Path
) -> None:
    client = docker_client()
    network = client.networks.create(f"outrider-test-{free_ports(1)[0]}")
    try:
        make(DockerSettings(networks=(network.name,))).start(spec(good))
        assert network.name in the_container(make(), tmp_path).attrs["NetworkSettings"]["Networks"]
        make().remove(ID)

        with pytest.raises(DriverError, match="not found") as failed:
            make(DockerSettings(networks=("outrider-no-such-network",))).start(spec(good))
    finally:
        network.remove()
        client.close()

    assert "machine" == judge(failed.value.evidence)
    assert [] == docker_images.containers_of(tmp_path / "state")


def test_a_port_that_somebody_took_is_this_machines_trouble_and_leaves_nothing(
    make: Make, good: RunnableRelease, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port is free when it is chosen, and taken when Docker wants it."""
    (port,) = free_ports(1)
    other = docker_client().containers.run(
        docker_images.build("1.0.0"), detach=True, ports={"80/tcp": ("127.0.0.1", port)},
        environment={"PORT": "80", "HOST": "0.0.0.0"},
        labels={"outrider.state-dir": str((tmp_path / "state").resolve()), "outrider.app": "x",
                "outrider.instance": "other"},
    )  # fmt: skip
    monkeypatch.setattr("outrider.runtimes.docker.runtime.port_again", lambda *given, **more: port)
    try:
        with pytest.raises(DriverError, match=r"already (allocated|in use)") as failed:
            make().start(spec(good))
    finally:
        other.remove(force=True)

    assert not isinstance(failed.value, Refused)
    assert ("no-port", "machine") == (failed.value.evidence, judge(failed.value.evidence))
    assert [] == docker_images.containers_of(tmp_path / "state")


@pytest.mark.parametrize(
    ("files", "lines", "docker", "said", "blame"),
    [
        ({}, "ENV FAIL=why-not\n", DockerSettings(), r"at once: exit 3; it said: cannot start: why-not", "release"),
        ({}, 'ENTRYPOINT ["/missing"]\n', DockerSettings(), r"Docker can't start it: .*/missing", "release"),
        ({}, "", DockerSettings(entrypoint=("/missing",)), r"check docker.command and docker.entrypoint", "machine"),
        ({"run": "\x7fELF not for us"}, "", DockerSettings(), r"exec format error", "machine"),
    ],
)  # fmt: skip
def test_what_ends_at_once_says_why_and_leaves_nothing(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    lines: str,
    docker: DockerSettings,
    said: str,
    blame: str,
) -> None:
    monkeypatch.setattr(runtime_module, "_AT_ONCE_S", 60)  # a busy machine takes its time to start what ends at once
    with pytest.raises(DriverError) as failed:
        make(docker).start(spec(saved(tmp_path, "1.0.1", files, lines)))

    assert re.search(said, str(failed.value)), str(failed.value)
    assert (blame, blame == "release") == (judge(failed.value.evidence), isinstance(failed.value, Refused))
    assert [] == docker_images.containers_of(tmp_path / "state")


def ended(runtime: DockerRuntime) -> Callable[[], Exited]:
    ends: queue.Queue[Exited] = queue.Queue()
    runtime.watch(ID, ends.put)
    return lambda: ends.get(timeout=60)


def test_an_app_that_takes_too_much_memory_is_killed_and_the_exit_says_so(make: Make, tmp_path: Path) -> None:
    """
    1. the app grows until the kernel ends it, some time after its start
    2. the exit names the memory and the limit, and the release isn't blamed for it
    """
    hungry = {"run": '#!/bin/sh\necho up\nsleep 2\na=x\nwhile :; do a="$a$a"; done\n'}
    runtime = make(DockerSettings(memory_bytes=24 * 1024**2))
    runtime.start(spec(saved(tmp_path, "1.0.2", hungry)))

    exited = ended(runtime)()

    assert re.match(r".*killed for memory.*; its limit is 25165824 bytes: docker.memory_bytes", exited.status)
    assert "machine" == judge(exited.evidence)


def test_an_app_that_ends_by_itself_is_told_with_its_code(make: Make, tmp_path: Path) -> None:
    runtime = make()
    runtime.start(spec(saved(tmp_path, "1.0.3", {"run": "#!/bin/sh\nsleep 2\nexit 7\n"})))

    exited = ended(runtime)()

    assert ("exit 7", "release") == (exited.status, judge(exited.evidence))


def test_a_container_that_somebody_removes_or_stops_is_no_fault_of_the_release(
    make: Make, good: RunnableRelease, tmp_path: Path
) -> None:
    runtime = make()
    for how, said in (("remove", "somebody removed the container"), ("stop", "somebody let Docker stop it")):
        runtime.start(spec(good))
        told = ended(runtime)
        container = the_container(runtime, tmp_path)
        if how == "remove":
            container.remove(force=True)
        else:
            container.stop(timeout=5)

        exited = told()

        assert said in exited.status or how == "remove"
        assert "world" == judge(exited.evidence), exited
        assert runtime.find(ID) is None
        runtime.remove(ID)


def test_the_next_sidekick_finds_it_by_its_labels_and_sees_its_end(
    make: Make, good: RunnableRelease, tmp_path: Path
) -> None:
    first = make()
    started = first.start(spec(good))
    first.close()
    second = make()

    assert started == second.find(ID)
    assert ("image-tar", good.sha256) == (second.running()[0].kind, second.running()[0].sha256)
    told = ended(second)
    the_container(second, tmp_path).kill()
    assert "signal 9" in told().status


def test_a_workload_gets_its_port_again_and_no_other_one_gets_it(
    make: Make, good: RunnableRelease, tmp_path: Path
) -> None:
    runtime = make(workload=WorkloadSettings(stop_grace_s=5, ports="8600-8699"))
    old = runtime.start(spec(good))
    runtime.stop(ID, 5)

    other = runtime.start(spec(good, "web-2.0.0-bb"))
    again = runtime.start(spec(good))

    assert old.url == again.url != other.url


def test_one_fixed_port_is_free_again_for_the_next_version(make: Make, good: RunnableRelease) -> None:
    """stop-first: the old one is stopped, and the new one takes its port."""
    (port,) = free_ports(1)
    runtime = make(workload=WorkloadSettings(stop_grace_s=5, ports=str(port)))
    runtime.start(spec(good))
    runtime.stop(ID, 5)

    new = runtime.start(spec(good, "web-2.0.0-bb"))

    assert f"http://127.0.0.1:{port}" == new.url
    assert "1.0.0" in (eventually(lambda: docker_images.answered(lambda: get(new.url))) or "")


HEALTHY = 'HEALTHCHECK --interval=1s --retries=1 CMD ["/bin/busybox", "wget", "-qO-", "http://127.0.0.1:80/health"]\n'


def test_the_images_own_healthcheck_is_what_a_probe_can_ask(make: Make, tmp_path: Path) -> None:
    """Starting, healthy, and unhealthy with the word of the check; an image without one can't be asked."""
    runtime = make(DockerSettings(port=80))
    workload = runtime.start(spec(saved(tmp_path, "1.0.4", {}, HEALTHY)))
    eventually(lambda: runtime.health(workload.url) == "")

    the_container(runtime, tmp_path).exec_run(["/bin/busybox", "rm", "/www/health"])
    assert eventually(lambda: runtime.health(workload.url)).startswith("unhealthy")

    plain = runtime.start(spec(saved(tmp_path, "1.0.5"), "web-1.0.5-cc"))
    with pytest.raises(DriverError, match="has no HEALTHCHECK"):
        runtime.health(plain.url)


def test_a_healthcheck_that_never_answers_is_never_healthy(make: Make, tmp_path: Path) -> None:
    hangs = 'HEALTHCHECK --interval=1s --timeout=1s --retries=2 CMD ["/bin/busybox", "sleep", "600"]\n'
    runtime = make()

    workload = runtime.start(spec(saved(tmp_path, "1.0.6", {}, hangs)))

    assert "starting" == runtime.health(workload.url).partition(":")[0]
    assert eventually(lambda: runtime.health(workload.url).startswith("unhealthy"))


def test_a_docker_that_is_not_there_is_nobodys_fault(good: RunnableRelease, make: Make, tmp_path: Path) -> None:
    runtime = make(DockerSettings(address=f"unix://{tmp_path}/none.sock"))

    for call in (
        lambda: runtime.start(spec(good)),
        lambda: runtime.find(ID),
        lambda: runtime.running(),
        lambda: runtime.stop(ID, 1),
        lambda: runtime.prepare(good),
    ):
        with pytest.raises(DriverError, match="does not answer: no such file or directory") as failed:
            call()
        assert ("no-answer", "world") == (failed.value.evidence, judge(failed.value.evidence))
    runtime.prune([])
    assert "does not answer" in runtime.trouble()


def test_an_image_in_a_tar_is_loaded_once_and_kept_under_a_tag(
    make: Make, good: RunnableRelease, tmp_path: Path
) -> None:
    """
    1. the machine doesn't have the image: it is loaded, and its id is the digest of the configuration in the tar
    2. pruning keeps what is needed, and then removes it
    """
    own = saved(tmp_path, f"1.1.{free_ports(1)[0]}")
    tagged = docker_images.build(own.version)
    docker_images.remove(tagged)
    runtime = make()

    runtime.prepare(own)

    client = docker_client()
    assert [] == client.images.list(name=tagged), "the tag in the tar is taken away"
    name = f"{runtime._images.repository}:{own.sha256}"
    kept = client.images.get(name).id
    runtime.prune([own.sha256])
    assert kept == client.images.get(name).id
    runtime.prune([])
    assert [] == client.images.list(name=runtime._images.repository)
    assert kept not in {image.id for image in client.images.list(all=True)} or client.images.get(kept).tags
    client.close()


def test_an_engine_remembers_that_it_was_away(tmp_path: Path) -> None:
    engine = Engine(f"unix://{tmp_path}/none.sock", timeout_s=1)

    assert not engine.answers()
    assert engine.was_away()
