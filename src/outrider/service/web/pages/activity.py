"""What happened: activity events, newest first, live."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from outrider.core.errors import ConfigError
from outrider.model.activity import SEVERITIES, Severity
from outrider.model.documents import App
from outrider.service.api.pagination import page_of
from outrider.service.history.activity_log import read_activity
from outrider.service.web.site import Page, Visit

ON_A_PAGE = 50
_FILTERS = ("app", "group", "instance", "kind", "severity", "since")


def view(visit: Visit) -> Mapping[str, Any]:
    """The events that the query asks for."""
    query = filters_of(visit, _FILTERS)
    found = read_activity(
        visit.context,
        app=query["app"] or None,
        group=query["group"] or None,
        instance=query["instance"] or None,
        least=_severity(query["severity"]),
        since=day_of(query["since"]),
    )
    kinds = sorted({one.kind for _, one in found} | ({query["kind"]} - {""}))
    wanted = [(entry, one) for entry, one in found if query["kind"] in ("", one.kind)]
    page, following = page_of(
        wanted,
        limit=ON_A_PAGE,
        after=visit.query.get("after") or None,
        name=lambda one: f"{one[0].create_revision:016x}/{one[0].key}",
        descending=True,
    )
    return {
        "events": [(f"a-{one.app}-{entry.key.rpartition('/')[2]}", one) for entry, one in page],
        "matching": len(wanted),
        "query": query,
        "apps": apps_of(visit),
        "labels": dict(apps_of(visit)),
        "group_labels": {
            where: visit.group_label(*where)
            for where in {(one.app, one.group) for _, one in page if one.app and one.group}
        },
        "kinds": kinds,
        "severities": [(one, "every" if one == SEVERITIES[0] else f"at least {one}") for one in SEVERITIES],
        "following": following,
        "is_first": not visit.query.get("after"),
    }


def filters_of(visit: Visit, names: tuple[str, ...]) -> dict[str, str]:
    """What the query says of each filter; who may see some apps alone sees them one at a time."""
    return {name: visit.query.get(name, "").strip() for name in names} | {"app": visit.visitor.app_of(visit.query)}


def apps_of(visit: Visit) -> list[tuple[str, str]]:
    """The apps that the visitor may see, with their labels."""
    only = visit.visitor.principal.apps
    found = visit.context.children(App, visit.keys.apps())
    return [(one.id, one.label or one.id) for one in found if not only or one.id in only]


def day_of(text: str) -> datetime | None:
    """The beginning of a day, UTC; None for an empty text.

    Raises:
        ConfigError: it is neither a day nor a time.
    """
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"since {text[:40]!r}: write a day like 2026-11-30, or a time with its zone") from error


def _severity(text: str) -> Severity:
    for one in SEVERITIES:
        if text in (one, ""):
            return one
    raise ConfigError(f"severity {text[:40]!r}: there is {', '.join(SEVERITIES)}")


PAGE = Page(
    path="/activity",
    template="activity.html",
    reads="GET /api/v1/activity",
    by_app=True,
    view=view,
    title="Activity",
    nav="Activity",
)
