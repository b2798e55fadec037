"""``outrider channel floor`` and ``channel exclude``: rules of a channel for single versions."""

import click

from outrider.cli import addressing
from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient

FLOORS, EXCLUDED = "floors", "excluded"
app_option = addressing.app_option("Application that the channel belongs to.")
channel_option = click.option("--channel", required=True, help="Name of the channel.")
version_option = click.option("--version", required=True, help="The version.")


@click.group(cls=Group)
def floor() -> None:
    """Versions that an instance must have run on its way to the channel's."""


@floor.command("list")
@app_option
@channel_option
@service_options
@json_option
def list_floors(app_id: str, channel: str, service: ServiceClient, as_json: bool) -> None:
    """List a channel's floors, lowest first."""
    show(service.get("apps", app_id, "channels", channel, FLOORS), as_json)


@floor.command("set")
@app_option
@channel_option
@version_option
@click.option("--reason", default="", help="Why an instance must run this version first.")
@service_options
@json_option
def set_floor(
    app_id: str, channel: str, version: str, reason: str, service: ServiceClient, as_json: bool
) -> None:  # fmt: skip
    """Make a version a floor, or change the reason."""
    saved, _ = service.put("apps", app_id, "channels", channel, FLOORS, version, body={"reason": reason})
    show(saved, as_json)


@floor.command("remove")
@app_option
@channel_option
@version_option
@service_options
@json_option
def remove_floor(app_id: str, channel: str, version: str, service: ServiceClient, as_json: bool) -> None:
    """Make a floor an ordinary version again."""
    show(service.delete("apps", app_id, "channels", channel, FLOORS, version), as_json)


@click.group(cls=Group)
def exclude() -> None:
    """Versions at which the channel can't be pointed."""


@exclude.command("list")
@app_option
@channel_option
@service_options
@json_option
def list_excluded(app_id: str, channel: str, service: ServiceClient, as_json: bool) -> None:
    """List the versions that a channel excludes."""
    show(service.get("apps", app_id, "channels", channel, EXCLUDED), as_json)


@exclude.command("add")
@app_option
@channel_option
@version_option
@service_options
@json_option
def add_excluded(app_id: str, channel: str, version: str, service: ServiceClient, as_json: bool) -> None:
    """Keep the channel from being pointed at a version."""
    saved, _ = service.put("apps", app_id, "channels", channel, EXCLUDED, version, body={})
    show(saved, as_json)


@exclude.command("remove")
@app_option
@channel_option
@version_option
@service_options
@json_option
def remove_excluded(app_id: str, channel: str, version: str, service: ServiceClient, as_json: bool) -> None:
    """Remove an exclusion."""
    show(service.delete("apps", app_id, "channels", channel, EXCLUDED, version), as_json)


def show(listed: Json, as_json: bool) -> None:
    """Print the versions with their reasons."""
    if as_json:
        echo_json(listed["items"])
        return
    echo_table(("Version", "Reason"), [(one["version"], one.get("reason", "")) for one in listed["items"]])
