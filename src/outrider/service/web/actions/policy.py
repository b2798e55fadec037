"""The policy and the environment of a group, as text that is checked while somebody types."""

import json
from collections.abc import Mapping, Sequence

import pydantic

from outrider.core.errors import ConfigError, OutriderError
from outrider.core.rollout.policy_settings import Policy, check_policy
from outrider.model.environments import GroupEnvironment
from outrider.service.api.models_policy import PolicyGiven, PolicyShown
from outrider.service.context import check_destinations
from outrider.service.rollouts.explain import count
from outrider.service.store.changes import Unaudited
from outrider.service.store.environments import EnvironmentEdit, Environments
from outrider.service.store.rollouts import Rollouts
from outrider.service.web.actions.rollout import API_GROUP, OF_GROUP, WHY, notes_of, numbers_of
from outrider.service.web.site import Action, Doing, Effect, Field, Visit

_ONLY_READ = Unaudited("page: nothing is changed")


def read_policy(text: str) -> Policy:
    """Read a policy that was typed.

    Raises:
        ConfigError: it is no policy; the message says where.
    """
    try:
        policy = PolicyGiven.model_validate_json(text).to_policy()
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    check_policy(policy)
    return policy


def _policy_text(visit: Visit) -> str:
    rollouts = Rollouts(context=visit.context, auditing=_ONLY_READ)
    shown = PolicyShown.model_validate(rollouts.policy(visit.names["app"], visit.names["group"]))
    known = set(PolicyGiven.model_fields)
    return json.dumps({name: value for name, value in shown.model_dump(mode="json").items() if name in known}, indent=2)


def _policy_lint(visit: Visit, form: Mapping[str, str]) -> Sequence[str]:
    try:
        policy = read_policy(form["policy"]) if "policy" in form else None
        rollouts = Rollouts(context=visit.context, auditing=_ONLY_READ)
        return rollouts.warnings_of(visit.names["app"], visit.names["group"], policy)
    except OutriderError as error:
        return (str(error),)


def _policy_effect(visit: Visit, form: Mapping[str, str]) -> Effect:
    now = numbers_of(visit)
    line = f"the policy of {count(now.known, 'instance')}; those that may update now are woken"
    return Effect(instances=now.known, lines=(line,))


def _set_policy(doing: Doing) -> Sequence[str]:
    policy = read_policy(doing.form.get("policy", ""))
    check_destinations(doing.ours, policy)
    saved = doing.store.rollouts.set_policy(doing.names["app"], doing.names["group"], policy)
    return (*saved.notes, *notes_of(doing))


def read_variables(text: str) -> dict[str, str]:
    """Read ``NAME=value`` lines; empty ones and comments are left out.

    Raises:
        ConfigError: a line is none; the message has its number.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"line {number}: write NAME=value")
        if name.strip() in found:
            raise ConfigError(f"line {number}: {name.strip()} stands there twice")
        found[name.strip()] = value
    return found


def _environment(visit: Visit) -> GroupEnvironment | None:
    store = Environments(context=visit.context, auditing=_ONLY_READ)
    return store.get(visit.names["app"], visit.names["group"])


def _plain(environment: GroupEnvironment | None) -> dict[str, str]:
    shown = {} if environment is None else environment.environment.shown()
    return {name: text for name, (kind, text) in shown.items() if kind == "value"}


def _edit(environment: GroupEnvironment | None, form: Mapping[str, str]) -> EnvironmentEdit:
    wanted, now = read_variables(form.get("variables", "")), _plain(environment)
    return EnvironmentEdit(variables=wanted, unset=tuple(name for name in now if name not in wanted))


def _environment_effect(visit: Visit, form: Mapping[str, str]) -> Effect:
    known = numbers_of(visit).known
    if "variables" not in form:
        return Effect(instances=known, lines=("a change is rolled out like a release, under turns, probes and policy",))
    try:
        edit = _edit(_environment(visit), form)
        store = Environments(context=visit.context, auditing=_ONLY_READ)
        found = store.preview(visit.names["app"], visit.names["group"], edit)
    except OutriderError:  # the lint says it
        return Effect(instances=0, lines=())
    changes = tuple(f"{one.name}: {_said(one.before)} → {_said(one.after)}" for one in found)
    return Effect(instances=known if changes else 0, lines=changes or ("nothing is different",))


def _said(text: str | None) -> str:
    return "(not there)" if text is None else text


def _environment_lint(visit: Visit, form: Mapping[str, str]) -> Sequence[str]:
    if "variables" not in form:
        return ()
    try:
        edit = _edit(_environment(visit), form)
        Environments(context=visit.context, auditing=_ONLY_READ).preview(visit.names["app"], visit.names["group"], edit)
    except OutriderError as error:
        return (str(error),)
    return ()


def _set_environment(doing: Doing) -> Sequence[str]:
    app, group = doing.names["app"], doing.names["group"]
    edit = _edit(doing.store.environments.get(app, group), doing.form)
    saved = doing.store.environments.change(app, group, edit, why=doing.form.get("why", ""), by=doing.asked.speaker(""))
    return notes_of(doing) if saved.created else ("nothing changed",)


def _environment_fields(visit: Visit) -> tuple[Field, ...]:
    text = "\n".join(f"{name}={value}" for name, value in _plain(_environment(visit)).items())
    told = "NAME=value, one a line. Secrets and references stay as they are; `outrider env` changes them."
    return (Field(name="variables", label="Variables", kind="textarea", value=text, help=told), WHY)


POLICY = Action(
    path=f"{OF_GROUP}/policy",
    operation=f"PUT {API_GROUP}/policy",
    title="Policy of {app}/{group}",
    button="Save",
    back=OF_GROUP,
    effect=_policy_effect,
    do=_set_policy,
    fields=lambda visit: (Field(name="policy", label="Policy", kind="textarea", value=_policy_text(visit)),),
    lint=_policy_lint,
)
ENVIRONMENT = Action(
    path=f"{OF_GROUP}/environment",
    operation=f"PATCH {API_GROUP}/environment",
    title="Environment of {app}/{group}",
    button="Roll out",
    back=OF_GROUP,
    effect=_environment_effect,
    do=_set_environment,
    fields=_environment_fields,
    lint=_environment_lint,
)
ACTIONS = (POLICY, ENVIRONMENT)
