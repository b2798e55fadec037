"""``outrider app``: applications."""

import click

from outrider.cli.addressing import app_option
from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import confirm, echo_json, echo_table, fail
from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.errors import NotFound, Refused

HEADER = ("Id", "Label", "Description")


@click.group(cls=Group)
def app() -> None:
    """Manage applications."""


@app.command("list")
@service_options
@json_option
def list_apps(service: ServiceClient, as_json: bool) -> None:
    """List all applications."""
    show(service.get_all("apps"), as_json)


@app.command()
@app_option("A UUID or a name. Default: a random UUID.", needed=False)
@click.option("--label", default="", help="Display name.")
@click.option("--description", default="", help="Description.")
@click.option("--product-id", help="Second name for Omaha clients, in reverse-DNS form.")
@service_options
@json_option
def create(
    app_id: str | None, label: str, description: str, product_id: str | None, service: ServiceClient, as_json: bool
) -> None:
    """Create an application."""
    body: Json = {"id": app_id, "label": label, "description": description, "product_id": product_id}
    show([service.post("apps", body=body)], as_json)


@app.command()
@app_option("Application to change.", contextual=False)
@click.option("--label", help="New display name.")
@click.option("--description", help="New description.")
@click.option("--product-id", help="Second name for Omaha clients, in reverse-DNS form; empty for none.")
@service_options
@json_option
def update(
    app_id: str,
    label: str | None,
    description: str | None,
    product_id: str | None,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Change an application's label, description or product id.

    With label and description given, an application that doesn't exist is created.
    """
    if label is None and description is None and product_id is None:
        raise click.UsageError("nothing to change: give --label, --description or --product-id")
    if label is None or description is None:
        service.get("apps", app_id)
    body: Json = {"label": label, "description": description, "product_id": product_id}
    saved, created = service.put("apps", app_id, body=body)
    if created:
        click.echo(f"app {saved['id']} didn't exist: created", err=True)
    show([saved], as_json)


@app.command()
@app_option("Application to delete. It must not be in use.", contextual=False)
@click.option("--cascade", is_flag=True, help="Delete all that belongs to it, too: what goes is shown first.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@service_options
@json_option
def delete(app_id: str, cascade: bool, yes: bool, service: ServiceClient, as_json: bool) -> None:
    """Delete an application.

    With --cascade its instances, groups, channels, packages and webhooks go first, if no sidekick of it runs.
    """
    if cascade:
        _delete_all(service, app_id, yes=yes)
    show([service.delete("apps", app_id)], as_json)


def _delete_all(service: ServiceClient, app_id: str, *, yes: bool) -> None:
    """Delete everything that belongs to an app, in an order in which nothing is needed any more.

    Raises:
        NotFound: there is no such app.
        Refused: sidekicks of it run.
    """
    from outrider.cli.declared.live import read_live
    from outrider.cli.declared.plan import removal
    from outrider.cli.declared.steps import Session, count, make_all

    live = read_live(service, [app_id])
    if not live.apps:
        raise NotFound(f"no app {app_id!r}; `app list` shows them")
    ((app, known),) = live.apps.items()
    if alive := sorted(name for names in known.living.values() for name in names):
        raise Refused(
            f"sidekicks of {app} run: {', '.join(alive[:5])}{' and more' if len(alive) > 5 else ''}; end them first"
            " with `outrider instance decommission`"
        )
    instances = [one["id"] for one in service.get_all("apps", app, "instances")]
    steps = [removal(f"instance {app}/{name}", ("apps", app, "instances", name)) for name in instances]
    steps += [removal(f"group {app}/{name}", ("apps", app, "groups", name)) for name in known.groups]
    steps += [removal(f"channel {app}/{name}", ("apps", app, "channels", name)) for name in known.channels]
    steps += [removal(f"package {app} {version}", ("apps", app, "packages", version)) for version in known.packages]
    steps += [removal(f"webhook {name}", ("webhooks", name)) for name, hook in live.webhooks.items() if hook.app == app]
    for line in (line for step in steps for line in step.lines()):
        click.echo(line, err=True)
    confirm(f"Delete app {app} with {count(len(steps), 'thing')} that belong to it?", yes=yes)
    outcome = make_all(Session(service=service), steps, lambda step, notes: None)
    if outcome.failed is not None:
        for step in outcome.left:
            click.echo(f"still there: {step.what}", err=True)
        deleted = count(len(outcome.made), "thing")
        fail(f"{outcome.failed.what}: {outcome.error}; {deleted} deleted, and the app is still there")


def show(apps: list[Json], as_json: bool) -> None:
    """Print applications."""
    if as_json:
        echo_json(apps)
    else:
        echo_table(HEADER, [(one["id"], one["label"], one["description"]) for one in apps])
