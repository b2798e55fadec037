"""``outrider client-token``: tokens that prove Omaha clients without a sidekick."""

import click

from outrider.cli import addressing
from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient

app_option = addressing.app_option("Application of the clients.")
group_option = addressing.group_option("The clients' group.")
HEADER = ("Id", "Group", "Instance", "Token", "Created", "Note")


@click.group("client-token", cls=Group)
def client_token() -> None:
    """Manage tokens of Omaha clients that have no sidekick."""


@client_token.command()
@app_option
@group_option
@click.option("--instance", default="", help="Only for this instance. Default: all of the group without a sidekick.")
@click.option("--note", default="", help="For people.")
@service_options
@json_option
def create(app_id: str, group_id: str, instance: str, note: str, service: ServiceClient, as_json: bool) -> None:
    """Make a token for the clients of a group; they add it to their update address.

    The token is shown this once.
    """
    body: Json = {"group": group_id, "instance": instance, "note": note}
    made = service.post("apps", app_id, "client-tokens", body=body)
    if as_json:
        echo_json(made)
        return
    click.echo("keep the token, it is not shown again; clients update from SERVICE/v1/update/TOKEN:", err=True)
    click.echo(made["token"])


@client_token.command("list")
@app_option
@service_options
@json_option
def list_(app_id: str, service: ServiceClient, as_json: bool) -> None:
    """List the tokens of an app's clients."""
    show(service.get_all("apps", app_id, "client-tokens"), as_json)


@client_token.command()
@app_option
@click.option("--id", "token_id", metavar="ID", required=True, help="Of the token, as `list` shows it.")
@service_options
@json_option
def delete(app_id: str, token_id: str, service: ServiceClient, as_json: bool) -> None:
    """Revoke a token: it proves nothing any more."""
    show([service.delete("apps", app_id, "client-tokens", token_id)], as_json)


def show(tokens: list[Json], as_json: bool) -> None:
    """Print tokens. Only the last characters of each are stored."""
    if as_json:
        echo_json(tokens)
        return
    rows = [
        (
            *(one["id"], one["group"], one["instance"] or "all", f"...{one['token_end']}", one["created"][:19]),
            one["note"],
        )
        for one in tokens
    ]
    echo_table(HEADER, rows)
