"""The REST API of tasks that run once per release."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from pydantic.types import JsonValue

from outrider.service.api.models import Given, Items, Shown
from outrider.service.context import Asked, Bound
from outrider.service.problems import RESPONSES
from outrider.service.store.tasks import TaskVerb

router = APIRouter(prefix="/api/v1", responses=RESPONSES, tags=["tasks"])
_EXAMPLE: dict[str, JsonValue] = {"why": "looked at the database: the migration is complete"}


class TaskShown(Shown):
    """A task of a group's release."""

    app: str
    group: str
    version: str
    name: str
    kind: str
    command: str
    state: str = Field(description="waiting, due, running, done, failed, or unknown: its runner has ended.")
    release: str
    instance: str = Field(description="The one that runs it, or has run it.")
    started: datetime | None
    ended: datetime | None
    code: int | None = Field(description="Exit code; below 0 the number of the signal.")
    why: str
    output: str = Field(description="The end of what it printed.")
    limit_s: float
    repeatable: bool


class OldestShown(Shown):
    """The oldest version that may run, since a ``contract`` task has begun."""

    app: str
    group: str = Field(description="Empty: it holds for every group of the app.")
    version: str
    task: str
    instance: str = Field(description="Where the task ran; empty: somebody said that it is done.")
    since: datetime


class TaskSaid(Given):
    """What an operator says of a task."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    why: str = Field("", description="Reason, for people.")
    by: str = Field("", description="Name of the operator, when there are no users.")


@router.get("/apps/{app}/groups/{group}/tasks")
def list_tasks(app: str, group: str, store: Bound) -> Items[TaskShown]:
    """List the tasks of a group: those that its target waits for, then those that were claimed, newest first."""
    return Items(items=[TaskShown.model_validate(one) for one in store.tasks.list(app, group)])


@router.get("/apps/{app}/groups/{group}/tasks/{version}/{task}")
def get_task(app: str, group: str, version: str, task: str, store: Bound) -> TaskShown:
    """Show a task with the end of what it printed."""
    return TaskShown.model_validate(store.tasks.get(app, group, version, task))


@router.post("/apps/{app}/groups/{group}/tasks/{version}/{task}/done")
def say_done(app: str, group: str, version: str, task: str, said: TaskSaid, store: Bound, asked: Asked) -> TaskShown:
    """Say that a task is done: the rollout goes on, and nobody runs it again."""
    return _say(store, app, group, version, task, "done", said, asked)


@router.post("/apps/{app}/groups/{group}/tasks/{version}/{task}/failed")
def say_failed(app: str, group: str, version: str, task: str, said: TaskSaid, store: Bound, asked: Asked) -> TaskShown:
    """Say that a task has failed: the release is blocked."""
    return _say(store, app, group, version, task, "failed", said, asked)


@router.post("/apps/{app}/groups/{group}/tasks/{version}/{task}/retry")
def retry_task(app: str, group: str, version: str, task: str, said: TaskSaid, store: Bound, asked: Asked) -> TaskShown:
    """Let a task that failed, or of which nobody knows how far it came, run again."""
    return _say(store, app, group, version, task, "retry", said, asked)


@router.get("/apps/{app}/groups/{group}/oldest-version")
def get_oldest_version(app: str, group: str, store: Bound) -> Items[OldestShown]:
    """Show the oldest version that may run in a group; nothing: none has been set by a contract task."""
    return Items(items=[OldestShown.model_validate(one) for one in store.tasks.oldest(app, group)])


@router.post("/apps/{app}/groups/{group}/oldest-version/lift")
def lift_oldest_version(app: str, group: str, store: Bound) -> Items[OldestShown]:
    """Let older versions run again, once what a contract task took away is back; shows what was lifted."""
    return Items(items=[OldestShown.model_validate(one) for one in store.tasks.lift(app, group)])


def _say(
    store: Bound, app: str, group: str, version: str, task: str, verb: TaskVerb, said: TaskSaid, asked: Asked
) -> TaskShown:
    by = asked.speaker(said.by)
    return TaskShown.model_validate(store.tasks.say(app, group, version, task, verb, why=said.why, by=by))
