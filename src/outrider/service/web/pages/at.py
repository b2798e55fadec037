"""A group as it was at a time, or at a revision of etcd: with a slider over all that the history has."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from outrider.core.errors import ConfigError, NotFound, OutriderError
from outrider.model.history import milliseconds, moment
from outrider.service.history.stories import GroupThen, History, beside, group_at, parse_moment, read_history
from outrider.service.web.actions.rollout import OF_GROUP, overview_of
from outrider.service.web.fleet import NO_VERSION, bars_of
from outrider.service.web.site import Page, Visit
from outrider.service.web.timeline import style_of

MOST_ROLLOUTS = 20


def view(visit: Visit) -> Mapping[str, Any]:
    """The group that the path names, at the moment that the query says: ``when``, or ``t`` in seconds since 1970."""
    overview = overview_of(visit)
    facts: dict[str, Any] = {
        "app": overview.app,
        "label": visit.app_label(overview.app),
        "group": overview.name,
        "group_label": overview.label,
        "when": visit.query.get("when", "").strip(),
        "missing": "",
        "problem": "",
    }
    try:
        history = read_history(visit.ours.stores.context, overview.app, overview.name)
    except NotFound as error:
        return facts | {"missing": str(error)}
    begins = min((milliseconds(chunk.began) for chunk in history.chunks), default=milliseconds(visit.now)) // 1000
    ends = max(begins + 1, milliseconds(visit.now) // 1000)
    try:
        at = _wanted(visit)
    except OutriderError as error:
        at, facts["problem"] = visit.now, str(error)
    return facts | _then(history, group_at(history, at), at, begins, ends)


def _wanted(visit: Visit) -> int | datetime:
    """The moment that is asked for.

    Raises:
        ConfigError: it is none, or in the future.
    """
    text, seconds = visit.query.get("when", "").strip(), visit.query.get("t", "")
    if text:
        at = parse_moment(text, visit.now)
        if isinstance(at, datetime) and at > visit.now:
            raise ConfigError(f"{text}: that is in the future")
        return at
    if not seconds:
        return visit.now
    if not seconds.isdecimal() or len(seconds) > 11:
        raise ConfigError(f"t {seconds[:40]!r}: write seconds since 1970")
    return min(visit.now, moment(int(seconds) * 1000 + 999))


def _then(history: History, then: GroupThen, at: int | datetime, begins: int, ends: int) -> dict[str, Any]:
    there = [one for one in then.instances if one.state != "away"]
    runs = Counter(one.version or NO_VERSION for one in there)
    shown_at = at if isinstance(at, datetime) else then.at
    second = ends if shown_at is None else milliseconds(shown_at) // 1000
    before, after = beside(history, then)
    return {
        "then": then,
        "at": shown_at,
        "revision": at if isinstance(at, int) else then.revision,
        "rows": [(one, style_of(one.state)) for one in then.instances],
        "bars": bars_of(runs, then.target),
        "there": len(there),
        "serving": sum(one.serving for one in there),
        "begins": begins,
        "ends": ends,
        "second": min(max(second, begins), ends),
        "before": before,
        "after": after,
        "rollouts": history.rollouts()[-MOST_ROLLOUTS:],
    }


PAGE = Page(
    path=f"{OF_GROUP}/at",
    template="at.html",
    reads="GET /api/v1/apps/{app}/status",
    view=view,
    title="{app}/{group} as it was",
    is_live=False,
)
