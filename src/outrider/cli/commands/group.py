"""``outrider group``: instances that follow one channel under one policy."""

import click

from outrider.cli import addressing
from outrider.cli.commands.policy import change, percent, policy, tell_outcome
from outrider.cli.commands.rollup import events, versions
from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.errors import ConfigError

HEADER = ("Label", "App", "Channel", "Id", "Updates Paused", "Percent", "Rollout Active", "Slots")
app_option = addressing.app_option("Application that the group belongs to.")
group_option = addressing.group_option("ID of the group.")


@click.group(cls=Group)
def group() -> None:
    """Manage groups of an application."""


group.add_command(policy)
group.add_command(percent)
group.add_command(versions)
group.add_command(events)


identity_option = click.option(
    "--identity",
    type=click.Choice(("auto", "required", "optional")),
    help="Whether check-ins must be proved. auto: once the group had a sidekick.",
)


@group.command("list")
@app_option
@service_options
@json_option
def list_groups(app_id: str, service: ServiceClient, as_json: bool) -> None:
    """List all groups of an application and whether their updates are paused."""
    show(service.get_all("apps", app_id, "groups"), as_json)


@group.command()
@app_option
@group_option
@click.option("--channel", required=True, help="Channel to follow. It is created if it doesn't exist.")
@click.option("--label", default="", help="Display name.")
@click.option("--slots", type=int, default=1, show_default=True, help="Instances that may swap at the same time.")
@identity_option
@service_options
@json_option
def create(
    app_id: str,
    group_id: str,
    channel: str,
    label: str,
    slots: int,
    identity: str | None,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Create a group."""
    body: Json = {"id": group_id, "channel": channel, "label": label, "slots": slots}
    body |= {"identity": identity} if identity is not None else {}
    show([service.post("apps", app_id, "groups", body=body)], as_json)


@group.command()
@app_option
@group_option
@click.option("--channel", help="Channel to follow.")
@click.option("--label", help="Display name.")
@click.option("--slots", type=int, help="Instances that may swap at the same time.")
@identity_option
@click.option(
    "--update-count",
    type=click.IntRange(min=1),
    help="Largest number of updates per interval; needs --update-interval.",
)
@click.option(
    "--update-interval", type=click.IntRange(min=1), help="Length of the interval in seconds; needs --update-count."
)
@click.option("--oem-blacklist", hidden=True, help="updatectl's list of OEMs that get no updates.")
@service_options
@json_option
def update(
    app_id: str,
    group_id: str,
    channel: str | None,
    label: str | None,
    slots: int | None,
    identity: str | None,
    update_count: int | None,
    update_interval: int | None,
    oem_blacklist: str | None,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Update an existing group."""
    if oem_blacklist is not None:
        raise ConfigError("--oem-blacklist is not supported: put those instances into a group of their own")
    if (update_count is None) != (update_interval is None):
        raise click.UsageError("--update-count and --update-interval need each other: give both or none")
    body: Json = {"channel": channel, "label": label, "slots": slots, "identity": identity}
    changed = any(value is not None for value in body.values())
    if not changed and update_count is None:
        raise click.UsageError("nothing to change: give --channel, --label, --slots, --identity, or --update-count")
    if update_count is not None:
        limit = {"count": update_count, "interval_s": update_interval}
        tell_outcome(change(service, app_id, group_id, {"max_per_interval": limit}))
    place = ("apps", app_id, "groups", group_id)
    show([service.patch(*place, body=body) if changed else service.get(*place)], as_json)


@group.command()
@app_option
@group_option
@service_options
@json_option
def delete(app_id: str, group_id: str, service: ServiceClient, as_json: bool) -> None:
    """Delete a group without running sidekicks."""
    show([service.delete("apps", app_id, "groups", group_id)], as_json)


@group.command()
@app_option
@group_option
@service_options
@json_option
def pause(app_id: str, group_id: str, service: ServiceClient, as_json: bool) -> None:
    """Pause a group's updates. A swap in progress is finished."""
    show([service.patch("apps", app_id, "groups", group_id, body={"paused": True})], as_json)


@group.command()
@app_option
@group_option
@service_options
@json_option
def unpause(app_id: str, group_id: str, service: ServiceClient, as_json: bool) -> None:
    """Resume a group's updates."""
    show([service.patch("apps", app_id, "groups", group_id, body={"paused": False})], as_json)


def show(groups: list[Json], as_json: bool) -> None:
    """Print groups, and their notes on stderr."""
    for one in groups:
        for note in one["notes"]:
            click.echo(f"note: {note}", err=True)
    if as_json:
        echo_json(groups)
    else:
        rows = [
            (
                *(one["label"], one["app"], one["channel"], one["id"], str(one["paused"]).lower()),
                *(f"{one.get('percent', 100):.6g}", str(one.get("rollout_active", False)).lower(), one["slots"]),
            )
            for one in groups
        ]
        echo_table(HEADER, rows)
