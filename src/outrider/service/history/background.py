"""What a process of the service does besides answering: it writes down what happens, and tells webhooks."""

from collections.abc import Iterator
from contextlib import contextmanager

from outrider.etcd.seam import Cluster
from outrider.model.keys import Keys
from outrider.service.history.recorder import Chronicler
from outrider.service.history.webhook_sender import RETRY_MIN_S, Messenger
from outrider.service.history.webhooks import Webhooks
from outrider.service.store.context import Clock, Place
from outrider.service.store.store import utc_now


@contextmanager
def tellers(cluster: Cluster, prefix: str, now: Clock = utc_now, *, retry_min_s: float = RETRY_MIN_S) -> Iterator[None]:
    """Run both for as long as the block takes; any number of processes may."""
    place = Place(cluster=cluster, keys=Keys(prefix), now=now)
    webhooks = Webhooks(place=place)
    chronicler = Chronicler(cluster, place.keys, now, also=webhooks.deliveries)
    messenger = Messenger(webhooks, retry_min_s=retry_min_s)
    chronicler.start()
    messenger.start()
    try:
        yield
    finally:
        chronicler.close()
        messenger.close()
