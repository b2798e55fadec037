"""The first page: every group with its versions and its rollout, and what a person must look at."""

from collections.abc import Mapping
from typing import Any

from outrider.service.web.fleet import card_of, read_fleet
from outrider.service.web.site import Page, Visit

_ORDER = {"bad": 0, "held": 1}


def view(visit: Visit) -> Mapping[str, Any]:
    """Every app with its groups, and all that needs attention."""
    apps, attention = [], []
    for app, overviews in read_fleet(visit):
        name = app.id if app is not None else overviews[0].app
        label = app.label or app.id if app is not None else name
        cards = [card_of(overview, label, visit) for overview in overviews]
        attention += [one for card in cards for one in card.attention]
        apps.append({"id": name, "label": label, "cards": cards, "is_known": app is not None})
    warnings = visit.problems() if not visit.visitor.principal.apps else ()
    return {
        "apps": apps,
        "attention": sorted(attention, key=lambda one: _ORDER.get(one.tone, 2)),
        "warnings": warnings,
    }


PAGE = Page(path="/", template="overview.html", reads="GET /api/v1/apps", view=view, title="Overview", nav="Overview")
