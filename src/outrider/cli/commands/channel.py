"""``outrider channel``: names that point at a version."""

import click

from outrider.cli import addressing
from outrider.cli.commands.channel_versions import exclude, floor
from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient

HEADER = ("Label", "Version", "Publish", "Upstream")
app_option = addressing.app_option("Application that the channel belongs to.")
channel_option = click.option("--channel", "name", required=True, help="Name of the channel.")
# As in the guide: --publish alone, --publish=true and --publish=false.
publish_option = click.option(
    "--publish", is_flag=False, flag_value="true", type=click.BOOL, help="Publish or unpublish the channel."
)

missing_option = click.option(
    "--allow-missing", is_flag=True, help="Accept a version without a package; the update starts when there is one."
)


@click.group(cls=Group)
def channel() -> None:
    """Manage channels for an application."""


channel.add_command(floor)
channel.add_command(exclude)


@channel.command("list")
@app_option
@service_options
@json_option
def list_channels(app_id: str, service: ServiceClient, as_json: bool) -> None:
    """List all channels for an application."""
    show(service.get_all("apps", app_id, "channels"), as_json)


@channel.command()
@app_option
@channel_option
@click.option("--version", help="Version to point at. Default: none.")
@publish_option
@missing_option
@service_options
@json_option
def create(
    app_id: str,
    name: str,
    version: str | None,
    publish: bool | None,
    allow_missing: bool,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Create a channel."""
    body: Json = {"name": name, "version": version, "publish": bool(publish)} | _missing(allow_missing)
    show([service.post("apps", app_id, "channels", body=body)], as_json)


@channel.command()
@app_option
@channel_option
@click.option("--version", help="Version to point at. Every group on the channel gets it as its target.")
@publish_option
@missing_option
@click.option(
    "--follow",
    metavar="IMAGE:RANGE",
    help="Make a package of the newest tag, such as registry:5000/app:^2; an empty text ends that.",
)
@click.option(
    "--follow-moves/--no-follow-moves",
    default=None,
    help="Whether a followed tag also becomes the channel's version. Default: no.",
)
@service_options
@json_option
def update(
    app_id: str,
    name: str,
    version: str | None,
    publish: bool | None,
    allow_missing: bool,
    follow: str | None,
    follow_moves: bool | None,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Change the version and publish state of a channel, and print what its groups do now.

    A channel that doesn't exist is created.
    """
    if all(given is None for given in (version, publish, follow, follow_moves)):
        raise click.UsageError("nothing to change: give --version, --publish, --follow or --follow-moves")
    body: Json = {"version": version, "publish": publish} | _missing(allow_missing)
    body |= {"follow": follow} if follow is not None else {}
    body |= {"follow_moves": follow_moves} if follow_moves is not None else {}
    saved, created = service.put("apps", app_id, "channels", name, body=body)
    if created:
        click.echo(f"channel {name} didn't exist: created", err=True)
    show([saved], as_json)


@channel.command()
@app_option
@channel_option
@service_options
@json_option
def delete(app_id: str, name: str, service: ServiceClient, as_json: bool) -> None:
    """Delete a channel that no group follows."""
    deleted = service.delete("apps", app_id, "channels", name)
    if as_json:
        echo_json([deleted])
    else:
        click.echo(f"deleted channel: {name}, for application: {app_id}")


def _missing(allowed: bool) -> Json:
    """Only when it is asked for: a service of an earlier version doesn't know the field."""
    return {"allow_missing": True} if allowed else {}


def show(channels: list[Json], as_json: bool) -> None:
    """Print channels, and their notes on stderr."""
    for one in channels:
        for note in one["notes"]:
            click.echo(f"note: {note}", err=True)
        if one.get("follow"):
            moves = "and the channel's version" if one["follow_moves"] else "and the channel stays where it is"
            click.echo(
                f"note: {one['name']} follows {one['follow']}: its newest tag becomes a package, {moves}", err=True
            )
    if as_json:
        echo_json(channels)
    else:
        rows = [(one["name"], one["version"], str(one["publish"]).lower(), "") for one in channels]
        echo_table(HEADER, rows)
