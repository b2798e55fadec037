"""A store that can write is bound: to a request, or to a reason why nothing is audited. There is no third way.

The ``type: ignore`` lines are checks as well: mypy reports each of them as unused as soon as it allows the call.
"""

import pytest

from outrider.core.errors import PreconditionFailed
from outrider.service.history.webhooks import Webhooks
from outrider.service.store.apps import Apps
from outrider.service.store.audit import AuditLog, Wanted
from outrider.service.store.changes import Change, Unaudited, apply
from outrider.service.store.request import Condition, Principal, RequestContext
from outrider.service.store.store import Stores, open_stores
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.wall_clock import WallClock


@pytest.fixture
def stores(client: FakeCluster, clock: WallClock) -> Stores:
    return open_stores(client, now=clock)


def request_of(name: str = "ann", condition: Condition | None = None) -> RequestContext:
    principal = Principal(name=name, role="operator")
    return RequestContext(principal=principal, did="PUT /there", request_id="1", condition=condition)


def test_stores_that_are_not_bound_have_nothing_to_write_with(stores: Stores) -> None:
    with pytest.raises(AttributeError):
        stores.apps  # type: ignore[attr-defined]  # noqa: B018
    assert {"context", "audit_log", "audited", "on_behalf_of", "unaudited"} == {
        name for name in dir(stores) if not name.startswith("_")
    }


def test_a_resource_store_cannot_be_made_without_saying_how_it_is_audited(stores: Stores) -> None:
    with pytest.raises(TypeError, match="auditing"):
        Apps(context=stores.context)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="auditing"):
        Webhooks(context=stores.context)  # type: ignore[call-arg]


def test_a_change_cannot_be_applied_without_saying_how_it_is_audited(client: FakeCluster, fake_etcd: FakeEtcd) -> None:
    def attempt(change: Change) -> None:
        change.delete("/outrider/v1/apps/web")

    with pytest.raises(TypeError, match="auditing"):
        apply(client, attempt)  # type: ignore[call-arg]
    with pytest.raises(AssertionError):
        apply(client, attempt, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="auditing"):
        Change(client).commit()  # type: ignore[call-arg]
    assert 0 == len(fake_etcd.entries)


@pytest.mark.parametrize("reason", ["", "  "])
def test_an_unaudited_store_needs_a_reason(stores: Stores, reason: str) -> None:
    with pytest.raises(ValueError, match="why"):
        stores.unaudited(reason)


def test_a_bound_store_records_its_request_and_an_unaudited_one_nothing(stores: Stores) -> None:
    stores.unaudited("a test").apps.create(app="quiet")
    stores.on_behalf_of(request_of("ann")).apps.create(app="recorded")

    entries = [one.entry for one in stores.audit_log.list(Wanted(), limit=10)]
    assert [("ann", "recorded", "PUT /there")] == [(entry.who, entry.name, entry.did) for entry in entries]


def test_two_requests_at_once_do_not_mix(stores: Stores) -> None:
    ann, bob = (stores.on_behalf_of(request_of(name)) for name in ("ann", "bob"))
    ann.apps.create(app="of-ann")
    bob.apps.create(app="of-bob")
    ann.apps.save("of-bob", label="by ann")

    entries = [one.entry for one in AuditLog(context=stores.context).list(Wanted(), limit=10)]
    assert [("ann", "of-bob"), ("bob", "of-bob"), ("ann", "of-ann")] == [(one.who, one.name) for one in entries]


def test_a_request_sees_what_its_own_store_reads_and_writes(stores: Stores) -> None:
    mine, others = request_of("ann"), request_of("bob")
    stores.on_behalf_of(mine).apps.create(app="web")
    stores.on_behalf_of(others).apps.get("web")
    key = stores.context.keys.app("web")

    assert mine.seen.documents[key] == others.seen.documents[key]
    stores.on_behalf_of(mine).apps.delete("web")
    assert key not in mine.seen.documents
    assert key in others.seen.documents


def test_the_condition_of_a_request_is_for_its_first_change_alone(stores: Stores) -> None:
    key = stores.context.keys.app("web")
    request = request_of(condition=Condition(key=key, absent=True))
    apps = stores.on_behalf_of(request).apps
    apps.create(app="web")

    assert "again" == apps.save("web", label="again").document.label
    with pytest.raises(PreconditionFailed, match="apps/web exists already"):
        stores.on_behalf_of(request_of(condition=Condition(key=key, absent=True))).apps.save("web", label="refused")
    assert "again" == apps.get("web").label


def test_no_condition_is_asked_of_an_unaudited_change(stores: Stores) -> None:
    assert "a test" == Unaudited("a test").reason
    assert stores.unaudited("a test").apps.save("web").created
