"""All pages and actions: a new one has a line here."""

from outrider.service.web.actions import rollout
from outrider.service.web.pages import group, overview
from outrider.service.web.site import Action, Page

PAGES: tuple[Page, ...] = (overview.PAGE, group.PAGE)
ACTIONS: tuple[Action, ...] = rollout.ACTIONS
