"""A group: its instances, its rollout, its turns, and what can be done with it."""

from collections.abc import Mapping
from typing import Any

from outrider.model.documents import App
from outrider.service.web.actions.rollout import API_GROUP, OF_GROUP, overview_of
from outrider.service.web.fleet import card_of
from outrider.service.web.site import Page, Visit


def view(visit: Visit) -> Mapping[str, Any]:
    """The group that the path names."""
    overview = overview_of(visit)
    app = visit.context.get_or_none(App, visit.keys.app(overview.app))
    card = card_of(overview, app.label if app is not None and app.label else overview.app, visit)
    return {"card": card, "actions": _actions(visit)}


def _actions(visit: Visit) -> tuple[tuple[str, str], ...]:
    """Address and words of what the visitor may do."""
    found = []
    for verb, words in (("pause", "Pause"), ("halt", "Halt"), ("resume", "Resume")):
        if visit.may("POST", f"{API_GROUP}/rollout/{verb}".format(**visit.names)):
            found.append((verb, words))
    return tuple(found)


PAGE = Page(
    path=OF_GROUP, template="group.html", reads=f"GET {API_GROUP}", view=view, title="{app}/{group}", is_live=True
)
