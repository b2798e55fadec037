"""``outrider admin-user``: users of the update service and their tokens."""

import click

from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient

HEADER = ("Name", "Role", "Token", "Created", "Token Created", "Apps", "Hawk")


@click.group("admin-user", cls=Group)
def admin_user() -> None:
    """Manage users of the update service and their tokens."""


@admin_user.command()
@click.argument("username")
@click.option(
    "--role",
    type=click.Choice(("viewer", "approver", "operator", "admin")),
    help="A viewer reads, an operator changes, an admin manages users. Default: the user's role so far, or admin;"
    " with --only-app operator.",
)
@click.option("--only-app", "apps", multiple=True, help="The role holds for this app alone; repeat for several.")
@click.option("--all-apps", is_flag=True, help="The role holds for all apps again.")
@click.option(
    "--hawk",
    is_flag=True,
    help="Make a second key, for the real updateservicectl (`serve --coreupdate-api`). etcd keeps it readable."
    " Without this option an earlier one ends.",
)
@service_options
@json_option
def create(
    username: str,
    role: str | None,
    apps: tuple[str, ...],
    all_apps: bool,
    hawk: bool,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Make USERNAME, or give an existing user a new token: the old one ends.

    The token is shown this once; with --hawk the Hawk key follows on a line of its own.
    """
    if role is None:
        # The verb's name says what it makes; but a new token alone must not make an admin of a viewer.
        known = {user["name"] for user in service.get_all("users")}
        role = None if username in known else "operator" if apps else "admin"
    if apps and all_apps:
        raise click.UsageError("--only-app and --all-apps contradict each other")
    body: Json = {"name": username, "role": role} | ({"hawk": True} if hawk else {})
    made = service.post("users", body=body | ({"apps": apps} if apps or all_apps else {}))
    if as_json:
        echo_json(made)
        return
    what = "token and Hawk key, they are" if hawk else "token, it is"
    click.echo(f"{made['name']} is {made['role']}; keep the {what} not shown again:", err=True)
    click.echo(made["token"])
    if hawk:
        click.echo(made["hawk_key"])


@admin_user.command("list")
@service_options
@json_option
def list_(service: ServiceClient, as_json: bool) -> None:
    """List all users."""
    show(service.get_all("users"), as_json)


@admin_user.command()
@click.argument("username")
@service_options
@json_option
def delete(username: str, service: ServiceClient, as_json: bool) -> None:
    """Remove USERNAME. The token ends within a second."""
    show([service.delete("users", username)], as_json)


def show(users: list[Json], as_json: bool) -> None:
    """Print users. Only the last characters of a token are stored."""
    if as_json:
        echo_json(users)
        return
    rows = [
        (
            *(one["name"], one["role"], f"...{one['token_end']}", one["created"][:19], one["token_created"][:19]),
            ", ".join(one["apps"]) or "all",
            "yes" if one.get("has_hawk_key") else "",
        )
        for one in users
    ]
    echo_table(HEADER, rows, dropped_when_empty="Hawk")
