"""The pure half of the runtime ``docker``: what is asked of Docker, and what its words mean."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from outrider.config.sections import InstanceSettings, Settings, WorkloadSettings
from outrider.core.blame import Evidence, judge
from outrider.core.errors import DriverError
from outrider.core.images import ImageDescriptor, ImagePlatform, parse_image
from outrider.payloads.transfer import TransferFailed, WriteFailed
from outrider.runtimes.docker import DockerSettings, problems
from outrider.runtimes.docker.container import Home, create_arguments, ending_of
from outrider.runtimes.docker.engine import Engine, evidence_in
from outrider.runtimes.docker.images import compare
from outrider.runtimes.docker.pull import Layers, failure

D, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32


def body(
    docker: DockerSettings, workload: WorkloadSettings | None = None, more: tuple[str, ...] = ()
) -> dict[str, Any]:
    made: dict[str, Any] = create_arguments(
        docker,
        workload or WorkloadSettings(),
        image=D,
        name="n",
        port=8085,
        version="1.0.0",
        environment={"OUTRIDER_VERSION": "1.0.0"},
        labels={"outrider.app": "hello"},
        more=more,
    )["body"]
    return made


def test_a_releases_arguments_stand_behind_those_of_the_settings_and_else_in_place_of_the_images_own() -> None:
    behind = body(DockerSettings(command=("run", "--port={port}"), port=80), more=("-v", "a b"))
    alone, none = body(DockerSettings(), more=("-v",)), body(DockerSettings())

    assert (["run", "--port=80", "-v", "a b"], ["-v"]) == (behind["Cmd"], alone["Cmd"])
    assert "Cmd" not in none, "the image's own command"


def test_a_port_is_published_at_the_hosts_address_and_inside_it_is_the_apps_own() -> None:
    published = body(DockerSettings(port=80), WorkloadSettings(host="127.0.0.1"))
    same, on_host = body(DockerSettings()), body(DockerSettings(network="host"))

    assert {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8085"}]} == published["HostConfig"]["PortBindings"]
    assert {"PORT=80", "HOST=0.0.0.0"} <= set(published["Env"])
    assert {"8085/tcp"} == set(same["ExposedPorts"])
    assert "PortBindings" not in on_host["HostConfig"]
    assert {"PORT=8085", "HOST=127.0.0.1"} <= set(on_host["Env"])


def test_placeholders_are_filled_and_other_braces_left() -> None:
    made = body(DockerSettings(port=80, command=("--port={port}", "${port}", "v{version}", "{}")))

    assert ["--port=80", "${port}", "v1.0.0", "{}"] == made["Cmd"]


def test_docker_never_starts_a_container_again_by_itself() -> None:
    assert "no" == body(DockerSettings())["HostConfig"]["RestartPolicy"]["Name"]


def test_a_name_of_an_address_that_is_not_known_is_this_machines_trouble() -> None:
    with pytest.raises(DriverError, match=r"workload.host 'no.such.host.invalid': can't be looked up") as failed:
        body(DockerSettings(), WorkloadSettings(host="no.such.host.invalid"))

    assert "machine" == judge(failed.value.evidence)


def test_a_container_of_another_folder_has_another_name_and_other_labels() -> None:
    one, other = (Home(app="a", instance="i", state_dir=folder) for folder in ("/x", "/y"))

    assert one.name("w") != other.name("w")
    assert one.labels != other.labels


STATE: Mapping[str, Any] = {"OOMKilled": False}


@pytest.mark.parametrize(
    ("state", "code", "asked", "away", "status", "blame"),
    [
        (STATE, 7, False, False, "exit 7", "release"),
        (STATE, 0, False, False, "exit 0", "release"),
        (STATE, 139, False, False, "signal 11", "release"),
        (STATE, 255, False, False, "exit 255", "release"),
        ({"OOMKilled": True}, 137, False, False, "killed for memory (signal 9); its limit is 5 bytes: "
         "docker.memory_bytes", "machine"),
        (STATE, 137, False, False, "signal 9, nobody let Docker send it: most likely killed for memory; its limit is 5"
         " bytes: docker.memory_bytes", "machine"),
        (STATE, 143, True, False, "signal 15: somebody let Docker stop it", "world"),
        (STATE, 143, False, True, "signal 15, while Docker was away", "world"),
        (None, 137, False, False, "signal 9: somebody removed the container", "world"),
        (None, None, True, False, "gone: somebody removed the container", "world"),
    ],
)  # fmt: skip
def test_an_end_says_how_and_whose_fault_it_is(
    state: Mapping[str, Any] | None, code: int | None, asked: bool, away: bool, status: str, blame: str
) -> None:
    ending = ending_of(state, code, asked=asked, away=away, memory_bytes=5)

    assert (status, blame) == (ending.status, judge(ending.evidence))


@pytest.mark.parametrize(
    ("words", "evidence"),
    [
        ("driver failed: Bind for 127.0.0.1:8085 failed: port is already allocated", "no-port"),
        ("listen tcp4 127.0.0.1:80: bind: address already in use", "no-port"),
        ("write /var/lib/docker/tmp/x: no space left on device", "disk-full"),
        ("network web not found", "unknown"),
        ("no matching manifest for linux/amd64 in the manifest list entries", "other-architecture"),
        ("something new", "unknown"),
    ],
)
def test_dockers_words_are_evidence(words: str, evidence: Evidence) -> None:
    assert evidence == evidence_in(words)


@pytest.mark.parametrize(
    ("words", "kind", "blame", "hint"),
    [
        ("unauthorized: authentication required", TransferFailed, "world", "docker.auth_file"),
        ("pull access denied for a/b, repository does not exist", TransferFailed, "world", "has no such image"),
        ("manifest for a/b@sha256:x not found: manifest unknown", TransferFailed, "world", "push it again"),
        ("Get https://r/v2/: dial tcp: connection refused", TransferFailed, "machine", "connection refused"),
        ("write /x: no space left on device", WriteFailed, "machine", "make room on Docker's disk"),
        ("no matching manifest for linux/amd64", TransferFailed, "machine", "this machine's platform"),
    ],
)
def test_a_pull_that_failed_says_who_must_do_what(words: str, kind: type, blame: str, hint: str) -> None:
    failed = failure("2.0.0", "a/b@sha256:x", words)

    assert (kind, blame) == (type(failed), judge(failed.evidence))
    assert hint in str(failed)


def test_progress_is_the_sum_of_the_layers_that_docker_told_of() -> None:
    layers = Layers(1000)
    detail = {"current": 100, "total": 600}

    assert layers.add({"status": "Downloading", "id": "a", "progressDetail": detail})
    assert (100, 1000) == (layers.done_bytes, layers.total_bytes)
    assert layers.add({"status": "Download complete", "id": "a"})
    assert not layers.add({"status": "Pulling from a/b", "id": "sha256:x"})
    assert layers.add({"status": "Already exists", "id": "b"})
    assert (600, 1000) == (layers.done_bytes, layers.total_bytes)


def described(*platforms: ImagePlatform) -> ImageDescriptor:
    return ImageDescriptor(reference=parse_image("r.example/a/b:1"), digest=D, platforms=platforms)


def test_a_local_image_is_the_announced_one_by_its_id_or_by_its_digest() -> None:
    known = described(ImagePlatform(platform="linux/amd64", manifest=D, config=OTHER))

    compare("1.0.0", known, {"Id": OTHER, "RepoDigests": []})
    compare("1.0.0", described(), {"Id": OTHER, "RepoDigests": [f"r.example/a/b@{D}"]})
    for wrong, image in (
        (known, {"Id": "sha256:" + "00" * 32, "RepoDigests": [f"r.example/a/b@{D}"]}),
        (described(), {"Id": OTHER, "RepoDigests": [f"r.example/a/b@{OTHER}"]}),
        (described(), {"Id": OTHER}),
    ):
        with pytest.raises(DriverError, match=r"isn't r.example/a/b@sha256:abab"):
            compare("1.0.0", wrong, image)


@pytest.mark.parametrize(
    ("docker", "key", "said"),
    [
        (DockerSettings(network="host", networks=("x",)), "docker.networks", "has no effect"),
        (DockerSettings(network="host", port=80), "docker.port", "has no effect"),
        (DockerSettings(network="none"), "docker.network", "no port that could be published"),
        (DockerSettings(tls_dir=Path("/nowhere")), "docker.tls_dir", "/nowhere/ca.pem: no such file"),
        (DockerSettings(auth_file=Path("/nowhere")), "docker.auth_file", "/nowhere: no such file"),
        (DockerSettings(labels={"outrider.app": "x"}), "docker.labels", "is set by outrider itself"),
        (DockerSettings(log_options={"a": "b"}), "docker.log_options", "needs docker.log_driver"),
        (DockerSettings(cpus="0"), "docker.cpus", "no processor"),
        (DockerSettings(memory_bytes=5), "docker.memory_bytes", "below 6 MiB"),
        (DockerSettings(command=("{PORT}",)), "docker.command", "did you mean {port}?"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_check(docker: DockerSettings, key: str, said: str) -> None:
    settings = Settings(instance=InstanceSettings(app="a", group="g"), drivers={"docker": docker})

    found = [problem for name, problem in problems(settings) if name == key]

    assert any(said in problem for problem in found), found
    assert () == problems(Settings(instance=InstanceSettings(app="a", group="g")))


def test_a_machine_without_the_library_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    (problem,) = problems(Settings(instance=InstanceSettings(app="a", group="g")))

    assert (
        "instance.runtime",
        "docker needs a Python package that is missing: pip install 'outrider[docker]'",
    ) == problem


def test_docker_answers_where_the_settings_say_or_the_environment() -> None:
    given, told, default = (
        Engine(address, timeout_s=1, environment=environment).address
        for address, environment in (
            ("unix:///a", {"DOCKER_HOST": "unix:///b"}), ("", {"DOCKER_HOST": "unix:///b"}), ("", {}),
        )
    )  # fmt: skip

    assert ("unix:///a", "unix:///b", "unix:///var/run/docker.sock") == (given, told, default)
