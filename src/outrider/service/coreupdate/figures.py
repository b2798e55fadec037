"""CoreUpdate's figures: what instances reported, from their rows and histories."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from outrider.core.errors import ConfigError
from outrider.model.documents import Happening, Instance
from outrider.service.context import Asked, Bound, request_context_of
from outrider.service.coreupdate.auth import BASE, check_app
from outrider.service.coreupdate.routes import CoreUpdateRoute
from outrider.service.coreupdate.shapes import Json, items, update_shown
from outrider.service.store.request import Principal
from outrider.service.store.store import Store

router = APIRouter(
    prefix=BASE,
    route_class=CoreUpdateRoute,
    include_in_schema=False,
    dependencies=[Depends(request_context_of)],
)
Counts = Counter[tuple[tuple[str, ...], int]]
RESOLUTIONS = (60, 3600, 86_400)
Start = Annotated[int, Query(alias="dateStart")]
End = Annotated[int, Query(alias="dateEnd")]
App = Annotated[str, Query(alias="appId")]
Group = Annotated[str, Query(alias="groupId")]
Client = Annotated[str, Query(alias="clientId")]
"""Seconds since 1970, and names; 0 or empty: all."""


@router.get("/apps/{app}/groups/{group}/requests/versions/{start}/{end}")
def versions(app: str, group: str, start: int, end: int, store: Bound, resolution: int = 60) -> Json:
    """Count the instances of a group by version and period."""
    seen = {(one.version, _begin(one, resolution), row.id) for row, one in _events(store, app, group, start, end)}
    counts: Counts = Counter(((version,), begin) for version, begin, _ in seen)
    return items(_series(("version",), counts))


@router.get("/apps/{app}/groups/{group}/requests/events/{start}/{end}")
def events(app: str, group: str, start: int, end: int, store: Bound, resolution: int = 60) -> Json:
    """Count the events of a group's instances by version, type, result and period."""
    counts: Counts = Counter(
        ((one.version, *one.event.split(":", 1)), _begin(one, resolution))
        for _, one in _events(store, app, group, start, end)
    )
    return items(_series(("version", "type", "result"), counts))


@router.get("/clientupdates")
def client_updates(
    store: Bound,
    asked: Asked,
    start: Start = 0,
    end: End = 0,
    app_id: App = "",
    group_id: Group = "",
    client: Client = "",
    version: str = "",
    limit: int = 0,
    skip: int = 0,
) -> Json:
    """List the instances that checked in."""
    rows = _rows(store, asked.principal, start, end, app_id, group_id)
    found = [row for row in rows if client in ("", row.id) and version in ("", row.version)][max(skip, 0) :]
    return items(update_shown(row) for row in (found[:limit] if limit > 0 else found))


@router.get("/clientupdatecount")
def count_client_updates(
    store: Bound, asked: Asked, start: Start = 0, end: End = 0, app_id: App = "", group_id: Group = "",
    version: str = "",
) -> Json:  # fmt: skip
    """Count them."""
    rows = _rows(store, asked.principal, start, end, app_id, group_id)
    return {"count": sum(version in ("", row.version) for row in rows)}


@router.get("/appversions")
def app_versions(
    store: Bound, asked: Asked, start: Start = 0, end: End = 0, app_id: App = "", group_id: Group = ""
) -> Json:
    """Count the instances of each app, group and version. This count is a number, not text."""
    rows = _rows(store, asked.principal, start, end, app_id, group_id)
    counts = sorted(Counter((row.app, row.group, row.version) for row in rows).items())
    return items(
        {"appId": app, "groupId": group, "version": version, "count": count} for (app, group, version), count in counts
    )


@router.get("/client/history")
def client_history(store: Bound, asked: Asked, client: Client = "") -> Json:
    """What one instance has reported, oldest first."""
    rows = (row for row in _rows(store, asked.principal, 0, 0, "", "") if row.id == client)
    found = []
    for row in rows:
        for one in row.history:
            kind, result = one.event.split(":", 1)
            happened: Json = {
                "dateTime": str(int(one.at.timestamp())),
                "eventType": kind,
                "eventResult": result,
                "errorCode": str(one.error_code),
                "groupId": row.group,
                "version": one.version,
                "installSource": "",
            }
            found.append((one.at, happened))
    return items(happened for _, happened in sorted(found, key=lambda pair: pair[0]))


def _rows(store: Store, who: Principal, start: int, end: int, app: str, group: str) -> list[Instance]:
    every = (each.id for each in store.apps.list() if not who.apps or each.id in who.apps)
    apps = [check_app(who, app)] if app else every
    return [
        row
        for each in apps
        for row in store.fleet.instances(each, group or None)
        if _between(row.last_seen, start, end)
    ]


def _events(store: Store, app: str, group: str, start: int, end: int) -> Iterator[tuple[Instance, Happening]]:
    store.groups.get(app, group)
    for row in store.fleet.instances(app, group):
        for one in row.history:
            if _between(one.at, start, end):
                yield row, one


def _between(at: datetime, start: int, end: int) -> bool:
    seconds = at.astimezone(UTC).timestamp()
    return seconds >= start and (not end or seconds < end)


def _begin(one: Happening, resolution: int) -> int:
    if resolution not in RESOLUTIONS:
        raise ConfigError(f"resolution {resolution}: write 60, 3600 or 86400 seconds")
    at = int(one.at.timestamp())
    return at - at % resolution


def _series(names: tuple[str, ...], counts: Counts) -> Iterator[Json]:
    """An item for each kind, with its counts by time; both are text, as the client reads int64."""
    found: defaultdict[tuple[str, ...], list[Json]] = defaultdict(list)
    for (kind, begin), count in sorted(counts.items()):
        found[kind].append({"timestamp": str(begin), "count": str(count)})
    for kind, values in found.items():
        yield {**dict(zip(names, kind, strict=True)), "values": values}
