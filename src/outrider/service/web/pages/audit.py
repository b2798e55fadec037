"""The audit log: who changed what, with what it was before and afterwards, newest first, live."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from outrider.service.api.audit import shown_entry
from outrider.service.api.models_audit import AuditShown
from outrider.service.api.pagination import position_of, token_of
from outrider.service.store.audit import AuditLog, Wanted
from outrider.service.store.audit_nouns import NOUNS
from outrider.service.store.context import app_id_of
from outrider.service.store.users import may
from outrider.service.web.pages.activity import ON_A_PAGE, apps_of, day_of, filters_of
from outrider.service.web.site import Page, Visit

_FILTERS = ("app", "who", "noun", "name", "since")
MOST_LETTERS = 300


def view(visit: Visit) -> Mapping[str, Any]:
    """The changes that the query asks for."""
    query = filters_of(visit, _FILTERS)
    wanted = Wanted(
        who=query["who"] or None,
        noun=query["noun"] or None,
        name=query["name"] or None,
        app=app_id_of(query["app"]) if query["app"] else None,
        since=day_of(query["since"]),
    )
    after = visit.query.get("after") or None
    found = AuditLog(context=visit.context).list(wanted, limit=ON_A_PAGE + 1, before=position_of(after))
    full = may(visit.visitor.principal.role, "operator")
    changes = [shown_entry(one, full=full) for one in found[:ON_A_PAGE]]
    return {
        "changes": [(f"c-{one.id}", one, differences(one)) for one in changes],
        "query": query,
        "apps": apps_of(visit),
        "labels": dict(apps_of(visit)),
        "nouns": sorted({*NOUNS, query["noun"]} - {""}),
        "following": token_of(changes[-1].id) if len(found) > ON_A_PAGE else None,
        "is_first": after is None,
        "first_page": f"/audit?{urlencode({name: value for name, value in query.items() if value})}",
    }


def differences(one: AuditShown) -> list[tuple[str, str, str]]:
    """Each field that has changed: its name, what it was, what it is; empty where there was none."""
    before, after = one.before or {}, one.after or {}
    names = [*before, *(name for name in after if name not in before)]
    return [(name, _text(before, name), _text(after, name)) for name in names if before.get(name) != after.get(name)]


def _text(facts: Mapping[str, Any], name: str) -> str:
    if name not in facts:
        return ""
    value = facts[name]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"


PAGE = Page(
    path="/audit",
    template="audit.html",
    reads="GET /api/v1/audit",
    by_app=True,
    view=view,
    title="Audit",
    nav="Audit",
)
