"""A sidekick's switch that stands still right before its transaction: ``python -m tests.live.switch_child``.

It takes a turn under a lease that nobody keeps alive, stops itself (SIGSTOP) at the failpoint ``entry.write``, and when
it goes on, says what became of the transaction: ``done``, or the kind of the error.
"""

import os
import signal
import sys

from outrider.balancers.drivers import BALANCERS, BalancerContext
from outrider.core.errors import OutriderError
from outrider.etcd.address import endpoints_of
from outrider.etcd.client import connect
from outrider.etcd.seam import CreatedAt, EtcdAddress, Put
from outrider.failpoints import FailpointHit, observe
from outrider.model.keys import Keys, group_scope
from tests.contracts.kits.balancers import BALANCER_KITS
from tests.contracts.kits.settings import SERVICE, settings_with

TTL_S = 2.0
OWN = {kind: BALANCER_KITS[kind] for kind in ("vulcand", "keys", "apisix")}
"""Those that need settings of their own to write anything."""


def main() -> None:
    kind, endpoint, url, *more = sys.argv[1:]
    ttl_s = float(more[0]) if more else TTL_S
    endpoints, _ = endpoints_of([endpoint], tls=False)
    cluster = connect(EtcdAddress(endpoints=endpoints))
    context = BalancerContext(cluster=cluster, keys=Keys())
    entry = BALANCERS.load(kind).make(settings_with(kind, OWN[kind].settings if kind in OWN else None), context).entry
    slot = Keys().slot(group_scope(SERVICE, "g"), 0, "web-1")
    cluster.txn((), (Put(key=slot, value=b"mine", lease=cluster.grant(ttl_s)),))
    turn = cluster.get(slot)
    assert turn is not None

    def stand_still(hit: FailpointHit) -> None:
        if (hit.point, hit.when) == ("entry.write", "before"):
            observe(None)
            os.kill(os.getpid(), signal.SIGSTOP)

    observe(stand_still)
    try:
        entry.switch(url, fence=(CreatedAt(key=slot, revision=turn.create_revision),))
        print("done", flush=True)
    except OutriderError as error:
        print(error.kind, flush=True)
    cluster.close()


if __name__ == "__main__":
    main()
