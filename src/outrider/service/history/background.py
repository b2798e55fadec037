"""The background tasks of a service process: it records activity events and the history, and sends webhooks."""

from collections.abc import Iterator
from contextlib import contextmanager

from outrider.etcd.seam import Cluster
from outrider.model.keys import Keys
from outrider.service.destinations import Destinations
from outrider.service.history.history_recorder import MAX_BYTES, HistoryRecorder
from outrider.service.history.recorder import ActivityRecorder
from outrider.service.history.trace_exporter import Send, TraceExporter
from outrider.service.history.tracker import UPDATE_BYTES
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
    max_story_bytes: int = MAX_BYTES,
    max_story_update_bytes: int = UPDATE_BYTES,
    send_traces: Send | None = None,
) -> Iterator[None]:
    """Run all while the block runs; any number of processes may.

    Args:
        public_url: For links in events.
        destinations: Where webhooks may lead; None: to public addresses.
        max_story_bytes: Of the history of all groups.
        max_story_update_bytes: Of one update of one instance in it.
        send_traces: Sends rollouts as traces; None: nobody wants them.
    """
    context = StoreContext(cluster=cluster, keys=Keys(prefix), now=now)
    unaudited = Unaudited("webhook sender: the receiver answered 410 Gone")
    webhooks = Webhooks(context=context, auditing=unaudited, destinations=destinations or Destinations())
    activity_recorder = ActivityRecorder(cluster, context.keys, now, also=webhooks.deliveries, public_url=public_url)
    webhook_sender = WebhookSender(webhooks, retry_min_s=retry_min_s)
    traces = None if send_traces is None else TraceExporter(context, send_traces)
    history_recorder = HistoryRecorder(
        cluster,
        context.keys,
        now,
        max_bytes=max_story_bytes,
        update_bytes=max_story_update_bytes,
        on_written=None if traces is None else traces.wrote,
    )
    if traces is not None:
        traces.start()
    activity_recorder.start()
    history_recorder.start()
    webhook_sender.start()
    try:
        yield
    finally:
        activity_recorder.close()
        history_recorder.close()
        if traces is not None:
            traces.close()
        webhook_sender.close()
