"""Reads activity events, for the REST API and for the command line, which reads etcd directly."""

from datetime import datetime

from outrider.etcd.seam import Entry
from outrider.model.activity import SEVERITIES, Activity, Severity
from outrider.model.damage import readable
from outrider.service.store.context import StoreContext, app_id_of


def read_activity(
    context: StoreContext,
    *,
    app: str | None = None,
    group: str | None = None,
    instance: str | None = None,
    kind: str | None = None,
    least: Severity = "success",
    since: datetime | None = None,
) -> list[tuple[Entry, Activity]]:
    """Matching events, newest first, with their entries."""
    prefix = context.keys.activity(app_id_of(app)) if app is not None else f"{context.keys.prefix}/activity/"
    entries = sorted(
        context.cluster.list(prefix).entries, key=lambda entry: (entry.create_revision, entry.key), reverse=True
    )
    rank = SEVERITIES.index(least)
    found = readable(Activity, entries)
    return [
        (entry, one)
        for entry, one in found
        if group in (None, one.group)
        and instance in (None, one.instance)
        and kind in (None, one.kind)
        and SEVERITIES.index(one.severity) >= rank
        and (since is None or one.at >= since)
    ]
