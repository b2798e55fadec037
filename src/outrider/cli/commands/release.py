"""``outrider release``: releases that are blocked."""

import click

from outrider.cli import addressing
from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import confirm, echo_json, echo_table
from outrider.cli.rest_client import ServiceClient
from outrider.core.errors import NotFound

HEADER = ("Version", "Instance", "When", "Why")
app_option = addressing.app_option("App of the release.")


@click.group(cls=Group)
def release() -> None:
    """Blocked releases. An instance proved each bad; no instance gets it until an operator unblocks it."""


@release.command("list")
@app_option
@service_options
@json_option
def list_releases(app_id: str, service: ServiceClient, as_json: bool) -> None:
    """List the releases that are blocked."""
    blocked = service.get_all("apps", app_id, "blocks")
    if as_json:
        echo_json(blocked)
    else:
        echo_table(HEADER, [(one["version"], one["instance"], one["at"], one["why"]) for one in blocked])


@release.command()
@app_option
@click.option("--version", required=True, help="Version to unblock.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@service_options
@json_option
def unblock(app_id: str, version: str, yes: bool, service: ServiceClient, as_json: bool) -> None:
    """Unblock a release. Instances may install it again at once."""
    blocked = [one for one in service.get_all("apps", app_id, "blocks") if one["version"] == version]
    if not blocked:
        raise NotFound(f"app {app_id}: release {version!r} isn't blocked")
    confirm(f"{version} was blocked by {blocked[0]['instance']} ({blocked[0]['why']}). Unblock it?", yes=yes)
    unblocked = service.delete("apps", app_id, "blocks", version)
    for note in unblocked.get("notes", ()):
        click.echo(f"note: {note}", err=True)
    if as_json:
        echo_json([unblocked])
    else:
        click.echo(f"{version} of {app_id} unblocked; instances may install it again")
