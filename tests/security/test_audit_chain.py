"""The audit log shows every change of itself, and no clock erases it."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from outrider.cli import main
from outrider.core.errors import Unknown
from outrider.etcd.seam import Cluster, Delete, DeletePrefix, Put
from outrider.model.documents import decode
from outrider.service.operations.backups import backup_lines, read_backup, restore
from outrider.service.store.audit import AuditEntry, AuditLog, Wanted
from outrider.service.store.audit_chain import Head
from outrider.service.store.changes import Audited
from outrider.service.store.request import Edit, Principal, RequestContext
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.servers import EtcdServer
from tests.support.service import WallClock
from tests.support.service_examples import open_store

DAY_S = 24 * 3600
ANN = Principal(name="ann", role="admin")


def process(store: Store, kept_days: int = 90) -> tuple[AuditLog, Store]:
    """What one more process of the service writes with."""
    log = AuditLog(context=store.context, kept_days=kept_days)
    request = RequestContext(principal=ANN, did="a test", request_id="1")
    return log, Store(context=store.context, auditing=Audited(request=request, log=log))


def findings(log: AuditLog, exported: dict[str, Head] | None = None) -> list[str]:
    return list(log.verify(exported or {}).findings)


def entry_keys(etcd: FakeEtcd) -> list[str]:
    return sorted(key for key in etcd.entries if "/audit/entries/" in key)


@pytest.fixture
def log(store: Store, clock: WallClock) -> AuditLog:
    """Two processes have written over two days."""
    first, second = process(store), process(store)
    for number in range(8):
        (first if number % 2 else second)[1].apps.create(app=f"app-{number}")
        clock.advance(DAY_S / 4)
    return first[0]


def test_what_is_as_it_was_written_is_found_to_be(log: AuditLog, store: Store) -> None:
    verdict = log.verify(log.heads())

    assert ((), (), 8, 2, 0) == (
        verdict.findings, verdict.notes, verdict.entries, verdict.chains, verdict.unchained,
    )  # fmt: skip


def change(value: bytes) -> bytes:
    return value.replace(b'"who":"ann"', b'"who":"eve"')


@pytest.mark.parametrize("position", range(8))
@pytest.mark.parametrize("rewritten", [True, False], ids=["changed", "taken out"])
def test_every_single_entry_is_missed_or_seen_to_be_changed(
    log: AuditLog, client: FakeCluster, fake_etcd: FakeEtcd, position: int, rewritten: bool
) -> None:
    key = entry_keys(fake_etcd)[position]
    value = fake_etcd.entries[key].value
    assert value != change(value)

    client.txn((), (Put(key=key, value=change(value)) if rewritten else Delete(key=key),))

    assert any("was changed" in line if rewritten else "is gone" in line for line in findings(log))


def test_an_entry_that_was_put_in_is_found(log: AuditLog, client: FakeCluster, fake_etcd: FakeEtcd) -> None:
    key = entry_keys(fake_etcd)[3]

    client.txn((), (Put(key=f"{key[:-4]}beef", value=change(fake_etcd.entries[key].value)),))

    assert any("has the place of" in line for line in findings(log))


def test_a_chain_that_is_cut_at_its_end_is_found(log: AuditLog, client: FakeCluster, fake_etcd: FakeEtcd) -> None:
    """Somebody takes out the last entry of a chain and sets its head back, so that the chain itself is sound."""
    exported = log.heads()
    entries = {key: decode(AuditEntry, key, fake_etcd.entries[key].value) for key in entry_keys(fake_etcd)}
    key, last = list(entries.items())[-1]
    assert last.link is not None
    assert last.link.previous is not None

    head = Put(key=f"/outrider/v1/audit/heads/{last.link.chain}", value=msgspec.json.encode(last.link.previous))
    client.txn((), (Delete(key=key), head))

    assert [] == findings(log), "who may write to etcd can do that, as long as no head was kept elsewhere"
    assert any("an exported head names it" in line for line in findings(log, exported))


def test_a_chain_that_is_taken_out_as_a_whole_is_missed(
    log: AuditLog, store: Store, client: FakeCluster, fake_etcd: FakeEtcd, clock: WallClock
) -> None:
    """The next process names the heads that it finds, and the earlier ones each other's."""
    third = process(store)[1]
    third.apps.create(app="app-9")
    chain = _chain_of(fake_etcd, entry_keys(fake_etcd)[0])
    gone = [key for key in entry_keys(fake_etcd) if _chain_of(fake_etcd, key) == chain]

    client.txn((), (*(Delete(key=key) for key in gone), Delete(key=f"/outrider/v1/audit/heads/{chain}")))

    assert any("is gone" in line for line in findings(log))


def _chain_of(etcd: FakeEtcd, key: str) -> str:
    link = decode(AuditEntry, key, etcd.entries[key].value).link
    return link.chain if link else ""


def test_a_day_that_somebody_removes_is_missed(log: AuditLog, client: FakeCluster, store: Store) -> None:
    day = min(one.id for one in log.list(Wanted(), limit=100))[:10]

    keys = store.context.keys
    client.txn((), (DeletePrefix(prefix=keys.audit_entries(day)), Delete(key=keys.audit_days() + day)))

    assert any(f"({day}) is gone" in line for line in findings(log))


def test_a_day_that_is_too_old_goes_and_is_explained(store: Store, clock: WallClock) -> None:
    log, bound = process(store, kept_days=3)
    for number in range(10):
        bound.apps.create(app=f"app-{number}")
        clock.advance(DAY_S)

    verdict = log.verify({})

    assert () == verdict.findings
    assert 3 == len({one.id[:10] for one in log.list(Wanted(), limit=100)})


@pytest.mark.parametrize("off_days", [40_000, 400, 89, -1, -89, -400, -9_000])
def test_a_process_with_a_wrong_clock_erases_next_to_nothing(store: Store, clock: WallClock, off_days: int) -> None:
    """One pass removes one day at most, and the oldest: neither all that the clock says is old, nor what it wrote."""
    log, bound = process(store, kept_days=10)
    for number in range(10):
        bound.apps.create(app=f"app-{number}")
        clock.advance(DAY_S)
    wrong, off = process(store, kept_days=10)

    clock.advance(off_days * DAY_S)
    off.apps.create(app="of-the-wrong-clock")
    clock.advance(-off_days * DAY_S)

    names = [one.entry.name for one in log.list(Wanted(), limit=100) if one.entry.noun == "app"]
    assert {"of-the-wrong-clock", *(f"app-{number}" for number in range(1, 10))} <= set(names)
    assert () == wrong.verify({}).findings


def test_a_clock_that_jumps_about_removes_one_day_for_each_that_it_makes_up(store: Store, clock: WallClock) -> None:
    log, bound = process(store, kept_days=10)
    for number in range(10):
        bound.apps.create(app=f"app-{number}")
        clock.advance(DAY_S)
    _, off = process(store, kept_days=10)
    for number in range(3):
        clock.advance(500 * DAY_S)
        off.apps.create(app=f"off-{number}")

    names = {one.entry.name for one in log.list(Wanted(), limit=100) if one.entry.noun == "app"}
    assert {f"app-{number}" for number in range(3, 10)} | {f"off-{number}" for number in range(3)} == names


def test_no_answer_of_etcd_begins_another_chain_and_nothing_is_wrong(
    store: Store, client: FakeCluster, clock: WallClock
) -> None:
    log, bound = process(store)
    bound.apps.create(app="one")

    def unanswered(call: str, moment: str) -> None:
        if call == "txn":
            raise Unknown("no answer")

    client.trouble = unanswered
    with pytest.raises(Unknown):
        log.record(RequestContext(principal=ANN, did="x", request_id="2"), Edit(key="/x", before=None, after=b"{}"))
    client.trouble = None
    bound.apps.create(app="two")

    verdict = log.verify({})
    assert ((), 2, 2) == (verdict.findings, verdict.chains, verdict.entries)


def test_a_restored_backup_replaces_the_log_and_that_is_a_note(log: AuditLog, store: Store, clock: WallClock) -> None:
    backup = read_backup(list(backup_lines(store.context)))
    _, bound = process(store)
    bound.apps.create(app="later")
    exported = log.heads()

    restore(store.context, backup, Audited(
        request=RequestContext(principal=ANN, did="restore", request_id="3"), log=AuditLog(context=store.context),
    ), replace=True)  # fmt: skip

    verdict = log.verify(exported)
    assert () == verdict.findings
    assert any("a backup was restored meanwhile" in line for line in verdict.notes)


def test_entries_of_an_earlier_version_are_counted_and_not_found_fault_with(
    log: AuditLog, client: FakeCluster, fake_etcd: FakeEtcd
) -> None:
    key = entry_keys(fake_etcd)[0]
    facts = json.loads(fake_etcd.entries[key].value) | {"link": None}

    client.txn((), (Put(key=f"{key[:-4]}beef", value=json.dumps(facts).encode()),))

    assert (1, []) == (log.verify({}).unchained, findings(log))


def test_an_operator_verifies_the_log_at_etcd(
    cluster: Cluster, etcd_server: EtcdServer, prefix: str, tmp_path: Path
) -> None:
    below = prefix.rstrip("/")
    store = open_store(cluster, below)
    _, bound = process(store)
    for app in ("one", "two"):
        bound.apps.create(app=app)
    etcd = ["--etcd", f"127.0.0.1:{etcd_server.port}", "--prefix", below]

    def typed(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, [*words, *etcd])
        return done.exit_code, done.output

    head = tmp_path / "head.json"
    head.write_text(typed("audit", "head")[1])
    sound = typed("audit", "verify", "--head", str(head))
    (entry, *_) = cluster.list(store.context.keys.audit_entries(f"{store.context.now():%Y-%m-%d}")).entries
    cluster.txn((), (Delete(key=entry.key),))
    broken, as_json = typed("audit", "verify"), typed("audit", "verify", "--json")

    assert (0, "ok: 2 entries in 1 chain\n") == sound
    assert (1, True) == (broken[0], "is gone" in broken[1])
    assert (1, False) == (as_json[0], json.loads(as_json[1].partition("\nError")[0])["ok"])
    for text in ("", "[]", "{}", '{"heads": []}', '{"heads": {"a": {}}}'):
        head.write_text(text)
        code, said = typed("audit", "verify", "--head", str(head))
        assert (1, True) == (code, "not what `audit head` printed" in said), text
