"""The REST API of activity events and webhooks."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import ConfigDict, Field

from outrider.etcd.seam import Entry
from outrider.model.activity import Activity, Severity
from outrider.service.api.models import Given, Items, Shown, UtcTime
from outrider.service.api.pagination import DEFAULT_LIMIT, After, Limit, page_of
from outrider.service.context import Asked, Bound, Context, context_of
from outrider.service.history.activity_log import read_activity
from outrider.service.history.webhooks import Webhook, Webhooks
from outrider.service.problems import RESPONSES
from outrider.service.store.context import app_id_of
from outrider.service.store.request import RequestContext
from outrider.service.store.store import Store
from outrider.service.store.users import may

router = APIRouter(prefix="/api/v1", responses=RESPONSES)
Ours = Annotated[Context, Depends(context_of)]


class ActivityShown(Shown):
    """One activity event."""

    id: str = Field(description="The same for every reader; within an app, later events have greater ids.")
    at: datetime
    severity: Severity
    kind: str = Field(description="A short stable word.", examples=["channel-moved", "instance-failed"])
    app: str
    group: str
    instance: str
    version: str
    text: str = Field(description="For a person, one line.")
    by: str
    facts: dict[str, str]


class NewWebhook(Given):
    """A new webhook."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "ops", "url": "https://example.org/outrider"}]})

    name: str
    url: str = Field(description="Address for the POST requests, http or https.")
    app: str = Field("", description="Only events of this app; empty: of all apps.")
    least: Severity = Field("info", description="Only events of at least this severity.")
    kind: Literal["webhook", "notification"] = Field(
        "webhook", description="`notification`: `url` is an address of the library apprise, in chat or by mail."
    )
    secret: str = Field("", description="`whsec_` and 24 to 64 bytes in base64; empty: a random one.")


class WebhookChange(Given):
    """New values of a webhook; null keeps a value."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"least": "warning"}]})

    url: str | None = None
    app: str | None = Field(None, description="Only events of this app; an empty text: of all apps.")
    least: Severity | None = None
    secret: str | None = Field(None, description="A new secret; null keeps the one that it has.")


class WebhookShown(Shown):
    """An address that receives activity events."""

    name: str
    url: str = Field(
        description="Of a notification only its kind: the rest is secret. Viewers and approvers see no path."
    )
    app: str
    least: Severity
    kind: Literal["webhook", "notification"]
    created: datetime
    fingerprint: str = Field("", description="Of its secret, to compare two; empty for viewers and approvers.")
    pending: int = Field(0, description="Events that are not delivered yet.")


class WebhookMade(WebhookShown):
    """A new webhook with its secret, which is shown only once."""

    secret: str = Field(description="Signs every delivery; shown only once.")


@router.get("/activity", tags=["activity"])
def list_activity(
    store: Bound,
    app: str | None = None,
    group: str | None = None,
    instance: str | None = None,
    kind: str | None = None,
    severity: Annotated[Severity, Query(description="At least this severity.")] = "success",
    since: Annotated[UtcTime | None, Query(description="Not before this time.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
) -> Items[ActivityShown]:
    """List activity events, newest first."""
    found = read_activity(
        store.context, app=app, group=group, instance=instance, kind=kind, least=severity, since=since
    )
    # By the time of writing, as they are listed: ids ascend only within one app.
    page, following = page_of(
        found, limit=limit, after=after, name=lambda one: f"{one[0].create_revision:016x}/{one[0].key}", descending=True
    )
    return Items(items=[_shown(entry, one) for entry, one in page], next=following)


@router.get("/webhooks", tags=["activity"])
def list_webhooks(store: Bound, ours: Ours, asked: Asked) -> Items[WebhookShown]:
    """List the webhooks."""
    hooks = _webhooks(store, ours)
    return Items(items=[_hook(hooks, hook, asked) for hook in hooks.list()])


@router.post("/webhooks", status_code=201, tags=["activity"])
def create_webhook(new: NewWebhook, store: Bound, ours: Ours, asked: Asked) -> WebhookMade:
    """Add a webhook; only this answer contains its secret."""
    app = app_id_of(new.app) if new.app else ""
    made = _webhooks(store, ours).create(new.name, new.url, app=app, least=new.least, kind=new.kind, secret=new.secret)
    return WebhookMade.model_validate(made).model_copy(update={"url": made.shown_url})


@router.get("/webhooks/{name}", tags=["activity"])
def get_webhook(name: str, store: Bound, ours: Ours, asked: Asked) -> WebhookShown:
    """Show one webhook."""
    hooks = _webhooks(store, ours)
    return _hook(hooks, hooks.get(name), asked)


@router.put("/webhooks/{name}", tags=["activity"])
def change_webhook(name: str, change: WebhookChange, store: Bound, ours: Ours, asked: Asked) -> WebhookShown:
    """Change the given fields of a webhook; its secret stays, unless there is a new one."""
    app = app_id_of(change.app) if change.app else change.app
    hooks = _webhooks(store, ours)
    changed = hooks.update(name, url=change.url, app=app, least=change.least, secret=change.secret)
    return _hook(hooks, changed, asked)


@router.delete("/webhooks/{name}", tags=["activity"])
def delete_webhook(name: str, store: Bound, ours: Ours, asked: Asked) -> WebhookShown:
    """Remove a webhook with its undelivered events."""
    deleted = _webhooks(store, ours).delete(name)
    return WebhookShown.model_validate(deleted).model_copy(update={"url": deleted.shown_url})


def _webhooks(store: Store, ours: Context) -> Webhooks:
    return Webhooks(
        context=store.context, auditing=store.auditing, destinations=ours.destinations, most=ours.limits.max_webhooks
    )


def _shown(entry: Entry, activity: Activity) -> ActivityShown:
    fields = {name: getattr(activity, name) for name in ActivityShown.model_fields if name != "id"}
    return ActivityShown(id=entry.key.rpartition("/")[2], **fields)


def _hook(hooks: Webhooks, hook: Webhook, asked: RequestContext) -> WebhookShown:
    """Who can't change a webhook doesn't see what is secret in it either."""
    changes = may(asked.principal.role, "operator")
    url = hook.shown_url if changes else hook.masked_url
    more = {"pending": hooks.pending(hook.name), "url": url, "fingerprint": hook.fingerprint if changes else ""}
    return WebhookShown.model_validate(hook).model_copy(update=more)
