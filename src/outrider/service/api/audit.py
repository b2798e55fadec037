"""The REST API of the audit log."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from outrider.core.addresses import masked_path
from outrider.service.api.models import Items, UtcTime
from outrider.service.api.models_audit import AuditShown
from outrider.service.api.pagination import DEFAULT_LIMIT, After, Limit, position_of, token_of
from outrider.service.context import Asked, Context, context_of
from outrider.service.problems import RESPONSES
from outrider.service.store.audit import StoredAuditEntry, Wanted
from outrider.service.store.context import app_id_of
from outrider.service.store.users import may

router = APIRouter(prefix="/api/v1", responses=RESPONSES, tags=["audit"])
Ours = Annotated[Context, Depends(context_of)]


@router.get("/audit")
def list_audit(
    ours: Ours,
    asked: Asked,
    who: Annotated[str | None, Query(description="Only changes of this user.")] = None,
    noun: Annotated[
        str | None,
        Query(
            description="Only of this: app, package, channel, group, environment, rollout, instance, release, command, "
            "user, webhook, payload..."
        ),
    ] = None,
    name: Annotated[str | None, Query(description="Only changes of the resource with this name.")] = None,
    app: Annotated[str | None, Query(description="Only changes in this app.")] = None,
    since: Annotated[UtcTime | None, Query(description="Not before this time.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
) -> Items[AuditShown]:
    """List changes with their user and the resource before and after, newest first."""
    wanted = Wanted(who=who, noun=noun, name=name, app=None if app is None else app_id_of(app), since=since)
    found = ours.stores.audit_log.list(wanted, limit=limit + 1, before=position_of(after))
    page = found[:limit]
    return Items(
        items=[shown_entry(one, full=may(asked.principal.role, "operator")) for one in page],
        next=token_of(page[-1].id) if len(found) > limit else None,
    )


def shown_entry(one: StoredAuditEntry, *, full: bool) -> AuditShown:
    """``full``: with the addresses of webhooks, whose paths are often secret."""
    shown = AuditShown.model_validate(one.entry).model_copy(update={"id": one.id})
    if shown.noun != "webhook":
        return shown
    sides = {side: dict(facts) for side in ("before", "after") if (facts := getattr(shown, side)) is not None}
    for facts in sides.values():
        facts.pop("secret", None)  # earlier versions recorded it
        if not full and "url" in facts:
            facts["url"] = masked_path(str(facts["url"]))
    return shown.model_copy(update=sides)
