"""Secrets in backups: left out, or encrypted, and never in a file that others may read."""

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from outrider.cli import main
from outrider.core.errors import ConfigError
from outrider.etcd.seam import Cluster, Put
from outrider.model.documents import encode
from outrider.model.environments import GroupEnvironment
from outrider.service.history.webhooks import Webhooks
from outrider.service.operations.backup_secrets import Cipher, without_secrets
from outrider.service.operations.backups import backup_lines, read_backup, restore
from outrider.service.store.store import Store
from tests.service.operations.test_backups import request_on
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.servers import EtcdServer
from tests.support.service import NOON
from tests.support.service_examples import APP, make_app, open_store

PASSPHRASE = b"correct horse battery"
SECRETS = (b"whsec_", b"HOOKPATH", b"LETMEIN", b"token_sha256")


def filled(store: Store) -> None:
    make_app(store)
    store.users.begin("ann")
    Webhooks(context=store.context, auditing=store.auditing).create("ops", "https://93.184.215.14/HOOKPATH")
    environment = GroupEnvironment(
        number=1, variables={"MODE": "fast"}, secrets={"KEY": "LETMEIN"}, salt="5a17", digest="0" * 64, at=NOON
    )
    key = f"{store.context.keys.prefix}/environments/{APP}/beta/1"
    store.context.cluster.txn((), (Put(key=key, value=encode(environment)),))


@pytest.fixture
def cipher() -> Cipher:
    return Cipher.new(PASSPHRASE)


def values_of(etcd: FakeEtcd) -> dict[str, bytes]:
    apart = ("/audit/", "/cluster/")
    return {key: entry.value for key, entry in etcd.entries.items() if not any(part in key for part in apart)}


def test_encrypted_secrets_come_back_and_the_rest_is_readable(
    store: Store, fake_etcd: FakeEtcd, cipher: Cipher
) -> None:
    filled(store)

    lines = list(backup_lines(store.context, cipher=cipher))

    everything = b"".join(lines)
    assert [] == [secret for secret in SECRETS if secret in everything]
    assert b'"Example' in everything or b"Example" in everything
    other_etcd = FakeEtcd()
    other = open_store(other_etcd.client("other"))
    restore(other.context, read_backup(lines, PASSPHRASE), request_on(other))
    assert values_of(fake_etcd) == values_of(other_etcd)


def test_another_passphrase_a_missing_one_and_a_changed_line_are_refused(store: Store, cipher: Cipher) -> None:
    filled(store)
    lines = list(backup_lines(store.context, cipher=cipher))

    with pytest.raises(ConfigError, match="give the passphrase with --passphrase-file"):
        read_backup(lines)
    with pytest.raises(ConfigError, match="another passphrase, or it was changed"):
        read_backup(lines, b"incorrect horse battery")
    with pytest.raises(ConfigError, match="can't be decrypted"):
        cipher.decrypt("users/eve", cipher.encrypt("users/ann", b"{}"))
    with pytest.raises(ConfigError, match="12 characters or more"):
        Cipher.new(b"short")


@pytest.mark.parametrize(
    "header", [None, {}, {"kdf": "none"}, {"kdf": "scrypt", "salt": "!", "n": 2, "r": 1, "p": 1},
               {"kdf": "scrypt", "salt": "AAAA", "n": 2**30, "r": 8, "p": 1}, {"kdf": "scrypt", "n": "x"}],
)  # fmt: skip
def test_a_header_that_is_none_of_ours_costs_neither_memory_nor_time(header: object) -> None:
    with pytest.raises(ConfigError, match="doesn't say how its secrets are encrypted"):
        Cipher.of_header(header, PASSPHRASE)


def test_a_backup_without_secrets_has_none_and_says_so(store: Store) -> None:
    filled(store)

    lines = list(backup_lines(store.context, with_secrets=False))

    without_log = b"".join(line for line in lines if b'"key":"audit/' not in line)
    assert [] == [secret for secret in SECRETS if secret in without_log]
    backup = read_backup(lines)
    assert not backup.has_secrets
    environment = json.loads(backup.values[f"environments/{APP}/beta/1"])
    assert ({"KEY": ""}, {"MODE": "fast"}) == (environment["secrets"], environment["variables"])
    assert [b"whsec_", b"LETMEIN"] == [one for one in (b"whsec_", b"LETMEIN") if one not in b"".join(lines)]


@pytest.mark.parametrize("value", [b"", b"[]", b"\xff", b'{"secrets": 1}', b'{"secrets": ["x"'])
def test_an_environment_that_cannot_be_read_is_left_out_whole(value: bytes) -> None:
    assert without_secrets("environments/a/b/1", value) is None
    assert value == without_secrets("apps/a", value)


def test_an_operator_types_it_and_the_file_is_for_its_owner_alone(
    cluster: Cluster, etcd_server: EtcdServer, prefix: str, tmp_path: Path
) -> None:
    store = open_store(cluster, prefix.rstrip("/"))
    filled(store)
    file, passphrase = tmp_path / "backup.jsonl", tmp_path / "passphrase"
    passphrase.write_bytes(PASSPHRASE + b"\n")
    etcd = ["--etcd", f"127.0.0.1:{etcd_server.port}", "--prefix", prefix.rstrip("/")]
    payloads = ["--payload-dir", str(tmp_path)]

    def typed(*words: str) -> Result:
        return CliRunner().invoke(main, ["database", *words, *etcd, *payloads])

    before = os.umask(0)
    try:
        made = typed("backup", str(file), "--passphrase-file", str(passphrase))
    finally:
        os.umask(before)
    refused = typed("restore", str(file), "--replace", "--yes")
    restored = typed("restore", str(file), "--replace", "--yes", "--passphrase-file", str(passphrase))
    bare = typed("backup", "-", "--without-secrets")

    assert (0, 1, 0, 0) == tuple(each.exit_code for each in (made, refused, restored, bare)), restored.output
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert "give the passphrase" in refused.stderr
    assert "whsec_" not in bare.stdout
    assert ["ann"] == [user.name for user in store.users.list()]


def test_a_machine_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)

    with pytest.raises(ConfigError, match=r"pip install 'outrider\[backup\]'"):
        Cipher.new(PASSPHRASE)


def test_the_api_leaves_secrets_out_when_asked(store: Store, client: FakeCluster, tmp_path: Path) -> None:
    from tests.support.in_process import application_over, ask

    filled(store)
    token = store.users.create("root", "admin").token

    answer = ask(
        application_over(client, tmp_path), "GET", "/api/v1/database/backup?without_secrets=true",
        authorization=f"Bearer {token}",
    )  # fmt: skip

    assert (200, False) == (answer.status, b"whsec_" in answer.body)
