"""``outrider apply``, ``diff`` and ``export``: one file for what the update service should know."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outrider.cli.options import json_option, service_options
from outrider.cli.output import confirm, echo_json
from outrider.cli.rest_client import ServiceClient
from outrider.core.errors import NotFound, OutriderError

if TYPE_CHECKING:
    from outrider.cli.declared.plan import Plan
    from outrider.cli.declared.steps import Step

CHANGES = 2
"""With which `diff --exit-code` leaves when there are some."""

file_argument = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
prune_option = click.option(
    "--prune", is_flag=True, help="Also remove what the file doesn't name, within the apps that it names."
)


@click.command()
@file_argument
@click.option("--diff", "only_show", is_flag=True, help="Only show the changes, as `outrider diff` does.")
@prune_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@service_options
def apply(file: Path, only_show: bool, prune: bool, yes: bool, service: ServiceClient) -> None:
    """Make the update service have what FILE says: apps, packages, channels, groups with policies, webhooks.

    FILE is TOML, or YAML when it ends in .yaml or .yml. It is checked as a whole before anything is written; the
    changes are shown first, with the number of instances that each concerns. What FILE doesn't say stays as it is.
    When another operator changes the same thing meanwhile, it stops. A second time there is nothing to change.
    """
    from outrider.cli.declared.steps import Session, count, make_all

    plan = _plan(service, file, prune=prune)
    for line in _lines(plan.steps):
        click.echo(line)
    for note in plan.notes:
        click.echo(f"note: {note}", err=True)
    if not plan.steps:
        click.echo(f"nothing to change: the service has what {file.name} says")
        return
    if only_show:
        return
    confirm(f"Make {count(len(plan.steps), 'change')} at {service.server}?", yes=yes)

    def tell(step: "Step", notes: Sequence[str]) -> None:
        click.echo(f"done: {step.sign} {step.what}")
        for note in notes:
            click.echo(f"note: {note}", err=not note.startswith("webhook "))

    outcome = make_all(Session(service=service, tags=plan.tags), plan.steps, tell)
    if outcome.failed is None:
        click.echo(f"applied {count(len(outcome.made), 'change')}")
        return
    click.echo(f"Error: {outcome.failed.what}: {outcome.error}", err=True)
    click.echo(f"applied: {count(len(outcome.made), 'change')}, listed above as done", err=True)
    click.echo(f"not applied, or in part: {outcome.failed.sign} {outcome.failed.what}", err=True)
    for step in outcome.left:
        click.echo(f"not applied: {step.sign} {step.what}", err=True)
    click.echo(f"`outrider diff {file}` shows what is left; `outrider apply {file}` goes on from there", err=True)
    sys.exit(1)


@click.command()
@file_argument
@prune_option
@click.option("--exit-code", is_flag=True, help="Leave with 2 when there are changes; for scripts.")
@service_options
@json_option
def diff(file: Path, prune: bool, exit_code: bool, service: ServiceClient, as_json: bool) -> None:
    """Show what `outrider apply FILE` would change, and how many instances each change concerns."""
    plan = _plan(service, file, prune=prune)
    if as_json:
        echo_json(
            [
                {"change": one.sign, "what": one.what, "details": list(one.details), "affects": one.affects}
                for one in plan.steps
            ]
        )
    else:
        for line in _lines(plan.steps):
            click.echo(line)
        if not plan.steps:
            click.echo(f"no changes: the service has what {file.name} says")
    for note in plan.notes:
        click.echo(f"note: {note}", err=True)
    if exit_code and plan.steps:
        sys.exit(CHANGES)


@click.command()
@click.argument("app", required=False)
@click.option("--format", "form", type=click.Choice(["toml", "yaml"]), default="toml", show_default=True, help="Form.")
@service_options
@json_option
def export(app: str | None, form: str, service: ServiceClient, as_json: bool) -> None:
    """Print what the update service has of APP, or of all apps, as a file that `outrider apply` reads.

    Secrets of webhooks are masked; `apply` keeps them. Blocks, rollouts and instances are no part of it.
    """
    from outrider.cli.declared.live import read_live
    from outrider.cli.declared.writing import as_document, to_toml, to_yaml

    names = [app] if app is not None else [one["id"] for one in service.get_all("apps")]
    state = read_live(service, names)
    if app is not None:
        if not state.apps:
            raise NotFound(f"no app {app!r}; `app list` shows them")
        state = replace(state, webhooks={name: hook for name, hook in state.webhooks.items() if hook.app in state.apps})
    for one in state.apps.values():
        for group in one.groups.values():
            if group.pinned:
                click.echo(
                    f"note: group {one.id}/{group.name} was taken back to {group.pinned} by `rollout undo`;"
                    " that is no part of the file",
                    err=True,
                )
    document = as_document(state)
    if as_json:
        echo_json(document)
    else:
        click.echo(to_toml(document) if form == "toml" else to_yaml(document), nl=False)


def _plan(service: ServiceClient, file: Path, *, prune: bool) -> "Plan":
    """Read the file, ask the service, and compare; every problem of the file is printed on a line of its own."""
    from outrider.cli.declared.live import read_live
    from outrider.cli.declared.plan import make_plan
    from outrider.cli.declared.reading import read_declaration
    from outrider.cli.declared.state import DeclarationError

    try:
        wanted = read_declaration(file)
        live = read_live(service, wanted.apps, with_webhooks=bool(wanted.webhooks) or prune)
        return make_plan(service, wanted, live, prune=prune)
    except DeclarationError as error:
        *first, last = error.problems
        for line in first:
            click.echo(f"Error: {line}", err=True)
        raise OutriderError(last) from error


def _lines(steps: "Sequence[Step]") -> list[str]:
    return [line for step in steps for line in step.lines()]
