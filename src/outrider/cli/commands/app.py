"""``outrider app``: applications."""

import click

from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient

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
@click.option("--app-id", help="A UUID or a name. Default: a random UUID.")
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
@click.option("--app-id", required=True, help="Application to change.")
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
@click.option("--app-id", required=True, help="Application to delete. It must not be in use.")
@service_options
@json_option
def delete(app_id: str, service: ServiceClient, as_json: bool) -> None:
    """Delete an application."""
    show([service.delete("apps", app_id)], as_json)


def show(apps: list[Json], as_json: bool) -> None:
    """Print applications."""
    if as_json:
        echo_json(apps)
    else:
        echo_table(HEADER, [(one["id"], one["label"], one["description"]) for one in apps])
