"""``outrider rollout``: the progress of a group's rollout, and commands to pause, halt and resume it."""

import math
from collections.abc import Callable
from typing import Any

import click

from outrider.cli.commands.policy import app_option, change, group_option, show, tell_outcome
from outrider.cli.main import Group
from outrider.cli.options import json_option, operator, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient

HEADER = ("Group", "Version", "State", "Done", "UnderWay", "Deferred", "Failed", "Why")


@click.group(cls=Group, invoke_without_command=True)
@click.option("--app-id", help="Application that the group belongs to.  [required]")
@click.option("--group-id", help="ID of the group.  [required]")
@service_options
@json_option
@click.pass_context
def rollout(
    context: click.Context, app_id: str | None, group_id: str | None, service: ServiceClient, as_json: bool
) -> None:
    """Show a group's rollout, or control it with one of the commands below."""
    if context.invoked_subcommand is not None:
        return
    if app_id is None or group_id is None:
        raise click.UsageError(f"Missing option '--{'app-id' if app_id is None else 'group-id'}'.")
    found = service.get("apps", app_id, "groups", group_id, "rollout")
    if as_json:
        echo_json(found)
    else:
        show(found)


@rollout.command("list")
@click.option("--app-id", required=True, help="Application whose groups are listed.")
@service_options
@json_option
def list_(app_id: str, service: ServiceClient, as_json: bool) -> None:
    """List the rollouts of all groups of an application."""
    groups = [one["id"] for one in service.get_all("apps", app_id, "groups")]
    found = [service.get("apps", app_id, "groups", group, "rollout") for group in groups]
    if as_json:
        echo_json(found)
    else:
        echo_table(HEADER, [_row(one) for one in found])


def _row(one: Json) -> tuple[object, ...]:
    state = "finished" if one["state"] == "running" and one["finished"] else one["state"]
    counts = (len(one[what]) for what in ("opened", "waiting", "failures"))
    return (one["group"], one["version"], state, one["succeeded"], *counts, one["why"])


@rollout.group(cls=Group)
def create() -> None:
    """Set how fast a group is updated."""


@create.command()
@app_option
@group_option
@click.option(
    "--frame-size", type=click.IntRange(min=1), default=60, show_default=True, help="Length of one step in seconds."
)
@click.option(
    "--duration",
    type=click.IntRange(min=1),
    default=86400,
    show_default=True,
    help="Time for the whole group in seconds.",
)
@service_options
@json_option
def linear(app_id: str, group_id: str, frame_size: int, duration: int, service: ServiceClient, as_json: bool) -> None:
    """Spread the updates of a group evenly over a time.

    The command sets the policy's limit per interval from the present number of instances.
    """
    instances = len(service.get_all("apps", app_id, "instances", group=group_id))
    limit = spread(instances, frame_size, duration)
    saved = change(service, app_id, group_id, {"max_per_interval": limit})
    tell_outcome(saved)
    if as_json:
        echo_json(saved)
    else:
        click.echo(f"rollout set: {limit['count']} of {instances} instances every {limit['interval_s']} seconds")


def spread(instances: int, frame_s: int, duration_s: int) -> Json:
    """The limit by which all instances update within ``duration_s``, in steps of ``frame_s`` or longer.

    The first step begins at once, so there are as many steps as fit into the time. With fewer instances than steps
    one at a time is taken, and the steps become longer.
    """
    steps = max(1, math.ceil(duration_s / frame_s))
    count = max(1, math.ceil(instances / steps))
    interval_s = frame_s if instances > steps else max(frame_s, duration_s // max(1, instances))
    return {"count": count, "interval_s": interval_s}


def _steering(verb: str, done: str, *, with_why: bool) -> Callable[..., None]:
    def steer(app_id: str, group_id: str, service: ServiceClient, as_json: bool, why: str = "") -> None:
        body: Json = {"by": operator()} | ({"why": why} if why else {})
        after = service.post("apps", app_id, "groups", group_id, "rollout", verb, body=body)
        for note in after.get("notes", ()):
            click.echo(f"note: {note}", err=True)
        if as_json:
            echo_json(after)
        else:
            click.echo(done)

    decorated: Any = steer
    why_option = click.option("--why", default="", help="Reason. Deferred instances show it.")
    options: list[Any] = [json_option, service_options, group_option, app_option]
    for option in [*options[:2], why_option, *options[2:]] if with_why else options:
        decorated = option(decorated)
    steering: Callable[..., None] = decorated
    return steering


@rollout.command()
@app_option
@group_option
@click.option("--to", metavar="VERSION", help="Version to go back to. Default: the one served before the target.")
@click.option("--keep", is_flag=True, help="Don't block the abandoned version for this group.")
@click.option("--now", is_flag=True, help="Don't wait for an update window. Recorded in the audit log.")
@click.option("--why", default="", help="Reason. Shown by `status` and `release list`.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@service_options
@json_option
def undo(
    app_id: str,
    group_id: str,
    to: str | None,
    keep: bool,
    now: bool,
    why: str,
    yes: bool,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Take a group back to the version that it served before, or to an earlier one.

    The instances go back one after the other, under turns, probes and the policy.
    The group's channel and other groups stay as they are; the group follows its channel again after the next
    `channel update` or `rollout follow`.
    The abandoned version is blocked for this group. A pause or a halt of the rollout ends; a pause of the group stays.
    """
    instances = len(service.get_all("apps", app_id, "instances", group=group_id))
    if not yes:
        where = f"to {to}" if to else "to the version that it served before"
        click.confirm(f"Take group {group_id} of {app_id} ({instances} instances) back {where}?", abort=True, err=True)
    body: Json = {"to": to, "keep": keep, "now": now, "why": why, "by": operator()}
    after = service.post("apps", app_id, "groups", group_id, "rollout", "undo", body=body)
    if as_json:
        echo_json(after)
        return
    back = after["undo"]
    left = f" from {back['abandoned']}" if back["abandoned"] else ""
    click.echo(f"group {group_id} goes back to {back['version']}{left}: {instances} instances")
    if after["paused"]:
        click.echo("note: the group is paused, so nothing happens before `group unpause`", err=True)


@rollout.command()
@app_option
@group_option
@service_options
@json_option
def follow(app_id: str, group_id: str, service: ServiceClient, as_json: bool) -> None:
    """Let a group that `rollout undo` took back follow its channel again."""
    after = service.post("apps", app_id, "groups", group_id, "rollout", "follow", body={})
    if as_json:
        echo_json(after)
    else:
        click.echo(f"group {group_id} follows channel {after['channel']}")


_GO_ON = "Resume a paused or halted rollout. Its earlier failures no longer count."
_STOP = "Start no further updates. Updates in progress are finished."
for _name, _verb, _done, _help in (
    ("activate", "resume", "rollout activated", _GO_ON),
    ("resume", "resume", "rollout resumed", _GO_ON),
    ("deactivate", "pause", "rollout deactivated", _STOP),
    ("pause", "pause", "rollout paused", _STOP),
    ("halt", "halt", "rollout halted", "Stop a rollout that went wrong. Like pause, but shown as halted."),
):
    rollout.add_command(click.command(_name, help=_help)(_steering(_verb, _done, with_why=_verb != "resume")))
