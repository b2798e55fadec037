"""Webhooks: addresses that receive activity events, and the outbox in etcd from which the events are sent.

One transaction writes an event and its deliveries, so no delivery is lost or doubled. A delivery is removed when the
receiver has answered 2xx. Signed as the Standard Webhooks specification says
(https://www.standardwebhooks.com): ``webhook-id``, ``webhook-timestamp``, ``webhook-signature``.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from outrider.core.addresses import masked, masked_path
from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.etcd.seam import Op, Put
from outrider.model.activity import SEVERITIES, Activity, Severity
from outrider.model.documents import Document, encode
from outrider.model.keys import Keys, check_part
from outrider.service.destinations import Destinations
from outrider.service.history.chat import checked_recipient, recipient_hosts
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import StoreContext, checked_address

MAX_WEBHOOKS = 20
SECRET_PREFIX = "whsec_"  # noqa: S105 - how the specification marks a secret


class Webhook(Document, frozen=True, kw_only=True):
    """``webhooks/{name}``.

    Attributes:
        secret: ``whsec_`` and base64 of the signing key; shown once, when the webhook is created.
        app: Only events of this app; empty: of all apps.
        least: Only events of at least this severity.
        kind: ``notification``: ``url`` is an address of the library apprise, in chat or by mail, and nothing is signed.
    """

    name: str
    url: str
    secret: str
    app: str = ""
    least: Severity = "info"
    kind: Literal["webhook", "notification"] = "webhook"
    created: datetime

    @property
    def shown_url(self) -> str:
        """What may be shown of its address: that of a notification has a token in it, or a password."""
        return self.url if self.kind == "webhook" else masked(self.url)

    @property
    def masked_url(self) -> str:
        """What a viewer is shown: the path of an address is often a secret, too."""
        return masked_path(self.url) if self.kind == "webhook" else masked(self.url)

    @property
    def fingerprint(self) -> str:
        """16 hex digits by which two secrets can be compared; they tell nothing of a secret of 24 bytes."""
        return fingerprint_of(self.secret)


class Delivery(Document, frozen=True, kw_only=True):
    """``webhook-outbox/{name}/{id}``: one event that one webhook has not received yet."""

    activity: Activity


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """The webhooks of one key prefix.

    Attributes:
        destinations: Where they may lead.
        most: How many there may be.
    """

    context: StoreContext
    auditing: Auditing
    destinations: Destinations = field(default_factory=Destinations)
    most: int = MAX_WEBHOOKS

    @property
    def prefix(self) -> str:
        return f"{self.context.keys.prefix}/webhooks/"

    @property
    def outbox(self) -> str:
        return f"{self.context.keys.prefix}/webhook-outbox/"

    def list(self) -> tuple[Webhook, ...]:
        """All webhooks, by name."""
        return self.context.children(Webhook, self.prefix)

    def get(self, name: str) -> Webhook:
        """One webhook.

        Raises:
            NotFound: there is no webhook with that name.
        """
        found = self.context.get(Webhook, webhook_key(self.context.keys, name))
        if found is None:
            raise NotFound(_absent(name))
        return found

    def create(
        self,
        name: str,
        url: str,
        *,
        app: str = "",
        least: Severity = "info",
        kind: Literal["webhook", "notification"] = "webhook",
        secret: str = "",
    ) -> Webhook:
        """Add a webhook, or a notification.

        Args:
            secret: What signs its deliveries; empty: a random one.

        Raises:
            ConfigError: the address is not http(s), or none that apprise knows; the secret is none; or there are too
                many webhooks.
            Conflict: the name is taken.
        """
        key = webhook_key(self.context.keys, name)
        secret = checked_secret(name, secret) or SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        created = self.context.now()
        new = _checked(Webhook(name=name, url=url, secret=secret, app=app, least=least, kind=kind, created=created))
        self._check_destination(new)

        def attempt(change: Change) -> Webhook:
            if change.read(Webhook, key) is not None:
                raise Conflict(f"webhook {name!r} exists already; delete it first")
            if len(self.list()) >= self.most:
                raise ConfigError(
                    f"{self.most} webhooks exist already, which is the limit (--max-webhooks); delete one first"
                )
            change.put(key, new)
            return new

        return apply(self.context.cluster, attempt, self.auditing)

    def update(
        self,
        name: str,
        *,
        url: str | None = None,
        app: str | None = None,
        least: Severity | None = None,
        secret: str | None = None,
    ) -> Webhook:
        """Change every value that is not None; what is not delivered yet goes to the new address.

        Raises:
            ConfigError: the address is not http(s), or the secret is none.
            NotFound: there is no webhook with that name.
        """
        key = webhook_key(self.context.keys, name)
        changes = {"url": url, "app": app, "least": least, "secret": secret and checked_secret(name, secret)}

        def attempt(change: Change) -> Webhook:
            old = change.read(Webhook, key)
            if old is None:
                raise NotFound(_absent(name))
            given = {field: value for field, value in changes.items() if value is not None}
            new = _checked(msgspec.structs.replace(old, **given))
            if url is not None:
                self._check_destination(new)
            change.put(key, new)
            return new

        return apply(self.context.cluster, attempt, self.auditing)

    def delete(self, name: str) -> Webhook:
        """Remove a webhook with its undelivered events.

        Raises:
            NotFound: there is no webhook with that name.
        """
        key = webhook_key(self.context.keys, name)

        def attempt(change: Change) -> Webhook:
            old = change.read_or_none(Webhook, key)
            if old is None and not change.exists(key):
                raise NotFound(_absent(name))
            change.delete(key)
            change.delete_below(f"{self.outbox}{name}/")
            return old or Webhook(name=name, url="", secret="", created=self.context.now())

        return apply(self.context.cluster, attempt, self.auditing)

    def _check_destination(self, hook: Webhook) -> None:
        hosts = recipient_hosts(hook.url) if hook.kind == "notification" else [urlsplit(hook.url).hostname or ""]
        for host in hosts:
            self.destinations.check(f"webhook {hook.name}", host)

    def is_stored(self, name: str) -> bool:
        """Whether there is a document of that name, readable or not."""
        return self.context.cluster.get(f"{self.prefix}{name}") is not None

    def pending(self, name: str) -> int:
        """The number of undelivered events."""
        return len(self.context.cluster.list(f"{self.outbox}{check_part('webhook', name)}/").entries)

    def deliveries(self) -> Callable[[Activity, str, int], tuple[Op, ...]]:
        """What gives the writes that send a new event to every webhook that wants it, for the transaction of the event.

        It is given the event, the last part of the event's key, which is the delivery's id, and the event's lease: an
        undelivered event expires with it. It knows the webhooks that there are now.
        """
        hooks = self.list()

        def of(activity: Activity, record: str, lease: int) -> tuple[Op, ...]:
            return tuple(
                Put(key=f"{self.outbox}{hook.name}/{record}", value=encode(Delivery(activity=activity)), lease=lease)
                for hook in hooks
                if wants(hook, activity)
            )

        return of


def webhook_key(keys: Keys, name: str) -> str:
    """The key of the webhook ``name``."""
    return f"{keys.prefix}/webhooks/{check_part('webhook', name)}"


def checked_secret(name: str, secret: str) -> str:
    """Return a secret that can sign; empty stays empty.

    Raises:
        ConfigError: it isn't ``whsec_`` and 24 to 64 bytes in base64, as the specification has it.
    """
    if not secret:
        return ""
    try:
        length = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
    except ValueError:
        length = 0
    if not secret.startswith(SECRET_PREFIX) or not 24 <= length <= 64:
        raise ConfigError(f"webhook {name}: secret: write {SECRET_PREFIX} and 24 to 64 bytes in base64")
    return secret


def fingerprint_of(secret: str) -> str:
    """The first 16 hex digits of the SHA-256 of the text ``outrider webhook`` and the secret."""
    return hashlib.sha256(f"outrider webhook {secret}".encode()).hexdigest()[:16]


def _checked(hook: Webhook) -> Webhook:
    expected = "write https://HOST/PATH, without a user name"
    if hook.kind == "notification":
        checked_recipient(hook.url)
    elif checked_address(f"webhook {hook.name}: url", hook.url, expected).username is not None:
        raise ConfigError(f"webhook {hook.name}: url {hook.url!r}: {expected}")
    if hook.least not in SEVERITIES:
        raise ConfigError(f"webhook {hook.name}: severity {hook.least!r}: write one of {', '.join(SEVERITIES)}")
    return hook


def wants(hook: Webhook, activity: Activity) -> bool:
    """Whether ``hook`` receives the event."""
    severe = SEVERITIES.index(activity.severity) >= SEVERITIES.index(hook.least)
    return severe and hook.app in ("", activity.app)


def body_of(delivery: Delivery) -> bytes:
    """The body of the request: JSON with ``type``, ``timestamp`` and ``data``, as the specification advises."""
    activity = delivery.activity
    return msgspec.json.encode(
        {"type": f"outrider.{activity.kind}", "timestamp": activity.at, "data": msgspec.to_builtins(activity)}
    )


def signature(secret: str, identity: str, timestamp: int, body: bytes) -> str:
    """``v1,`` and base64 of HMAC-SHA256 over ``id.timestamp.body``."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{identity}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _absent(name: str) -> str:
    return f"no webhook {name!r}; `webhook list` shows them"
