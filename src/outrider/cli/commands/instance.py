"""``outrider instance``: list instances and send commands to their sidekicks."""

import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import click

from outrider.cli import addressing
from outrider.cli.addressing import instance_address
from outrider.cli.commands.fake import bench, fake
from outrider.cli.main import Group
from outrider.cli.options import json_option, operator, selector_option, service_options
from outrider.cli.output import confirm, echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient
from outrider.cli.times import between, end_option, start_option
from outrider.core.errors import Conflict
from outrider.core.labels import shown
from outrider.core.omaha import failure_text

HEADER = ("AppID", "ClientID", "Version", "LastSeen", "Group", "OEM", "Status", "Granted", "Labels", "Why")
VERSIONS_HEADER = ("AppID", "GroupID", "Version", "Clients")
HISTORY_HEADER = ("Time", "Version", "Event", "Meaning", "ErrorCode")
_MEANING = {
    "3:0": "failed",
    "3:1": "installed",
    "3:2": "running",
    "13:1": "downloading",
    "14:1": "downloaded",
    "800:1": "waiting for a turn",
}

app_option = addressing.app_option("Only instances of this application.", needed=False)
group_option = addressing.group_option("Only instances of this group.", needed=False)


@click.group(cls=Group)
def instance() -> None:
    """View instances and send commands to them."""


instance.add_command(fake)
instance.add_command(bench)


@instance.command("list-updates")
@app_option
@group_option
@start_option("Only instances seen since then")
@end_option("Only instances seen before")
@selector_option
@service_options
@json_option
def list_updates(
    app_id: str | None,
    group_id: str | None,
    start: datetime | None,
    end: datetime | None,
    selector: str,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """List the instances that checked in, with their version and the state of their update."""
    rows = list(_instances(service, app_id, group_id, start, end, selector))
    if as_json:
        echo_json(rows)
    else:
        echo_table(HEADER, [_row(one) for one in rows], dropped_when_empty="Labels")


instance.add_command(list_updates, "list")


@instance.command("list-app-versions")
@app_option
@group_option
@start_option("Only instances seen since then")
@end_option("Only instances seen before")
@service_options
@json_option
def list_app_versions(
    app_id: str | None,
    group_id: str | None,
    start: datetime | None,
    end: datetime | None,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Count the instances of each application, group and version."""
    rows = _instances(service, app_id, group_id, start, end)
    counts = sorted(Counter((one["app"], one["group"], one["version"]) for one in rows).items())
    if as_json:
        echo_json(
            [{"app": app, "group": group, "version": version, "clients": n} for (app, group, version), n in counts]
        )
    else:
        echo_table(VERSIONS_HEADER, [(*key, number) for key, number in counts])


@instance.command()
@instance_address
@service_options
@json_option
def history(app: str, name: str, service: ServiceClient, as_json: bool) -> None:
    """Show what INSTANCE of APP has reported, oldest first; the service keeps the last 50 events."""
    lines = service.get("apps", app, "instances", name)["history"]
    if as_json:
        echo_json(lines)
        return
    rows = [(one["at"], one["version"], one["event"], _meaning(one), one["error_code"] or "") for one in lines]
    echo_table(HISTORY_HEADER, rows)


@instance.command()
@instance_address
@click.option("--machine-off", "--yes", "machine_off", is_flag=True, help="Its machine is off: free its turn, too.")
@service_options
@json_option
def delete(app: str, name: str, machine_off: bool, service: ServiceClient, as_json: bool) -> None:
    """Remove an instance whose machine is gone for good: its server, turn, grant and row.

    It is refused while its sidekick runs. Should the machine come back, it gets nothing until `instance admit`.
    """
    try:
        deleted = service.delete("apps", app, "instances", name, machine_off="true" if machine_off else None)
    except Conflict as error:
        if machine_off or "--machine-off" not in str(error) or not sys.stdin.isatty():
            raise
        click.echo(f"{error}", err=True)
        click.confirm(f"Is the machine of {name} off?", abort=True, err=True)
        deleted = service.delete("apps", app, "instances", name, machine_off="true")
    if as_json:
        echo_json([deleted])
    else:
        click.echo(f"deleted instance: {name}, for application: {app}")


@instance.command()
@instance_address
@service_options
def admit(app: str, name: str, service: ServiceClient) -> None:
    """Let an instance come back that was deleted or decommissioned."""
    service.post("apps", app, "instances", name, "admit", body={})
    click.echo(f"{name} of {app} may come back; it does so when its sidekick connects")


@instance.command()
@instance_address
@service_options
@json_option
def pause(app: str, name: str, service: ServiceClient, as_json: bool) -> None:
    """Stop an instance from updating at its next safe point."""
    _command(service, app, name, "pause", as_json)


@instance.command()
@instance_address
@service_options
@json_option
def resume(app: str, name: str, service: ServiceClient, as_json: bool) -> None:
    """Resume a paused instance."""
    _command(service, app, name, "resume", as_json)


@instance.command()
@instance_address
@click.option("--to", "version", default="", metavar="VERSION", help="Version to go back to. Default: the one before.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@service_options
@json_option
def rollback(app: str, name: str, version: str, yes: bool, service: ServiceClient, as_json: bool) -> None:
    """Roll an instance back to its previous version.

    It goes to the version that `rollout undo` would go to, which takes the whole group back.
    A machine keeps the version that runs and the one before it. While a rollback can't start the first of these, --to
    takes the second.
    """
    confirm(f"Roll instance {name} of {app} back to {version or 'its previous version'}?", yes=yes)
    _command(service, app, name, "rollback", as_json, version=version)


@instance.command()
@instance_address
@service_options
@json_option
def retry(app: str, name: str, service: ServiceClient, as_json: bool) -> None:
    """Let an instance retry a failed update."""
    _command(service, app, name, "retry", as_json)


@instance.command()
@instance_address
@click.option(
    "--for",
    "minutes",
    type=click.FloatRange(0, 10080, min_open=True),
    default=30.0,
    show_default=True,
    metavar="MINUTES",
    help="After so many minutes the sidekick raises an alarm, and stays out.",
)
@click.option("--reboot", is_flag=True, help="The instance comes back by itself after its machine's next boot.")
@service_options
@json_option
def drain(app: str, name: str, minutes: float, reboot: bool, service: ServiceClient, as_json: bool) -> None:
    """Take an instance out of the balancer, under a turn, until `instance undrain`.

    It works during a pause, too. The app goes on running, and the group has one turn less meanwhile.
    """
    _command(service, app, name, "drain", as_json, for_s=minutes * 60.0, until_reboot=reboot)


@instance.command()
@instance_address
@service_options
@json_option
def undrain(app: str, name: str, service: ServiceClient, as_json: bool) -> None:
    """Bring a drained instance back into the balancer."""
    _command(service, app, name, "undrain", as_json)


@instance.command()
@instance_address
@click.option("--yes", is_flag=True, help="Don't ask.")
@service_options
@json_option
def decommission(app: str, name: str, yes: bool, service: ServiceClient, as_json: bool) -> None:
    """Remove a living instance for good: drain it, stop its app, and remove all that etcd has of it.

    For an instance whose machine is gone already there is `instance delete`.
    """
    confirm(f"Stop instance {name} of {app} and remove it for good?", yes=yes)
    _command(service, app, name, "decommission", as_json)


def _instances(
    service: ServiceClient,
    app_id: str | None,
    group_id: str | None,
    start: datetime | None,
    end: datetime | None,
    selector: str = "",
) -> Iterator[Json]:
    """Rows of one app, or of all when none is named."""
    apps = [one["id"] for one in service.get_all("apps")] if app_id is None else [app_id]
    for app in apps:
        for row in service.get_all("apps", app, "instances", group=group_id, selector=selector or None):
            if between(row["last_seen"], start, end):
                yield row


def _command(service: ServiceClient, app: str, name: str, verb: str, as_json: bool, **facts: object) -> None:
    body: Json = {"verb": verb, "by": operator(), **facts}
    left = service.post("apps", app, "instances", name, "command", body=body)
    if as_json:
        echo_json([left])
    else:
        click.echo(f"{verb} requested for {name}; it takes effect when its sidekick connects")


def _meaning(line: Json) -> str:
    """A failure with its reason, without the number: that has a column of its own."""
    meaning = _MEANING.get(line["event"], "")
    reason, known, _ = failure_text(line["error_code"] or 0).partition(" (error code")
    return f"{meaning}: {reason}" if known and meaning == "failed" else meaning


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
        shown(one.get("labels", {})),
        one["why"],
    )
