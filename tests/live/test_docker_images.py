"""Images from a real registry: pulled by digest while a release is downloaded, and every way in which that fails."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outrider.config.sections import DownloadSettings, InstanceSettings, Settings, WorkloadSettings
from outrider.core.blame import judge
from outrider.core.errors import DriverError
from outrider.core.images import ImagePlatform, parse_image
from outrider.payloads.transfer import Cancelled, PayloadError, TransferFailed, WriteFailed
from outrider.runtimes import RunnableRelease, WorkloadSpec
from outrider.runtimes.docker import DockerSettings
from outrider.runtimes.docker.runtime import DockerRuntime
from outrider.service.payloads.registry import HttpRegistries
from tests.support import docker_images
from tests.support.containers import docker_client
from tests.support.docker_images import Registry
from tests.support.registry_stub import RegistryStub
from tests.support.waiting import eventually

Make = Callable[..., DockerRuntime]


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with docker_images.registry() as running:
        yield running


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    state_dir = tmp_path / "state"
    state_dir.mkdir()

    def made(docker: DockerSettings | None = None, download: DownloadSettings | None = None) -> DockerRuntime:
        settings = Settings(
            instance=InstanceSettings(id="web", app="hello", group="g", state_dir=state_dir),
            workload=WorkloadSettings(stop_grace_s=5),
            download=download or DownloadSettings(),
        )
        return DockerRuntime(settings, docker or DockerSettings(), environment={})

    yield made
    docker_images.clean(state_dir)
    made().prune([])


def described(
    folder: Path, registry: str, digest: str, name: str = "example", version: str = "1.0.0"
) -> RunnableRelease:
    """A release whose payload describes an image as our service does."""
    image = f"{registry}/{name}:{version}"
    platforms: tuple[ImagePlatform, ...] = ()
    with contextlib.suppress(DriverError):
        platforms = HttpRegistries(timeout_s=5).resolve(parse_image(f"{image}@{digest}")).platforms
    path, sha256 = docker_images.descriptor(folder, image, digest, platforms=platforms)
    return RunnableRelease(version=version, sha256=sha256, payload=path)


def fresh(registry: Registry, version: str, name: str = "example") -> str:
    """Push an image that this machine then doesn't have; returns its digest."""
    local = docker_images.build(version, {"www/mark": f"{registry.host} {name} {version}\n"})
    digest = registry.push(local, f"{name}:{version}")
    docker_images.remove(local)
    return digest


def test_the_service_and_docker_agree_on_every_digest(registry: Registry) -> None:
    local = docker_images.build("9.0.0")
    digest = registry.push(local, "agree:9.0.0")

    found = HttpRegistries().resolve(parse_image(f"{registry.host}/agree:9.0.0"))

    with contextlib.closing(docker_client()) as client:
        assert client.images.get(local).id == found.platforms[0].config
    assert (digest, digest, "linux/amd64") == (found.digest, found.platforms[0].manifest, found.platforms[0].platform)
    assert ("9.0.0",) == HttpRegistries().tags(f"{registry.host}/agree")


def test_an_image_is_pulled_by_digest_with_progress_and_runs_without_the_registry(
    registry: Registry, make: Make, tmp_path: Path
) -> None:
    """
    1. fetching pulls it and tells progress
    2. its tag moves at the registry: what was announced is what runs
    3. preparing and starting ask nobody any more
    """
    digest = fresh(registry, "1.0.1")
    release = described(tmp_path, registry.host, digest, version="1.0.1")
    told: list[tuple[int, int]] = []
    runtime = make()

    runtime.fetch(release, lambda done, total: told.append((done, total)))

    assert told
    assert all(0 <= done <= total for done, total in told)
    registry.push(docker_images.build("6.6.6"), "example:1.0.1")
    with contextlib.closing(docker_client()) as client:
        assert [f"{registry.host}/example@{digest}"] == client.images.get(f"{registry.host}/example@{digest}").attrs[
            "RepoDigests"
        ]
    runtime.prepare(release)
    workload = runtime.start(WorkloadSpec(workload_id="web-1.0.1-aa", release=release))
    assert "image" == runtime.running()[0].kind
    assert workload == runtime.find("web-1.0.1-aa")


def test_the_image_before_is_kept_and_others_go(registry: Registry, make: Make, tmp_path: Path) -> None:
    runtime = make()
    releases = [
        described(tmp_path, registry.host, fresh(registry, version), version=version)
        for version in ("1.1.1", "1.1.2", "1.1.3")
    ]
    for release in releases:
        runtime.prepare(release)

    runtime.prune([releases[1].sha256, releases[2].sha256])

    with contextlib.closing(docker_client()) as client:
        kept = {
            tag.rpartition(":")[2] for one in client.images.list(name=runtime._images.repository) for tag in one.tags
        }
        left = [digest for one in client.images.list() for digest in one.attrs.get("RepoDigests") or ()]
    assert {releases[1].sha256, releases[2].sha256} == kept
    assert not any(releases[0].payload.read_text().partition('"digest":"')[2][:71] in digest for digest in left)


def failed(call: Callable[[], object]) -> PayloadError:
    with pytest.raises(PayloadError) as raised:
        call()
    return raised.value


def test_an_image_that_the_registry_does_not_have_is_nobodys_fault_yet(
    registry: Registry, make: Make, tmp_path: Path
) -> None:
    release = described(tmp_path, registry.host, "sha256:" + "ab" * 32)

    error = failed(lambda: make().fetch(release))

    assert (TransferFailed, "world") == (type(error), judge(error.evidence))
    assert "the registry has no such image (any more)" in str(error)
    with pytest.raises(DriverError, match="no such image"):
        make().start(WorkloadSpec(workload_id="web-1.0.0-aa", release=release))
    assert [] == docker_images.containers_of(tmp_path / "state")


def test_a_registry_that_is_away_is_tried_again(make: Make, tmp_path: Path) -> None:
    error = failed(lambda: make().fetch(described(tmp_path, "127.0.0.1:1", "sha256:" + "ab" * 32)))

    assert (TransferFailed, "network", "machine") == (type(error), error.evidence, judge(error.evidence))
    assert "connection refused" in str(error)


def test_a_registry_that_asks_for_credentials_gets_those_of_the_file(make: Make, tmp_path: Path) -> None:
    """
    1. without a file, with a wrong one and with one that can't be read: each says what to do
    2. with the right one the image is pulled
    """
    file = tmp_path / "auth.json"
    with docker_images.registry(asks=True) as private:
        release = described(tmp_path, private.host, fresh(private, "1.2.1"), version="1.2.1")

        error = failed(lambda: make().fetch(release))
        assert ("unknown", "world") == (error.evidence, judge(error.evidence))
        assert "the registry asks for credentials, or has no such image: see docker.auth_file" in str(error)
        file.write_text("nonsense")
        assert "not a file like Docker's config.json" in str(
            failed(lambda: make(DockerSettings(auth_file=file)).fetch(release))
        )
        file.write_bytes(private.config())
        make(DockerSettings(auth_file=file)).fetch(release)
        make().prepare(release)


def test_a_silent_registry_ends_at_the_silence_the_deadline_or_when_it_is_called_off(
    make: Make, tmp_path: Path
) -> None:
    stub = RegistryStub()
    stub.silent = threading.Event()
    try:
        release = described(tmp_path, stub.host, "sha256:" + "ab" * 32)
        silent = failed(lambda: make(None, DownloadSettings(timeout_s=1)).fetch(release))
        late = failed(lambda: make(None, DownloadSettings(deadline_s=1)).fetch(release))
        runtime = make()
        outcome: list[PayloadError] = []
        thread = threading.Thread(target=lambda: outcome.append(failed(lambda: runtime.fetch(release))))
        thread.start()
        eventually(lambda: runtime._images._pull is not None)
        runtime.cancel_fetch()
        thread.join(10)
    finally:
        stub.close()

    assert "nothing came for 1 s (download.timeout_s): the registry is slow or away" in str(silent)
    assert "after 1 s (download.deadline_s)" in str(late)
    assert [Cancelled] == [type(one) for one in outcome]
    assert {"machine"} == {judge(silent.evidence), judge(late.evidence)}


def test_what_does_not_fit_is_not_begun(
    registry: Registry, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = described(tmp_path, registry.host, fresh(registry, "1.3.1"), version="1.3.1")
    monkeypatch.setattr("outrider.runtimes.docker.images.free_bytes", lambda folder: 1000)

    error = failed(lambda: make().fetch(release))

    assert (WriteFailed, "disk-full") == (type(error), error.evidence)
    assert "no room on Docker's disk (/var/lib/docker)" in str(error)


def test_a_tag_alone_is_never_run(make: Make, tmp_path: Path) -> None:
    path, sha256 = docker_images.descriptor(tmp_path, "127.0.0.1:1/example:1.0.0", "")
    release = RunnableRelease(version="1.0.0", sha256=sha256, payload=path)

    assert "names no digest" in str(failed(lambda: make().fetch(release)))


def test_a_descriptor_that_was_tampered_with_is_not_pulled(registry: Registry, make: Make, tmp_path: Path) -> None:
    release = described(tmp_path, registry.host, fresh(registry, "1.4.1"), version="1.4.1")
    release.payload.write_bytes(release.payload.read_bytes().replace(b"example", b"exempla"))

    make().fetch(release)  # the download is proved afterwards, and says so

    with pytest.raises(DriverError, match="its SHA-256 isn't") as raised:
        make().prepare(release)
    assert "world" == judge(raised.value.evidence)
