"""All pages, pictures and actions: a new one has a line here."""

from outrider.service.web.actions import channel, instance, policy, rollout, turns
from outrider.service.web.actions import packages as package_actions
from outrider.service.web.actions import users as user_actions
from outrider.service.web.pages import activity, at, audit, group, overview, packages, users
from outrider.service.web.pages import instance as instance_page
from outrider.service.web.site import Action, Drawing, Page

PAGES: tuple[Page, ...] = (
    overview.PAGE,
    group.PAGE,
    at.PAGE,
    instance_page.PAGE,
    activity.PAGE,
    audit.PAGE,
    packages.PAGE,
    users.PAGE,
)
DRAWINGS: tuple[Drawing, ...] = (group.STATECHART, instance_page.STATECHART)
ACTIONS: tuple[Action, ...] = (
    *rollout.ACTIONS,
    *channel.ACTIONS,
    *instance.ACTIONS,
    *turns.ACTIONS,
    *policy.ACTIONS,
    *package_actions.ACTIONS,
    *user_actions.ACTIONS,
)
