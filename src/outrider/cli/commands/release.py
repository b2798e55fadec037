"""``outrider release``: releases that are marked bad."""

import click

from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import ServiceClient
from outrider.core.errors import NotFound

HEADER = ("Version", "Instance", "When", "Why")
app_option = click.option("--app-id", required=True, help="Application of the release.")


@click.group(cls=Group)
def release() -> None:
    """Releases that an instance has proved bad: nobody is offered them until an operator lifts the mark."""


@release.command("list")
@app_option
@service_options
@json_option
def list_releases(app_id: str, service: ServiceClient, as_json: bool) -> None:
    """List the releases that are marked bad."""
    marked = service.get_all("apps", app_id, "poison")
    if as_json:
        echo_json(marked)
    else:
        echo_table(HEADER, [(one["version"], one["instance"], one["at"], one["why"]) for one in marked])


@release.command()
@app_option
@click.option("--version", required=True, help="Version to offer again.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@service_options
@json_option
def lift(app_id: str, version: str, yes: bool, service: ServiceClient, as_json: bool) -> None:
    """Take the mark off a release: its groups are offered it again at once."""
    marked = [one for one in service.get_all("apps", app_id, "poison") if one["version"] == version]
    if not marked:
        raise NotFound(f"app {app_id}: release {version!r} isn't marked bad")
    if not yes:
        click.confirm(
            f"{version} was marked bad by {marked[0]['instance']} ({marked[0]['why']}). Offer it again?",
            abort=True,
            err=True,
        )
    lifted = service.delete("apps", app_id, "poison", version)
    if as_json:
        echo_json([lifted])
    else:
        click.echo(f"lifted: {version} of {app_id} may be installed again")
