"""Delivers the events in the webhooks' outbox: in order for each webhook, until the receiver has accepted them.

Any number of service processes may run: each works on an outbox while it holds the key ``webhook-senders/{name}`` under
a lease. An answer of 410 means that the receiver wants no more events, so its webhook is removed. Every other failure
is tried again, at growing intervals. Each event is delivered at least once: a repeat has the same ``webhook-id``.
"""

import threading
import time
from collections.abc import Callable

import requests
from loguru import logger

from outrider import __version__
from outrider.core.errors import DriverError, NotFound, OutriderError
from outrider.etcd.epoch_watch import EpochWatch
from outrider.etcd.seam import Cluster, CreatedAt, Delete, Entry, Put, WatchEvent
from outrider.model.damage import read_or_none
from outrider.service.history.chat import notify
from outrider.service.history.webhooks import Delivery, Webhook, Webhooks, body_of, signature

TIMEOUT_S = (5.0, 15.0)
"""Seconds to connect, and between two bytes. The specification advises 15 to 30 s in total."""
RETRY_MIN_S, RETRY_MAX_S = 5.0, 3600.0
LEASE_S = 60.0
LOOK_S = 15.0
"""Seconds between two checks for outboxes of dead processes, when no watch reports a change."""

Post = Callable[[str, bytes, dict[str, str]], int]
"""Posts a body to an address with headers; returns the status, 0 when there was no answer."""


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """Send one request; a redirect counts as a refusal, because a signature is for one receiver."""
    try:
        with requests.post(
            url, data=body, headers=headers, timeout=TIMEOUT_S, allow_redirects=False, stream=True
        ) as answer:  # fmt: skip
            return answer.status_code
    except requests.RequestException:
        return 0


class WebhookSender:
    """Works from ``start`` until ``close``, on one thread."""

    def __init__(
        self,
        webhooks: Webhooks,
        *,
        send: Post = post,
        retry_min_s: float = RETRY_MIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``retry_min_s``: seconds between the first two tries; the interval doubles up to an hour."""
        self._webhooks, self._send, self._retry_min_s, self._clock = webhooks, send, retry_min_s, clock
        self._cluster: Cluster = webhooks.context.cluster
        self._senders = f"{webhooks.context.keys.prefix}/webhook-senders/"
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._lease = 0
        self._lease_until = 0.0
        self._woken, self._closed, self._restored = threading.Event(), threading.Event(), threading.Event()
        self._epoch = EpochWatch(self._cluster, webhooks.context.keys, self._look_again)
        self._thread = threading.Thread(target=self._run, name="outrider-webhook-sender", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, also while etcd is away."""
        self._thread.start()
        self._epoch.start()

    def close(self) -> None:
        """Stop after the current request; undelivered events stay for the next process."""
        self._epoch.close()
        self._closed.set()
        self._woken.set()
        self._thread.join(sum(TIMEOUT_S) + 5.0)

    def _run(self) -> None:
        watch = None
        while not self._closed.is_set():
            self._woken.clear()
            wait_s = LOOK_S
            try:
                if self._restored.is_set():
                    self._restored.clear()
                    self._lease = 0  # the restored etcd doesn't know it
                    self._due.clear()
                    if watch is not None:
                        watch.look_again()
                if watch is None:
                    revision = self._cluster.list(self._webhooks.outbox).revision
                    watch = self._cluster.watch(self._webhooks.outbox, revision + 1, self._wake)
                wait_s = self._round()
            except OutriderError as error:
                logger.bind(error_kind=error.kind, cause=str(error), retry=True).warning("webhooks wait for etcd")
            self._woken.wait(wait_s)
        if watch is not None:
            watch.close()
        if self._lease:
            try:
                self._cluster.revoke(self._lease)
            except DriverError as error:
                logger.bind(error_kind=error.kind, cause=str(error)).warning("webhook senders left to their lease")

    def _look_again(self, why: str) -> None:
        """etcd was restored: what waits in its outbox is looked at at once."""
        self._restored.set()
        self._woken.set()

    def _wake(self, event: WatchEvent) -> None:
        self._woken.set()

    def _round(self) -> float:
        """Send the due deliveries; returns the seconds until the next one may be due."""
        waiting: dict[str, list[Entry]] = {}
        for entry in self._cluster.list(self._webhooks.outbox).entries:
            name = entry.key.removeprefix(self._webhooks.outbox).partition("/")[0]
            waiting.setdefault(name, []).append(entry)
        hooks = {hook.name: hook for hook in self._webhooks.list()} if waiting else {}
        wait_s = LOOK_S
        for name, entries in waiting.items():
            hook = hooks.get(name)
            if hook is None and self._webhooks.is_stored(name):
                continue  # its document can't be read: the deliveries wait until a person has mended or deleted it
            if hook is None:  # removed while an event was written
                for entry in entries:
                    self._cluster.txn((), (Delete(key=entry.key),))
            elif self._may_send(name):
                wait_s = min(wait_s, self._deliver(hook, sorted(entries, key=lambda one: one.create_revision)))
        return wait_s

    def _may_send(self, name: str) -> bool:
        """Whether this process works on this outbox now."""
        now = self._clock()
        if now > self._lease_until - LEASE_S / 2:
            if not self._lease or self._cluster.keep_alive(self._lease) <= 0:
                self._lease = self._cluster.grant(LEASE_S)
            self._lease_until = now + LEASE_S
        key = self._senders + name
        holder = self._cluster.get(key)
        if holder is not None:
            return holder.lease == self._lease
        put = Put(key=key, value=b"{}", lease=self._lease)
        return self._cluster.txn((CreatedAt(key=key, revision=0),), (put,)).succeeded

    def _deliver(self, hook: Webhook, entries: list[Entry]) -> float:
        for entry in entries:
            left_s = self._due.get(hook.name, 0.0) - self._clock()
            if left_s > 0:
                return left_s
            if self._closed.is_set() or not self._may_send(hook.name):
                return LOOK_S
            delivery = read_or_none(Delivery, entry.key, entry.value)
            if delivery is None:  # it would hold up the deliveries behind it forever
                self._cluster.txn((CreatedAt(key=entry.key, revision=entry.create_revision),), (Delete(key=entry.key),))
                continue
            status = self._post(hook, entry, delivery)
            if 200 <= status < 300:
                self._failures.pop(hook.name, None)
                self._cluster.txn((CreatedAt(key=entry.key, revision=entry.create_revision),), (Delete(key=entry.key),))
            elif status == 410:
                logger.bind(webhook=hook.name).warning("webhook gone, removed")
                self._forget(hook)
                return LOOK_S
            else:
                failures = self._failures[hook.name] = self._failures.get(hook.name, 0) + 1
                delay_s = min(RETRY_MAX_S, self._retry_min_s * 2.0 ** min(failures - 1, 20))
                self._due[hook.name] = self._clock() + delay_s
                logger.bind(webhook=hook.name, status=status, retry=True, delay_s=delay_s).warning(
                    "webhook not delivered"
                )
                return delay_s
        return LOOK_S

    def _post(self, hook: Webhook, entry: Entry, delivery: Delivery) -> int:
        with self._webhooks.destinations.enforced(hook.url) as refused:
            status = self._post_anywhere(hook, entry, delivery)
        if refused:
            logger.bind(webhook=hook.name, addresses=refused).warning(
                "webhook leads to an address that is not public; --allow-webhooks-to allows it"
            )
        return status

    def _post_anywhere(self, hook: Webhook, entry: Entry, delivery: Delivery) -> int:
        if hook.kind == "notification":
            return 200 if notify(hook.url, delivery.activity) else 0
        body = body_of(delivery)
        identity = "msg_" + entry.key.rpartition("/")[2]
        timestamp = int(self._webhooks.context.now().timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"outrider/{__version__}",
            "webhook-id": identity,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(hook.secret, identity, timestamp, body),
        }
        return self._send(hook.url, body, headers)

    def _forget(self, hook: Webhook) -> None:
        try:
            self._webhooks.delete(hook.name)
        except NotFound:
            return
