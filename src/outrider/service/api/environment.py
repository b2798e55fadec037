"""The REST API of environments."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field
from pydantic.types import JsonValue

from outrider.core.environment import Kind
from outrider.model.environments import GroupEnvironment
from outrider.service.api.models import Given, Items, Shown
from outrider.service.context import Asked, Bound
from outrider.service.problems import RESPONSES
from outrider.service.store.effects import effects
from outrider.service.store.environments import EnvironmentEdit
from outrider.service.store.store import Store

router = APIRouter(prefix="/api/v1", responses=RESPONSES, tags=["groups"])
_EXAMPLE: dict[str, JsonValue] = {"variables": {"LOG_LEVEL": "info"}}


class VariableShown(Shown):
    """A variable of an environment."""

    name: str
    kind: Kind
    value: str = Field(description="Of a reference, where the machine finds it. Of a secret, a mask.")


class DifferenceShown(Shown):
    """What one environment has that the other has not; null: it is not there, and secrets are masked."""

    name: str
    before: str | None
    after: str | None


class EnvironmentShown(Shown):
    """What the app of a group is started with, besides the settings of its machine."""

    number: int = Field(description="0: the group has no environment.")
    digest: str = ""
    variables: list[VariableShown] = Field(default_factory=list)
    arguments: list[str] = Field(default_factory=list)
    by: str = ""
    why: str = ""
    at: datetime | None = None
    notes: list[str] = Field(default_factory=list, description="Further notes for a person.")
    changes: list[DifferenceShown] = Field(default_factory=list, description="Of a dry run: what would be different.")


class EnvironmentChange(Given):
    """A change of a group's environment; what it does not name is kept."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    variables: dict[str, str] = Field(default_factory=dict, description="Values that everybody may see.")
    secrets: dict[str, str] = Field(default_factory=dict, description="Values that nobody is shown.")
    references: dict[str, str] = Field(
        default_factory=dict,
        description="Where a machine finds the value: file:/PATH, credential:NAME, docker-secret:NAME.",
    )
    unset: list[str] = Field([], description="Names to remove.")
    arguments: list[str] | None = Field(None, description="Added to the app's command; null keeps them.")
    replace: bool = Field(False, description="Nothing is kept of what the environment says so far.")
    dry_run: bool = Field(False, description="Change nothing; `changes` are what would be different.")
    why: str = Field("", description="Reason, for people.")
    by: str = Field("", description="Name of the operator, when there are no users.")


@router.get("/apps/{app}/groups/{group}/environment")
def get_environment(app: str, group: str, store: Bound) -> EnvironmentShown:
    """Show the environment that a group's releases run with."""
    return _shown(store.environments.get(app, group))


@router.patch("/apps/{app}/groups/{group}/environment")
def change_environment(app: str, group: str, change: EnvironmentChange, store: Bound, asked: Asked) -> EnvironmentShown:
    """Change a group's environment: a new one is made and rolled out, like a release."""
    edit = EnvironmentEdit(
        variables=change.variables,
        secrets=change.secrets,
        references=change.references,
        unset=tuple(change.unset),
        arguments=None if change.arguments is None else tuple(change.arguments),
        replace=change.replace,
    )
    if change.dry_run:
        found = [DifferenceShown.model_validate(one) for one in store.environments.preview(app, group, edit)]
        return _now(store, app, group).model_copy(update={"changes": found, "notes": ["dry run: nothing was changed"]})
    saved = store.environments.change(app, group, edit, why=change.why, by=asked.speaker(change.by))
    notes = effects(store.context, saved.document.app, [saved.document]) if saved.created else ("nothing changed",)
    return _now(store, app, group).model_copy(update={"notes": list(notes)})


@router.get("/apps/{app}/groups/{group}/environments")
def list_environments(app: str, group: str, store: Bound) -> Items[EnvironmentShown]:
    """List the environments of a group that are kept, newest first."""
    return Items(items=[_shown(one) for one in store.environments.history(app, group)])


@router.get("/apps/{app}/groups/{group}/environments/{number}")
def get_old_environment(app: str, group: str, number: int, store: Bound) -> EnvironmentShown:
    """Show one environment of a group."""
    return _shown(store.environments.get(app, group, number))


@router.get("/apps/{app}/groups/{group}/environments/{number}/diff")
def compare_environments(
    app: str,
    group: str,
    number: int,
    store: Bound,
    to: Annotated[int | None, Query(description="The other one. Default: the present environment.")] = None,
) -> Items[DifferenceShown]:
    """Compare two environments of a group."""
    found = store.environments.diff(app, group, number, to)
    return Items(items=[DifferenceShown.model_validate(one) for one in found])


def _now(store: Store, app: str, group: str) -> EnvironmentShown:
    return _shown(store.environments.get(app, group))


def _shown(environment: GroupEnvironment | None) -> EnvironmentShown:
    if environment is None:
        return EnvironmentShown(number=0)
    variables = environment.environment.shown()
    return EnvironmentShown(
        number=environment.number,
        digest=environment.digest,
        variables=[VariableShown(name=name, kind=kind, value=text) for name, (kind, text) in variables.items()],
        arguments=list(environment.arguments),
        by=environment.by,
        why=environment.why,
        at=environment.at,
    )
