"""Steps for groups: new ones with their policies, and those that change."""

from collections.abc import Iterable

from outrider.cli.commands.policy import text_of
from outrider.cli.declared.environments import (
    EnvironmentChange,
    environment_change,
    environment_step,
    write_environment,
)
from outrider.cli.declared.policies import DEFAULT, shown
from outrider.cli.declared.state import AppState, GroupState
from outrider.cli.declared.steps import Session, Step, count
from outrider.cli.rest_client import Json, ServiceClient

Problems = list[tuple[int, str]]
_FIELDS = ("channel", "label", "slots", "paused", "identity")


def group_steps(
    service: ServiceClient, app: AppState, before: AppState, problems: Problems, notes: list[str]
) -> tuple[list[Step], list[Step]]:
    """Steps that may come before channels move, and those that let a paused group go on, which come after."""
    early: list[Step] = []
    late: list[Step] = []
    channels = {*before.channels, *app.channels}
    for group in app.groups.values():
        what = f"apps.{app.name}.groups.{group.name}"
        known = before.groups.get(group.name)
        if group.channel is None and known is None:
            problems.append((group.line, f"{what}: channel is missing; say which one it follows"))
        elif group.channel is not None and group.channel not in channels:
            problems.append(
                (
                    group.line,
                    f"{what}.channel {group.channel!r}: no such channel;"
                    f" add [apps.{app.name}.channels.{group.channel}]",
                )
            )
        environment = environment_change(service, app, group, known)
        if isinstance(environment, str):
            assert group.environment is not None
            problems.append((group.environment.line, f"{what}.environment.{environment}"))
            environment = EnvironmentChange()
        if known is None:
            early.append(_new(app, before, group, environment))
            continue
        if known.pinned:
            notes.append(
                f"group {app.id}/{group.name} was taken back to {known.pinned} by `rollout undo`; it stays there"
            )
        if environment.details:
            early.append(environment_step(app, group, environment, _affects(before, group.name)))
        step = _changed(app, before, group, known)
        if step is not None:
            (late if known.paused and group.paused is False else early).append(step)
    return early, late


def _affects(before: AppState, group: str) -> str:
    return count(len(before.instances.get(group, ())), "instance")


def _new(app: AppState, before: AppState, group: GroupState, environment: EnvironmentChange) -> Step:
    body: Json = {"id": group.name}
    body |= {name: getattr(group, name) for name in _FIELDS if getattr(group, name) is not None}
    details = [f"{name}: {_word(body[name])}" for name in _FIELDS if name in body and body[name] != ""]
    if group.policy is not None:
        details += [f"policy.{name}: {_word(value)}" for name, value in shown(group.policy).items()]
        body |= {"policy": group.policy}

    def create(session: Session) -> Iterable[str]:
        said = list(session.write("POST", "apps", app.id, "groups", body=body)["notes"])
        return [*said, *write_environment(session, app, group, environment)] if environment.details else said

    return Step(
        sign="+",
        what=f"group {app.id}/{group.name}",
        details=(*details, *environment.details),
        affects=_affects(before, group.name),
        make=lambda session: tuple(create(session)),
    )


def _changed(app: AppState, before: AppState, group: GroupState, known: GroupState) -> Step | None:
    wanted = {name: getattr(group, name) for name in _FIELDS if getattr(group, name) is not None}
    if wanted.get("label") == "":  # a group without a label is called like its id
        wanted["label"] = group.name
    fields = {name: value for name, value in wanted.items() if value != getattr(known, name)}
    details = [f"{name}: {_word(getattr(known, name))} -> {_word(value)}" for name, value in fields.items()]
    policy, old = group.policy, known.policy or DEFAULT
    differs = [name for name in DEFAULT if policy is not None and policy[name] != old[name]]
    if policy is not None:
        details += [
            f"policy.{name}: {_word(text_of(name, old[name]))} -> {_word(text_of(name, policy[name]))}"
            for name in differs
        ]
    if not details:
        return None
    place = ("apps", app.id, "groups", group.name)

    def change(session: Session) -> tuple[str, ...]:
        notes: list[str] = []
        if fields.get("paused") is True:  # nothing more starts from here on
            notes = session.write("PATCH", *place, body=fields)["notes"]
        if policy is not None and differs:
            said = session.write("PUT", *place, "policy", body=policy)
            notes = [*said["notes"], *said["warnings"]]
        if fields and fields.get("paused") is not True:
            notes = session.write("PATCH", *place, body=fields)["notes"] or notes
        return tuple(dict.fromkeys(notes))

    is_named_only = not differs and set(fields) <= {"label"}
    return Step(
        sign="~",
        what=f"group {app.id}/{group.name}",
        details=tuple(details),
        affects="" if is_named_only else _affects(before, group.name),
        make=change,
    )


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(one) for one in value) or "none"
    return "none" if value in (None, "") else str(value)
