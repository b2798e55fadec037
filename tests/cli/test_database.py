"""``outrider database backup`` and ``restore``, as an operator types them, on a real etcd."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner, Result

from outrider.cli import main
from outrider.etcd.seam import Cluster, Put
from tests.support.service import Service
from tests.support.service_examples import APP, make_app, open_store
from tests.support.waiting import eventually

Run = Callable[..., Result]


@pytest.fixture
def run(service: Service) -> Run:
    """Run a command line on the service's etcd; ``below`` another prefix."""

    def typed(command: str, *, below: str = "", code: int = 0, stdin: bytes | None = None, yes: str = "") -> Result:
        environment = {"OUTRIDER_ETCD": service.etcd, "OUTRIDER_PREFIX": service.prefix + below}
        environment["OUTRIDER_SERVE_PAYLOAD_DIR"] = str(service.payload_dir)
        result = CliRunner().invoke(main, shlex.split(command), env=environment, input=stdin or yes)
        assert code == result.exit_code, f"{command}: {result.output}{result.exception!r}"
        return result

    return typed


def upload(service: Service) -> None:
    stored = requests.post(f"{service.url}/api/v1/payloads", data=b"hello", timeout=60).json()
    new = {"version": "3.0.0", "stored": stored["sha256"], "name": "web.tar"}
    assert requests.post(f"{service.url}/api/v1/apps/{APP}/packages", json=new, timeout=60).ok


def test_a_backup_is_a_private_file_that_restores_everything_elsewhere(
    run: Run, service: Service, cluster: Cluster, tmp_path: Path
) -> None:
    make_app(service.store, version="2.0.0")
    upload(service)
    file = tmp_path / "backup.jsonl"

    taken = run(f"database backup {file}")
    restored = run(f"database restore {file} --yes", below="-2")

    other = open_store(cluster, f"{service.prefix}-2")
    assert 0o600 == file.stat().st_mode & 0o777
    assert [file.name] == [path.name for path in tmp_path.glob("*backup*")]
    assert "warning" not in taken.stderr
    assert "0 replaced" in restored.stdout
    assert service.store.packages.list(APP) == other.packages.list(APP)
    assert "2.0.0" == other.groups.target(APP, "beta").version


def test_a_pipe_will_do(run: Run, service: Service) -> None:
    make_app(service.store)

    taken = run("database backup -")
    run("database restore - --yes", below="-2", stdin=taken.stdout_bytes)

    assert "outrider backup" == json.loads(taken.stdout_bytes.splitlines()[0])["format"]


def test_payloads_that_lack_are_named_and_stop_a_restore(run: Run, service: Service, tmp_path: Path) -> None:
    make_app(service.store)
    upload(service)
    empty = tmp_path / "empty"
    file = tmp_path / "backup.jsonl"

    taken = run(f"database backup {file} --payload-dir={empty}")
    refused = run(f"database restore {file} --yes --payload-dir={empty}", below="-2", code=1)
    run(f"database restore {file} --yes --payload-dir={empty} --without-payloads", below="-2")

    assert f"warning: {APP} 3.0.0: no stored payload" in taken.stderr
    assert "Error: 1 payloads are missing" in refused.stderr


def test_a_damaged_payload_lacks(run: Run, service: Service, tmp_path: Path) -> None:
    make_app(service.store)
    upload(service)
    (stored,) = (path for path in (service.payload_dir / "sha256").rglob("*") if path.is_file())
    stored.write_bytes(b"hullo")

    assert "damaged, its SHA-256 is" in run(f"database backup {tmp_path / 'b'}").stderr


def test_a_restore_asks_and_no_means_no(run: Run, service: Service, cluster: Cluster, tmp_path: Path) -> None:
    make_app(service.store)
    file = tmp_path / "backup.jsonl"
    run(f"database backup {file}")

    run(f"database restore {file}", below="-2", code=1, yes="n\n")

    assert () == cluster.list(f"{service.prefix}-2/").entries


def test_a_restore_over_something_needs_replace(run: Run, service: Service, tmp_path: Path) -> None:
    make_app(service.store)
    file = tmp_path / "backup.jsonl"
    run(f"database backup {file}")
    service.store.apps.create(app="later")

    refused = run(f"database restore {file} --yes", code=1)
    replaced = run(f"database restore {file} --yes --replace")

    assert "--replace removes them first" in refused.stderr
    assert "7 replaced" in replaced.stdout  # two apps, two packages, a channel, a group, a target
    assert [APP] == [app.id for app in service.store.apps.list()]


@pytest.mark.parametrize("content", [b"", b"no backup\n", b"{}\n{}\n"])
def test_what_is_no_backup_is_one_clear_line(run: Run, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)

    refused = run(f"database restore {file} --yes", code=1)

    assert refused.stderr.startswith("Error: backup: ")
    assert 1 == len(refused.stderr.splitlines())


def test_files_that_cannot_be_read_or_written_are_one_clear_line(run: Run, tmp_path: Path) -> None:
    assert "No such file" in run(f"database restore {tmp_path}/absent --yes", code=1).stderr
    assert "No such file" in run(f"database backup {tmp_path}/absent/file", code=1).stderr


def test_the_service_gives_an_admin_the_same_backup(service: Service, run: Run, tmp_path: Path) -> None:
    token = run("database init").stdout.strip()
    make_app(service.store)
    viewer = service.store.users.create("eve", "viewer").token
    url = f"{service.url}/api/v1/database/backup"
    eventually(lambda: requests.get(url, headers={"Authorization": f"Bearer {viewer}"}, timeout=60).status_code == 403)

    answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    file = tmp_path / "backup.jsonl"
    run(f"database backup {file}")
    assert file.read_bytes().splitlines()[1:-1] == answer.content.splitlines()[1:-1]
    assert "application/jsonl" == answer.headers["content-type"]


def test_a_service_says_that_it_is_not_ready_while_a_restore_is_broken_off(service: Service, cluster: Cluster) -> None:
    cluster.txn((), (Put(key=f"{service.prefix}/restoring", value=b"{}"),))

    answer = requests.get(f"{service.url}/readyz", timeout=60)

    assert 503 == answer.status_code
    assert "restore" in answer.text
