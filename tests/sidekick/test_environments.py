"""What a release is started with on this machine: kept, resolved before the start, and watched after it."""

import stat
from pathlib import Path

import pytest

from outrider.core.environment import Environment
from outrider.core.errors import DriverError
from outrider.core.sidekick.memory import Installed, Release
from outrider.etcd.seam import Cluster, Put
from outrider.etcd.seam import Delete as DeleteKey
from outrider.model.documents import encode
from outrider.model.environments import GroupEnvironment
from outrider.model.keys import Keys
from outrider.sidekick.environments import Environments, ReferenceWatch
from tests.sim.fake_etcd import FakeCluster
from tests.support.service import NOON

APP, GROUP = "app", "web"
KEYS = Keys()


def put(cluster: Cluster, number: int, environment: Environment) -> Release:
    """The environment in etcd, and the release that is started with it."""
    digest = environment.digest("salt")
    document = GroupEnvironment(
        number=number, variables=dict(environment.variables), secrets=dict(environment.secrets),
        references=dict(environment.references), arguments=environment.arguments, salt="salt", digest=digest, at=NOON,
    )  # fmt: skip
    cluster.txn((), (Put(key=KEYS.environment(APP, GROUP, number), value=encode(document)),))
    return Release(
        version="2.0.0", urls=(), sha256="a" * 64, size_bytes=1, environment=number, environment_digest=digest
    )


def environments(cluster: Cluster, folder: Path, machine: dict[str, str] | None = None) -> Environments:
    return Environments(cluster, KEYS, app=APP, group=GROUP, state_dir=folder, machine=machine or {})


def test_a_release_without_an_environment_is_started_with_nothing(client: FakeCluster, tmp_path: Path) -> None:
    release = Release(version="1.0.0", urls=(), sha256="a" * 64, size_bytes=1)

    here = environments(client, tmp_path)
    here.fetch(release)

    assert {} == here.given(release).variables
    assert [] == list(tmp_path.iterdir())


def test_it_is_kept_for_a_rollback_where_only_its_user_reads_it(client: FakeCluster, tmp_path: Path) -> None:
    """Environment 1 is gone from etcd, and what runs with it is started again all the same."""
    release = put(client, 1, Environment(variables={"LOG": "debug"}, secrets={"KEY": "geheim"}, arguments=("-v",)))
    here = environments(client, tmp_path)
    here.fetch(release)
    client.txn((), (DeleteKey(key=KEYS.environment(APP, GROUP, 1)),))

    given = here.given(release)

    assert ({"LOG": "debug", "KEY": "geheim"}, ("-v",)) == (given.variables, given.arguments)
    assert "geheim" not in repr(given)
    (kept,) = (tmp_path / "environments").iterdir()
    assert not stat.S_IMODE(kept.stat().st_mode) & 0o077
    assert not stat.S_IMODE(kept.parent.stat().st_mode) & 0o077


def test_one_that_is_gone_says_so(client: FakeCluster, tmp_path: Path) -> None:
    release = Release(
        version="2.0.0", urls=(), sha256="a" * 64, size_bytes=1, environment=3, environment_digest="b" * 64
    )

    with pytest.raises(DriverError, match=r"environment 3 of group web is not in etcd any more") as caught:
        environments(client, tmp_path).fetch(release)

    assert "unknown" == caught.value.evidence, "neither the release nor this machine is at fault"


def test_another_content_under_the_same_number_is_refused(client: FakeCluster, tmp_path: Path) -> None:
    release = put(client, 1, Environment(variables={"LOG": "debug"}))
    put(client, 1, Environment(variables={"LOG": "nonsense"}))

    with pytest.raises(DriverError, match="its digest differs"):
        environments(client, tmp_path).fetch(release)


def test_references_are_read_on_this_machine(client: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/db").write_text("from systemd")
    release = put(client, 1, Environment(references={"KEY": f"file:{tmp_path}/key", "DB": "credential:db"}))

    given = environments(client, tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}).given(release)

    assert {"KEY": "from a file", "DB": "from systemd"} == given.variables


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("file:/nonexistent/key", "variable KEY: file:/nonexistent/key: can't read /nonexistent/key: No such file"),
        ("credential:db", "systemd has given this sidekick no credentials; add LoadCredential=db:PATH"),
        ("docker-secret:nonexistent", "can't read /run/secrets/nonexistent"),
    ],
)
def test_what_is_missing_is_this_machines_trouble(
    client: FakeCluster, tmp_path: Path, reference: str, words: str
) -> None:
    release = put(client, 1, Environment(references={"KEY": reference}))

    with pytest.raises(DriverError) as caught:
        environments(client, tmp_path).check(release)

    assert words in str(caught.value)
    assert "wrong-setting" == caught.value.evidence


def test_a_binary_file_is_no_value(client: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"a\x00b")
    release = put(client, 1, Environment(references={"KEY": f"file:{tmp_path}/key"}))

    with pytest.raises(DriverError, match="no text"):
        environments(client, tmp_path).given(release)


def test_a_file_that_changes_after_the_start_is_noticed_and_put_right_by_a_new_start(
    client: FakeCluster, tmp_path: Path
) -> None:
    """
    1. started with one content, nothing is said
    2. the file changes, and the notice names the variable; the value is nowhere on disk
    3. the next workload is started with the new content, and nothing is said of it
    """
    key = tmp_path / "key"
    key.write_text("geheim-1")
    release = put(client, 1, Environment(references={"KEY": f"file:{key}"}))
    here, told = environments(client, tmp_path), list[str]()
    here.fetch(release)
    running = Installed(release=release, workload_id="web-1-a")
    here.note_start(running, here.given(release))
    watch = ReferenceWatch(here, lambda: running, told.append)
    watch.look()

    key.write_text("geheim-2")
    watch.look()

    assert ["", "secret files changed since start (KEY): `rollout restart` applies them"] == told
    assert not [path for path in (tmp_path / "environments").iterdir() if b"geheim" in path.read_bytes()]
    running = Installed(release=release, workload_id="web-1-b")
    here.note_start(running, here.given(release))
    watch.look()
    assert "" == told[-1]


def test_what_is_no_longer_needed_goes(client: FakeCluster, tmp_path: Path) -> None:
    first = put(client, 1, Environment(variables={"A": "1"}))
    second = put(client, 2, Environment(variables={"A": "2"}))
    here = environments(client, tmp_path)
    here.fetch(first)
    here.fetch(second)

    here.prune((second,))

    assert [f"{second.environment_digest}.json"] == [path.name for path in (tmp_path / "environments").iterdir()]
