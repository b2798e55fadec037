"""The REST API of ``outrider status`` and ``outrider why``, for whoever can't reach etcd."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from outrider.service.context import Bound, OfSelector
from outrider.service.operations.readiness import unready
from outrider.service.problems import RESPONSES
from outrider.service.rollouts.explain import explain
from outrider.service.rollouts.explain_groups import explain_groups
from outrider.service.rollouts.status import read_status
from outrider.service.rollouts.versions import read_versions

router = APIRouter(prefix="/api/v1", responses=RESPONSES)


class GroupStatusShown(BaseModel):
    """A group as `outrider status` shows it."""

    model_config = ConfigDict(from_attributes=True)

    app: str
    group: str
    label: str
    line: list[str] = Field(description="App, group, target, instances, rollout.")
    rows: list[list[str]] = Field(
        description="For each instance: group, instance, labels, state, version, wanted, since, why."
    )
    summary: str
    facts: dict[str, object] = Field(description="The same for programs, as `outrider status --json` prints it.")


class StatusShown(BaseModel):
    """The state of the fleet."""

    groups: list[GroupStatusShown]
    warnings: list[str] = Field(description="Why the fleet cannot be served as it is stored.")


class WhyShown(BaseModel):
    """Why an instance is as it is."""

    instance: str
    reasons: list[str]


class GroupWhyShown(BaseModel):
    """Why a group is as it is."""

    model_config = ConfigDict(from_attributes=True)

    app: str
    group: str
    reasons: list[str]


class AppWhyShown(BaseModel):
    """Why an app is as it is: its groups by name."""

    groups: list[GroupWhyShown]


@router.get("/status", tags=["instances"])
def get_status(
    store: Bound,
    app: Annotated[str | None, Query(description="Only this app; default: all.")] = None,
    group: Annotated[str | None, Query(description="Only this group of the app.")] = None,
    selector: OfSelector = "",
) -> StatusShown:
    """Show groups and instances as `outrider status` does, living sidekicks and turns included."""
    groups = [GroupStatusShown.model_validate(one) for one in read_status(store.context, app, group, selector=selector)]
    return StatusShown(groups=groups, warnings=list(unready(store.context)))


class RunnerShown(BaseModel):
    """A living process of outrider."""

    model_config = ConfigDict(from_attributes=True)

    machine: str
    outrider: str = Field(description="Its version of outrider; empty: one too old to say so.")
    kind: Literal["sidekick", "agent"]
    name: str = Field(description="app/group/instance of a sidekick, service/name of a balancer agent.")


class VersionsShown(BaseModel):
    """Which machine runs which outrider."""

    runners: list[RunnerShown]


@router.get("/versions", tags=["instances"])
def get_versions(
    store: Bound, app: Annotated[str | None, Query(description="Only its sidekicks; default: all, and agents.")] = None
) -> VersionsShown:
    """List the living sidekicks and balancer agents with their machine and version of outrider."""
    found = read_versions(store.context, app)
    return VersionsShown(runners=[RunnerShown.model_validate(one) for one in found])


@router.get("/apps/{app}/instances/{instance}/why", tags=["instances"])
def get_why(app: str, instance: str, store: Bound) -> WhyShown:
    """Explain the state of an instance, the most important first."""
    return WhyShown(instance=instance, reasons=list(explain(store.context, app, instance)))


@router.get("/apps/{app}/why", tags=["groups"])
def get_app_why(
    app: str,
    store: Bound,
    group: Annotated[str | None, Query(description="Only this group of the app.")] = None,
) -> AppWhyShown:
    """Explain what the groups of an app wait for, and which instances of them wait for what."""
    found = explain_groups(store.context, app, group)
    return AppWhyShown(groups=[GroupWhyShown.model_validate(one) for one in found])
