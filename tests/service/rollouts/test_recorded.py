"""What a sidekick is offered is listed in its group's target, with its digest, before the answer leaves the service."""

import pytest

from outrider.core.omaha import Offer
from outrider.core.release import ReleaseId
from outrider.etcd.seam import Cluster
from outrider.model.documents import Target
from outrider.service.store.store import Store
from outrider.sidekick.provenance import NotRecorded, RecordedInEtcd
from tests.service.rollouts.test_new_machines import STANDSTILLS, serve
from tests.support.service_examples import APP, payload_of
from tests.support.service_fleets import Fleet


def release_of(version: str) -> ReleaseId:
    return ReleaseId(version=version, sha256=payload_of(version).sha256)


def target(store: Store) -> Target:
    found = store.context.get(Target, store.context.keys.target(APP, "beta"))
    assert found is not None
    return found


def offered(fleet: Fleet, running: str, instance: str = "web-1") -> ReleaseId:
    """What a sidekick takes from the answer."""
    answer = fleet.checks(instance, running, takes_turns=True, release=ReleaseId(version=running))
    assert isinstance(answer, Offer)
    assert answer.release is not None
    return answer.release


def provenance(cluster: Cluster, store: Store) -> RecordedInEtcd:
    return RecordedInEtcd(cluster, store.context.keys, app=APP, group="beta")


def test_the_target_lists_a_floor_from_its_first_offer_on(fleet: Fleet, store: Store) -> None:
    store.floors.set(APP, "beta", "1.5.0")
    before = target(store)
    cluster = store.context.cluster
    with pytest.raises(NotRecorded):
        provenance(cluster, store).check(release_of("1.5.0"))

    release = offered(fleet, "1.0.0")

    provenance(cluster, store).check(release)
    assert ((), (release_of("1.5.0"),)) == (before.others, target(store).others)
    assert (before.version, before.sha256) == (target(store).version, target(store).sha256)


def test_a_second_offer_writes_nothing(fleet: Fleet, store: Store) -> None:
    store.floors.set(APP, "beta", "1.5.0")
    offered(fleet, "1.0.0")
    cluster, key = store.context.cluster, store.context.keys.target(APP, "beta")
    first = cluster.get(key)

    offered(fleet, "1.0.0", "web-2")
    offered(fleet, "1.5.0", "web-3")

    assert first == cluster.get(key)


@pytest.mark.parametrize("stands_still", STANDSTILLS.values(), ids=list(STANDSTILLS))
def test_what_the_group_serves_is_listed_for_a_new_machine(fleet: Fleet, store: Store, stands_still: object) -> None:
    serve(fleet, "1.0.0", "web-1")
    stands_still(fleet)  # type: ignore[operator]

    release = offered(fleet, "0.0.0", "web-9")

    assert release_of("1.0.0") == release
    provenance(store.context.cluster, store).check(release)


def test_another_target_lists_nothing_of_before(fleet: Fleet, store: Store) -> None:
    store.floors.set(APP, "beta", "1.5.0")
    offered(fleet, "1.0.0")

    store.channels.save(APP, "beta", version="1.0.0")

    assert (release_of("1.0.0"),) == target(store).releases


def test_a_foreign_client_lets_nothing_be_listed(fleet: Fleet, store: Store) -> None:
    store.floors.set(APP, "beta", "1.5.0")

    fleet.granted("web-1", "1.0.0")

    assert () == target(store).others
