"""``outrider release``: releases that are blocked."""

import click

from outrider.cli import addressing
from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import confirm, echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.errors import ConfigError, NotFound

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
        echo_table(HEADER, [(one["label"], one["instance"], one["at"], one["why"]) for one in blocked])


@release.command()
@app_option
@click.option("--version", required=True, help="Version to unblock, or a whole release as `release list` shows it.")
@click.option("--environment", type=click.IntRange(min=0), help="Number of the release's environment; 0: none.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@service_options
@json_option
def unblock(
    app_id: str, version: str, environment: int | None, yes: bool, service: ServiceClient, as_json: bool
) -> None:
    """Unblock a release. Instances may install it again at once."""
    blocked = chosen(service.get_all("apps", app_id, "blocks"), version, environment)
    if not blocked:
        raise NotFound(f"app {app_id}: release {version!r} isn't blocked")
    labels = sorted({one["label"] for one in blocked})
    if len(labels) > 1:
        raise ConfigError(f"--version {version}: {', '.join(labels)} are blocked; say which, or give --environment")
    label = labels[0]
    confirm(f"{label} was blocked by {blocked[0]['instance']} ({blocked[0]['why']}). Unblock it?", yes=yes)
    unblocked = [service.delete("apps", app_id, "blocks", key) for key in dict.fromkeys(one["key"] for one in blocked)]
    for note in (note for one in unblocked for note in one.get("notes", ())):
        click.echo(f"note: {note}", err=True)
    if as_json:
        echo_json(unblocked)
    else:
        click.echo(f"{label} of {app_id} unblocked; instances may install it again")


def chosen(blocked: list[Json], version: str, environment: int | None) -> list[Json]:
    """The blocks of a release, by its label, its key, or its version and the number of its environment."""
    exact = [one for one in blocked if version in (one["label"], one["key"])]
    if exact and environment is None:
        return exact
    of_version = [one for one in blocked if one["version"] == version or one["label"].startswith(f"{version} with ")]
    if environment is None:
        return of_version
    with_it = f"{version} with environment {environment}" if environment else version
    return [one for one in of_version if one["label"] == with_it or one["label"].startswith(f"{with_it},")]
