"""Real etcd behind TLS and behind users: who is let in, who gets a clear no, and what happens when tokens are lost."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outrider.core.errors import ConfigError, Refused, Unknown
from outrider.etcd.client import EtcdCluster, connect
from outrider.etcd.seam import Endpoint, EtcdAddress, Put
from tests.live.etcd_fixture import Diary, create
from tests.support.servers import EtcdServer, TlsFiles, make_tls_files
from tests.support.waiting import eventually

USER, PASSWORD = "sidekick", "s3cret"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return make_tls_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["plaintext", "tls"])
def guarded(
    request: pytest.FixtureRequest, tmp_path: Path, tls: TlsFiles, no_thread_left: None
) -> Iterator[EtcdServer]:
    """An etcd that wants a user, whose tokens end after two idle seconds; ``USER`` may use ``/mine/`` only."""
    server = EtcdServer(
        tmp_path / "etcd", tls=tls if request.param == "tls" else None, options=["--auth-token-ttl", "2"]
    )
    server.start().wait_ready()
    server.enable_auth(root_password="root", user=USER, password=PASSWORD, prefix="/mine/")
    yield server
    server.stop()


@pytest.fixture
def cluster(guarded: EtcdServer) -> Iterator[EtcdCluster]:
    connection = connect(guarded.address(user=USER, password=PASSWORD))
    yield connection
    connection.close()


@pytest.fixture
def locked(tmp_path: Path, tls: TlsFiles, no_thread_left: None) -> Iterator[EtcdServer]:
    """An etcd that wants a client certificate."""
    server = EtcdServer(tmp_path / "etcd", tls=tls, client_certificates=True).start().wait_ready()
    yield server
    server.stop()


def refusal(address: EtcdAddress) -> str:
    """What one read with this address ends with."""
    cluster = connect(address)
    try:
        with pytest.raises((Refused, Unknown)) as caught:
            cluster.get("/mine/a")
        return str(caught.value)
    finally:
        cluster.close()


def test_a_client_certificate_opens_etcd(locked: EtcdServer) -> None:
    cluster, diary = connect(locked.address()), Diary()
    watch = cluster.watch("/mine/", 1, diary)

    create(cluster, "/mine/a")

    eventually(lambda: diary.keys() == ["/mine/a"])
    lease = cluster.grant(10)
    assert cluster.keep_alive(lease) == 10.0
    watch.close()
    cluster.close()


def test_without_a_client_certificate_etcd_stays_closed(locked: EtcdServer) -> None:
    text = refusal(replace(locked.address(timeout_s=1.0), cert_file=None, key_file=None))

    assert "etcd doesn't answer (get): 127.0.0.1:" in text
    assert "\n" not in text


def test_a_server_of_another_authority_is_not_believed(locked: EtcdServer, tmp_path: Path) -> None:
    stranger = make_tls_files(tmp_path / "stranger")

    text = refusal(replace(locked.address(timeout_s=1.0), ca_file=str(stranger.ca)))

    assert "CERTIFICATE_VERIFY_FAILED" in text
    assert "\n" not in text


def test_plaintext_to_a_tls_server_is_one_clear_line(locked: EtcdServer) -> None:
    text = refusal(EtcdAddress(endpoints=(locked.endpoint,), timeout_s=1.0))

    assert "etcd doesn't answer (get): 127.0.0.1:" in text
    assert "\n" not in text


def test_a_user_reads_writes_leases_and_watches(cluster: EtcdCluster) -> None:
    diary = Diary()
    watch = cluster.watch("/mine/", 1, diary)
    lease = cluster.grant(10)

    cluster.txn((), (Put(key="/mine/a", value=b"1", lease=lease),))

    assert cluster.keep_alive(lease) == 10.0
    assert ["/mine/a"] == [entry.key for entry in cluster.list("/mine/").entries]
    eventually(lambda: diary.keys() == ["/mine/a"])
    cluster.revoke(lease)
    eventually(lambda: len(diary.events) == 2)
    watch.close()


def test_what_the_user_may_not_do_is_refused(cluster: EtcdCluster) -> None:
    with pytest.raises(Refused, match="permission denied"):
        cluster.get("/theirs/a")
    with pytest.raises(Refused, match="permission denied"):
        cluster.txn((), (Put(key="/theirs/a", value=b""),))
    with pytest.raises(Refused, match="permission denied"):
        cluster.watch("/theirs/", 1, Diary())


def test_a_wrong_password_and_an_unknown_user_are_refused_by_name(guarded: EtcdServer) -> None:
    assert f"user '{USER}'" in refusal(guarded.address(user=USER, password="wrong"))
    assert "user 'nobody'" in refusal(guarded.address(user="nobody", password="x"))


def test_a_watch_with_a_wrong_password_is_refused_and_does_not_hang(guarded: EtcdServer) -> None:
    cluster = connect(guarded.address(user=USER, password="wrong"))

    with pytest.raises(Refused, match="authentication failed"):
        cluster.watch("/mine/", 1, Diary())

    cluster.close()


def test_no_user_where_one_is_wanted_is_refused_with_that_reason(guarded: EtcdServer) -> None:
    assert "needs a user and a password" in refusal(guarded.address())


def test_a_user_where_none_is_wanted_is_no_obstacle(tmp_path: Path, no_thread_left: None) -> None:
    server = EtcdServer(tmp_path / "etcd").start().wait_ready()
    cluster = connect(server.address(user=USER, password=PASSWORD))

    create(cluster, "/mine/a")

    assert cluster.get("/mine/a") is not None
    cluster.close()
    server.stop()


def test_calls_sign_in_again_when_the_server_was_restarted(guarded: EtcdServer, cluster: EtcdCluster) -> None:
    create(cluster, "/mine/a")
    lease = cluster.grant(30)

    guarded.restart()

    eventually(lambda: answers(cluster))
    assert cluster.keep_alive(lease) == 30.0
    cluster.txn((), (Put(key="/mine/b", value=b"", lease=lease),))
    assert ["/mine/a", "/mine/b"] == [entry.key for entry in cluster.list("/mine/").entries]


def test_a_watch_goes_on_when_the_server_was_restarted(guarded: EtcdServer, cluster: EtcdCluster) -> None:
    diary = Diary()
    watch = cluster.watch("/mine/", 1, diary)
    create(cluster, "/mine/a")

    guarded.restart()
    create(cluster, "/mine/b")

    eventually(lambda: diary.keys() == ["/mine/a", "/mine/b"])
    watch.close()


def test_a_new_watch_with_a_token_that_etcd_has_forgotten_works(guarded: EtcdServer, cluster: EtcdCluster) -> None:
    """etcd answers such a watch with created *and* canceled; taken for a success it would hang forever."""
    create(cluster, "/mine/a")
    forget_token(cluster)
    diary = Diary()

    watch = cluster.watch("/mine/", 1, diary)

    eventually(lambda: diary.keys() == ["/mine/a"])
    watch.close()


@pytest.mark.parametrize("call", ["get", "txn", "grant", "keep_alive"])
def test_a_call_with_a_token_that_etcd_has_forgotten_works_at_once(
    guarded: EtcdServer, cluster: EtcdCluster, call: str
) -> None:
    lease = cluster.grant(30)
    forget_token(cluster)

    if call == "get":
        assert cluster.get("/mine/a") is None
    elif call == "txn":
        assert cluster.txn((), (Put(key="/mine/a", value=b""),)).succeeded
    elif call == "grant":
        assert cluster.grant(30) > 0
    else:
        assert cluster.keep_alive(lease) == 30.0


def test_a_token_that_idled_too_long_is_renewed(guarded: EtcdServer, cluster: EtcdCluster) -> None:
    """Tokens live for two idle seconds here; etcd looks for dead ones once a second."""
    create(cluster, "/mine/a")
    token, began = current_token(cluster), time.monotonic()
    eventually(lambda: time.monotonic() - began > 4.5, every_s=0.1)

    assert cluster.get("/mine/a") is not None

    assert current_token(cluster) != token


def test_a_role_that_changes_does_not_break_calls(guarded: EtcdServer, cluster: EtcdCluster) -> None:
    """Every change of rights makes etcd's auth revision newer than the one in the tokens."""
    create(cluster, "/mine/a")

    guarded.control("role", "grant-permission", "outrider", "--prefix=true", "readwrite", "/more/", user="root:root")

    assert cluster.get("/mine/a") is not None
    create(cluster, "/more/a")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"endpoints": ()}, "has no endpoints"),
        ({"user": "a"}, "user and password need each other"),
        ({"cert_file": "/a"}, "cert_file and key_file need each other"),
        ({"cert_file": "/a", "key_file": "/a"}, "cert_file needs ca_file"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file /nowhere/ca.pem: No such file"),
        ({"ca_file": "/etc/hostname"}, "ca_file /etc/hostname is not a PEM file"),
    ],
)
def test_an_address_that_can_not_work_is_refused_before_anything_is_sent(
    guarded_address: EtcdAddress, change: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        connect(replace(guarded_address, **change))  # type: ignore[arg-type]

    assert "\n" not in str(caught.value)


@pytest.fixture
def guarded_address() -> EtcdAddress:
    return EtcdAddress(endpoints=(Endpoint(host="127.0.0.1", port=1),))


def answers(cluster: EtcdCluster) -> bool:
    try:
        cluster.get("/mine/a")
    except Unknown:
        return False
    return True


def current_token(cluster: EtcdCluster) -> str | None:
    with cluster._nodes.connected() as connection:
        return connection.token


def forget_token(cluster: EtcdCluster) -> None:
    """Make the client hold a token that etcd doesn't know, on a connection that works."""
    with cluster._nodes.connected() as connection:
        connection.token = "never.seen"
