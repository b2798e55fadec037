"""What must change so that the service has what a file declares: steps in an order in which nothing starts too early.

Apps and packages come first, then channels that are new, groups, channels that move (groups have their policies by
then), groups that go on after a pause, webhooks, and removals at the end.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from outrider.cli.declared.channels import channel_steps
from outrider.cli.declared.groups import group_steps
from outrider.cli.declared.packages import package_steps
from outrider.cli.declared.state import AppState, DeclarationError, State, WebhookState
from outrider.cli.declared.steps import Session, Step, count
from outrider.cli.rest_client import Json, ServiceClient
from outrider.service.history.webhooks import fingerprint_of


@dataclass(slots=True, kw_only=True)
class Plan:
    """The steps, and what a person should know besides."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    tags: dict[tuple[str, ...], str | None] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)


def make_plan(service: ServiceClient, wanted: State, live: State, *, prune: bool = False) -> Plan:
    """Compare a file with the service.

    Args:
        service: Is only asked whether something needs a package that would be removed, and whether a secret is another.
        prune: Also remove what the file doesn't name, within the apps that it names.

    Raises:
        DeclarationError: the service would refuse something, as far as one can see now.
    """
    plan = Plan(tags=_tags(live))
    early: list[Step] = []
    moves: list[Step] = []
    late: list[Step] = []
    for app in wanted.apps.values():
        known = live.apps.get(app.id)
        before = known or AppState(name=app.name, id=app.id)
        early += _app_steps(app, known)
        early += package_steps(app, before, plan.problems)
        new, moved = channel_steps(app, before, plan.problems)
        groups, unpaused = group_steps(service, app, before, plan.problems, plan.notes)
        early += [*new, *groups]
        moves += moved
        late += unpaused
    hooks = [step for hook in wanted.webhooks.values() for step in _webhook_steps(wanted, live, hook, plan.problems)]
    removals = _removals(service, wanted, live, plan) if prune else []
    if plan.problems:
        raise DeclarationError(tuple(f"{wanted.file}:{line}: {text}" for line, text in sorted(plan.problems)))
    plan.steps = [*early, *moves, *late, *hooks, *removals]
    return plan


def _tags(live: State) -> dict[tuple[str, ...], str | None]:
    tags: dict[tuple[str, ...], str | None] = {("webhooks", name): hook.etag for name, hook in live.webhooks.items()}
    for app in live.apps.values():
        tags["apps", app.id] = app.etag
        tags |= {("apps", app.id, "channels", one.name): one.etag for one in app.channels.values()}
        tags |= {("apps", app.id, "groups", one.name): one.etag for one in app.groups.values()}
    return tags


def _app_steps(app: AppState, known: AppState | None) -> Iterator[Step]:
    given = {"label": app.label, "description": app.description, "product_id": app.product_id}
    body: Json = {name: value for name, value in given.items() if value is not None}
    if known is None:
        new = {"label": "", "description": ""} | body

        def create(session: Session) -> tuple[str, ...]:
            session.write("PUT", "apps", app.id, body=new, absent=True)
            return ()

        yield Step(sign="+", what=f"app {app.id}", details=_said(body), make=create)
        return
    changed = {name: value for name, value in body.items() if value != getattr(known, name)}
    if changed:

        def change(session: Session) -> tuple[str, ...]:
            session.write("PUT", "apps", app.id, body=changed)
            return ()

        details = tuple(f"{name}: {getattr(known, name)!r} -> {value!r}" for name, value in changed.items())
        yield Step(sign="~", what=f"app {app.id}", details=details, make=change)


def _said(body: Json) -> tuple[str, ...]:
    return tuple(f"{name}: {value}" for name, value in body.items() if value not in (None, ""))


def _webhook_steps(wanted: State, live: State, hook: WebhookState, problems: list[tuple[int, str]]) -> Iterator[Step]:
    if hook.app and hook.app not in wanted.apps and hook.app not in live.apps:
        problems.append((hook.line, f"webhooks.{hook.name}.app {hook.app!r}: this file has no such app"))
    known = live.webhooks.get(hook.name)
    body: Json = {"url": hook.url}
    body |= {name: value for name, value in (("app", hook.app), ("least", hook.least)) if value is not None}
    if known is None:
        secret = {"secret": hook.secret} if hook.secret else {}

        def create(session: Session) -> tuple[str, ...]:
            made = session.write("POST", "webhooks", body={"name": hook.name, **body, **secret})
            return () if secret else (f"webhook {hook.name}: secret: {made['secret']}",)

        said = "as the file says" if secret else "a random one, shown once"
        yield Step(sign="+", what=f"webhook {hook.name}", details=(*_said(body), f"secret: {said}"), make=create)
        return
    changes = {name: value for name, value in body.items() if value != getattr(known, name)}
    details = [
        f"{name}: {getattr(known, name) or 'all apps'} -> {value or 'all apps'}" for name, value in changes.items()
    ]
    if hook.secret and fingerprint_of(hook.secret) != known.fingerprint:
        changes["secret"] = hook.secret
        details.append("secret: another one")
    if changes:

        def change(session: Session) -> tuple[str, ...]:
            session.write("PUT", "webhooks", hook.name, body=changes)
            return ()

        yield Step(sign="~", what=f"webhook {hook.name}", details=tuple(details), make=change)


def _removals(service: ServiceClient, wanted: State, live: State, plan: Plan) -> list[Step]:
    """What the file doesn't name, within its apps; what can't be removed now is kept, with the reason."""
    steps: list[Step] = []
    for app in wanted.apps.values():
        known = live.apps.get(app.id)
        if known is None:
            continue
        gone = sorted(set(known.groups) - set(app.groups))
        for name in gone:
            instances = known.instances.get(name, frozenset())
            if alive := known.living.get(name):
                plan.problems.append(
                    (
                        app.line,
                        f"--prune would remove group {name} of {app.id}, whose sidekicks run: {_some(alive)};"
                        " stop them first, or write the group into the file",
                    )
                )
            affects = count(len(instances), "instance")
            steps.append(removal(f"group {app.id}/{name}", ("apps", app.id, "groups", name), affects))
        followed = {
            (app.groups[name].channel if name in app.groups else None) or group.channel: name
            for name, group in known.groups.items()
            if name not in gone
        }
        for name in sorted(set(known.channels) - set(app.channels)):
            if name in followed:
                plan.notes.append(f"channel {app.id}/{name} stays: group {followed[name]} follows it")
                continue
            steps.append(removal(f"channel {app.id}/{name}", ("apps", app.id, "channels", name)))
        for version in sorted(set(known.packages) - set(app.packages)):
            needed = service.get("apps", app.id, "packages", version, "needed")["needed"]
            if needed:
                plan.notes.append(f"package {app.id} {version} stays: {needed}")
                continue
            steps.append(removal(f"package {app.id} {version}", ("apps", app.id, "packages", version)))
    for name, hook in sorted(live.webhooks.items()):
        if hook.app in wanted.apps and name not in wanted.webhooks:
            steps.append(removal(f"webhook {name}", ("webhooks", name)))
    return steps


def removal(what: str, path: tuple[str, ...], affects: str = "") -> Step:
    """The step that deletes what is at ``path``."""

    def remove(session: Session) -> tuple[str, ...]:
        session.write("DELETE", *path)
        return ()

    return Step(sign="-", what=what, affects=affects, make=remove)


def _some(names: Iterable[str]) -> str:
    first = sorted(names)
    return ", ".join(first[:5]) + (f" and {len(first) - 5} more" if len(first) > 5 else "")
