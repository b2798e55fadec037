"""The background tasks of a service process: it records activity events and sends webhooks."""

from collections.abc import Iterator
from contextlib import contextmanager

from outrider.etcd.seam import Cluster
from outrider.model.keys import Keys
from outrider.service.history.destinations import Destinations
from outrider.service.history.recorder import ActivityRecorder
from outrider.service.history.webhook_sender import RETRY_MIN_S, WebhookSender
from outrider.service.history.webhooks import Webhooks
from outrider.service.store.changes import Unaudited
from outrider.service.store.context import Clock, StoreContext
from outrider.service.store.store import utc_now


@contextmanager
def background_tasks(
    cluster: Cluster,
    prefix: str,
    now: Clock = utc_now,
    *,
    retry_min_s: float = RETRY_MIN_S,
    public_url: str | None = None,
    destinations: Destinations | None = None,
) -> Iterator[None]:
    """Run both while the block runs; any number of processes may.

    Args:
        public_url: For links in events.
        destinations: Where webhooks may lead; None: to public addresses.
    """
    context = StoreContext(cluster=cluster, keys=Keys(prefix), now=now)
    unaudited = Unaudited("webhook sender: the receiver answered 410 Gone")
    webhooks = Webhooks(context=context, auditing=unaudited, destinations=destinations or Destinations())
    activity_recorder = ActivityRecorder(cluster, context.keys, now, also=webhooks.deliveries, public_url=public_url)
    webhook_sender = WebhookSender(webhooks, retry_min_s=retry_min_s)
    activity_recorder.start()
    webhook_sender.start()
    try:
        yield
    finally:
        activity_recorder.close()
        webhook_sender.close()
