"""The labels of an instance come with its sidekick's presence."""

from outrider.etcd.seam import Delete
from tests.support.service import NOON
from tests.support.service_examples import APP, be_alive
from tests.support.service_fleets import Fleet


def test_a_row_keeps_the_labels_that_the_presence_had_at_the_last_check_in(fleet: Fleet) -> None:
    """
    1. a client without a sidekick has none
    2. a sidekick's presence has some, then others
    3. the presence is gone: the row has the last ones
    """
    fleet.checks("web-1")
    assert {} == fleet.row("web-1").labels

    for rack in ("1", "2"):
        be_alive(fleet.store, "web-1", NOON, labels={"rack": rack})
        fleet.checks("web-1")
        assert {"rack": rack} == fleet.row("web-1").labels

    presence = fleet.store.context.keys.presence(APP, "beta", "web-1")
    fleet.store.context.cluster.txn((), (Delete(key=presence),))
    fleet.checks("web-1")

    assert {"rack": "2"} == fleet.row("web-1").labels
