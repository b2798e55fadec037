"""The REST API of the history: the story of a rollout, and a group as it was."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from outrider.service.api.models import Shown
from outrider.service.api.pagination import DEFAULT_LIMIT, After, Limit, page_of
from outrider.service.context import Bound
from outrider.service.history.stories import fleet_at, parse_moment, read_story
from outrider.service.problems import RESPONSES

router = APIRouter(prefix="/api/v1", responses=RESPONSES, tags=["history"])


class StoryLineShown(Shown):
    """One line of a story."""

    id: str = Field(description="Lines are in the order of their ids.")
    revision: int | None = Field(
        description="etcd's revision of the write; null: a local step, which wrote nothing to etcd."
    )
    after: int = Field(description="A local step came after this revision.")
    before: int | None = Field(description="And before this one; null: nothing came after it.")
    kind: str = Field(description="state, left, turn, turn-ended, target, event, local, told, gap.")
    instance: str = Field(description="Empty: it concerns the group.")
    state: str
    version: str
    event: str = Field(description="What ended the state, or the kind of an event of the activity log.")
    text: str
    at: datetime | None = Field(description="By the clock of the service.")
    machine_at: datetime | None = Field(description="By the clock of the machine; null: unknown.")
    took_s: float | None = Field(description="How long the state lasted, seconds; null: unknown, or it lasts.")
    turn: int | None = Field(description="Number of the slot of a turn.")


class RolloutMarkShown(Shown):
    """A rollout in the history."""

    revision: int = Field(description="The revision at which the group was given the release: the rollout's id.")
    version: str = Field(description="Label of the release.")
    at: datetime


class StoryShown(Shown):
    """The story of one rollout of a group, in the order of etcd's revisions."""

    app: str
    group: str
    instance: str
    rollout: int | None
    version: str
    began: datetime | None
    until: int | None = Field(description="The revision at which the next rollout began; null: it is the last one.")
    notes: list[str] = Field(description="What is missing, and why.")
    rollouts: list[RolloutMarkShown] = Field(description="All rollouts of which the history knows, oldest first.")
    items: list[StoryLineShown]
    next: str | None = Field(None, description="Token of the next page; null: this is the last one.")


class InstanceThenShown(Shown):
    """An instance as it was."""

    instance: str
    state: str = Field(description="`away`: its presence had ended.")
    version: str
    wanted: str
    serving: bool
    since: datetime = Field(description="By the clock of the service.")
    machine_since: datetime | None = Field(description="By the clock of the machine.")
    turn: int | None = Field(description="Number of the slot whose turn it held.")
    why: str


class GroupThenShown(Shown):
    """A group as it was."""

    app: str
    group: str
    target: str
    revision: int | None = Field(description="Of the last step before that moment.")
    at: datetime | None
    instances: list[InstanceThenShown]
    notes: list[str] = Field(description="What can't be known, and why.")


class FleetThenShown(Shown):
    """The groups of an app as they were."""

    groups: list[GroupThenShown]


@router.get("/apps/{app}/groups/{group}/story")
def get_story(
    app: str,
    group: str,
    store: Bound,
    rollout: Annotated[
        str, Query(max_length=200, description="Id or release of a rollout; default: the last one.")
    ] = "",
    instance: Annotated[
        str, Query(max_length=128, description="Only what concerns this instance and the group as a whole.")
    ] = "",
    limit: Limit = DEFAULT_LIMIT,
    after: After = None,
) -> StoryShown:
    """Tell a rollout: what every instance did, merged in causal order, with its local steps between the revisions."""
    story = read_story(store.context, app, group, instance=instance, rollout=rollout)
    page, following = page_of(story.lines, limit=limit, after=after, name=lambda line: line.id)
    shown = StoryShown.model_validate({**{name: getattr(story, name) for name in _HEAD}, "items": page})
    return shown.model_copy(update={"next": following})


_HEAD = ("app", "group", "instance", "rollout", "version", "began", "until", "notes", "rollouts")


@router.get("/apps/{app}/status")
def get_status_at(
    app: str,
    store: Bound,
    at: Annotated[
        str, Query(max_length=64, description="A revision of etcd, a time, or an age: 30m, 12h, 3d.", examples=["30m"])
    ],
    group: Annotated[str | None, Query(description="Only this group of the app.")] = None,
) -> FleetThenShown:
    """Show the groups of an app as they were, from the history."""
    found = fleet_at(store.context, app, group, parse_moment(at, store.context.now()))
    return FleetThenShown.model_validate({"groups": [_group(one) for one in found]})


def _group(group: object) -> GroupThenShown:
    return GroupThenShown.model_validate(group)
