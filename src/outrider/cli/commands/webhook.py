"""``outrider webhook``: URLs that receive activity events."""

import click

from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient
from outrider.model.activity import SEVERITIES

HEADER = ("Name", "Kind", "Url", "App", "Severity", "Pending")


@click.group(cls=Group)
def webhook() -> None:
    """Webhooks: URLs that receive activity events."""


@webhook.command("list")
@service_options
@json_option
def list_webhooks(service: ServiceClient, as_json: bool) -> None:
    """List the webhooks with the number of pending deliveries."""
    hooks = service.get_all("webhooks")
    if as_json:
        echo_json(hooks)
    else:
        echo_table(
            HEADER, [(one["name"], one["kind"], one["url"], one["app"], one["least"], one["pending"]) for one in hooks]
        )


@webhook.command()
@click.argument("name")
@click.option("--url", help="URL that receives the events, signed.")
@click.option(
    "--notify",
    metavar="ADDRESS",
    help="Address in chat or of mail instead, as the library apprise writes it: slack://..., mailto://...",
)
@click.option("--app-id", default="", help="Send only events of this app.")
@click.option(
    "--severity", type=click.Choice(SEVERITIES), default="info", show_default=True, help="Lowest severity to send."
)
@service_options
@json_option
def create(
    name: str, url: str | None, notify: str | None, app_id: str, severity: str, service: ServiceClient, as_json: bool
) -> None:
    """Add a webhook and print the secret that signs its deliveries. It is printed only once.

    With --notify people are told in chat or by mail, and nothing is signed.
    """
    if (url is None) == (notify is None):
        raise click.UsageError("write either --url or --notify")
    kind = "webhook" if url is not None else "notification"
    body: Json = {"name": name, "url": url or notify, "app": app_id, "least": severity, "kind": kind}
    made = service.post("webhooks", body=body)
    if as_json:
        echo_json(made)
    elif kind == "webhook":
        click.echo(f"secret: {made['secret']}")
    else:
        click.echo(f"{name} is told by {made['url'].partition(':')[0]}")


@webhook.command()
@click.argument("name")
@service_options
def delete(name: str, service: ServiceClient) -> None:
    """Remove a webhook and its pending deliveries."""
    service.delete("webhooks", name)
    click.echo(f"deleted webhook: {name}")
