"""``outrider rollout``: how the update of a group goes on, and an operator's hand on it."""

import math
from collections.abc import Callable
from typing import Any

import click

from outrider.cli.access import service_options
from outrider.cli.client import Json, ServiceClient
from outrider.cli.common import Group, echo_json, json_option
from outrider.cli.policy import app_option, change, group_option, show


@click.group(cls=Group, invoke_without_command=True)
@click.option("--app-id", help="Application that the group belongs to.  [required]")
@click.option("--group-id", help="ID of the group.  [required]")
@service_options
@json_option
@click.pass_context
def rollout(
    context: click.Context, app_id: str | None, group_id: str | None, service: ServiceClient, as_json: bool
) -> None:
    """Show a group's roll-out, or steer it with one of the commands below."""
    if context.invoked_subcommand is not None:
        return
    if app_id is None or group_id is None:
        raise click.UsageError(f"Missing option '--{'app-id' if app_id is None else 'group-id'}'.")
    found = service.get("apps", app_id, "groups", group_id, "rollout")
    if as_json:
        echo_json(found)
    else:
        show(found)


@rollout.group(cls=Group)
def create() -> None:
    """Set how fast a group is updated."""


@create.command()
@app_option
@group_option
@click.option("--frame-size", type=click.IntRange(min=1), default=60, show_default=True, help="Seconds of one step.")
@click.option(
    "--duration", type=click.IntRange(min=1), default=86400, show_default=True, help="Seconds for the whole group."
)
@service_options
@json_option
def linear(app_id: str, group_id: str, frame_size: int, duration: int, service: ServiceClient, as_json: bool) -> None:
    """Spread the updates of a group's instances evenly over a time.

    Sets the policy's limit per interval by the number of instances that the group has now.
    """
    instances = len(service.get_all("apps", app_id, "instances", group=group_id))
    limit = spread(instances, frame_size, duration)
    saved = change(service, app_id, group_id, {"max_per_interval": limit})
    if as_json:
        echo_json(saved)
    else:
        click.echo(f"rollout set: {limit['count']} of {instances} instances every {limit['interval_s']} seconds")


def spread(instances: int, frame_s: int, duration_s: int) -> Json:
    """The limit by which all instances have had their turn within ``duration_s``, in steps of ``frame_s`` or longer.

    The first step begins at once, so there are as many steps as fit into the time. With fewer instances than steps
    one at a time is taken, and the steps become longer.
    """
    steps = max(1, math.ceil(duration_s / frame_s))
    count = max(1, math.ceil(instances / steps))
    interval_s = frame_s if instances > steps else max(frame_s, duration_s // max(1, instances))
    return {"count": count, "interval_s": interval_s}


def _steering(verb: str, done: str) -> Callable[..., None]:
    def steer(app_id: str, group_id: str, service: ServiceClient, as_json: bool) -> None:
        after = service.post("apps", app_id, "groups", group_id, "rollout", verb, body={})
        if as_json:
            echo_json(after)
        else:
            click.echo(done)

    decorated: Any = steer
    for option in (json_option, service_options, group_option, app_option):
        decorated = option(decorated)
    steering: Callable[..., None] = decorated
    return steering


for _name, _verb, _done, _help in (
    ("activate", "resume", "rollout activated", "Let a roll-out that was paused or halted go on."),
    ("deactivate", "pause", "rollout deactivated", "Start no further updates; those under way are finished."),
):
    rollout.add_command(click.command(_name, help=_help)(_steering(_verb, _done)))
