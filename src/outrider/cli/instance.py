"""``outrider instance``: the instances that checked in, and commands for their sidekicks."""

import getpass

import click

from outrider.cli.client import Json, ServiceClient
from outrider.cli.common import Group, echo_json, echo_table, json_option, server_option

HEADER = ("AppID", "ClientID", "Version", "LastSeen", "Group", "OEM", "Status", "Granted")


@click.group(cls=Group)
def instance() -> None:
    """Operations to view and command instances."""


@instance.command("list-updates")
@click.option("--app-id", required=True, help="Application of the instances.")
@click.option("--group-id", help="Only instances of this group.")
@server_option
@json_option
def list_updates(app_id: str, group_id: str | None, server: str, as_json: bool) -> None:
    """List the instances that checked in: their version and where their update stands."""
    rows = ServiceClient(server).get("apps", app_id, "instances", group=group_id)["items"]
    if as_json:
        echo_json(rows)
        return
    echo_table(HEADER, [_row(one) for one in rows])


@instance.command()
@click.argument("app")
@click.argument("name", metavar="INSTANCE")
@server_option
def delete(app: str, name: str, server: str) -> None:
    """Forget an instance that is gone for good; it comes back by itself if it checks in again."""
    ServiceClient(server).delete("apps", app, "instances", name)
    click.echo(f"deleted instance: {name}, for application: {app}")


@instance.command()
@click.argument("app")
@click.argument("name", metavar="INSTANCE")
@server_option
def pause(app: str, name: str, server: str) -> None:
    """Stop an instance from updating at its next safe point."""
    _command(server, app, name, "pause")


@instance.command()
@click.argument("app")
@click.argument("name", metavar="INSTANCE")
@server_option
def resume(app: str, name: str, server: str) -> None:
    """Let a paused instance go on."""
    _command(server, app, name, "resume")


@instance.command()
@click.argument("app")
@click.argument("name", metavar="INSTANCE")
@click.option("--yes", is_flag=True, help="Don't ask.")
@server_option
def rollback(app: str, name: str, yes: bool, server: str) -> None:
    """Take an instance back to the version before."""
    if not yes:
        click.confirm(f"Take instance {name} of {app} back to its version before?", abort=True, err=True)
    _command(server, app, name, "rollback")


@instance.command()
@click.argument("app")
@click.argument("name", metavar="INSTANCE")
@server_option
def retry(app: str, name: str, server: str) -> None:
    """Let an instance try again what failed."""
    _command(server, app, name, "retry")


def _command(server: str, app: str, name: str, verb: str) -> None:
    body: Json = {"verb": verb, "by": _operator()}
    ServiceClient(server).post("apps", app, "instances", name, "command", body=body)
    click.echo(f"{verb} left for instance {name}: its sidekick takes it when it is next awake")


def _operator() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in a container
        return "unknown"


def _row(one: Json) -> tuple[object, ...]:
    status = f"{one['status']} ({one['error_code']})" if one["error_code"] else one["status"]
    return (
        one["app"],
        one["id"],
        one["version"],
        one["last_seen"],
        one["group"],
        one["oem"],
        status,
        one["granted_version"],
    )
