"""What the update service knows of a group, for commands that foresee what happens to it."""

from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path

import msgspec

from outrider.cli.policy_files import read_policy_file
from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.errors import ConfigError
from outrider.core.rollout.policy_settings import Policy
from outrider.preview.durations import Durations, measured, updates_in
from outrider.preview.service import Known

_SETTINGS = tuple(each.name for each in fields(Policy))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """A group as it is.

    Attributes:
        target: Version of its target; None: it has none.
        durations: How long its last updates took.
        running: The state of its rollout: ``running``, ``paused`` or ``halted``.
    """

    app: str
    group: str
    policy: Policy
    slots: int
    paused: bool
    target: str | None
    instances: tuple[Known, ...]
    durations: Durations
    running: str


def read_facts(service: ServiceClient, app: str, group: str) -> GroupFacts:
    """Ask the update service.

    Raises:
        NotFound: there is no such group.
    """
    found = service.get("apps", app, "groups", group)
    policy = service.get("apps", app, "groups", group, "policy")
    target = service.get("apps", app, "groups", group, "target")
    rows = service.get_all("apps", app, "instances", group=group)
    updates = [one for row in rows for one in updates_in(row["id"], _events(row))]
    return GroupFacts(
        app=app,
        group=group,
        policy=msgspec.convert({name: policy[name] for name in _SETTINGS}, Policy),
        slots=found["slots"],
        paused=found["paused"],
        target=target["version"],
        instances=tuple(
            Known(name=row["id"], version=row["version"], labels=row["labels"], arch=row["arch"]) for row in rows
        ),
        durations=measured(updates, found["slots"]),
        running=service.get("apps", app, "groups", group, "rollout")["state"],
    )


def supposed(facts: GroupFacts, file: Path | None, slots: int | None) -> GroupFacts:
    """The group with another policy or other slots.

    Raises:
        ConfigError: the file can't be read, or is wrong; or the group has no instances.
    """
    if not facts.instances:
        raise ConfigError(f"group {facts.group} has no instance that ever checked in: there is nothing to foresee")
    if file is not None:
        read = read_policy_file(file)
        facts = replace(facts, policy=read.policy, slots=read.slots or facts.slots)
    return facts if slots is None else replace(facts, slots=slots)


def _events(row: Json) -> list[tuple[datetime, str]]:
    return [(datetime.fromisoformat(line["at"]), line["event"]) for line in row["history"]]
