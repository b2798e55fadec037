"""``outrider rollout``: the progress of a group's rollout, and commands to pause, halt and resume it."""

import contextlib
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from outrider.cli import addressing
from outrider.cli.commands.policy import app_option, change, group_option, seconds, tell_outcome
from outrider.cli.commands.rollout_preview import preview, replay
from outrider.cli.main import Group
from outrider.cli.options import json_option, operator, service_options
from outrider.cli.output import confirm, echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient, ours_only
from outrider.cli.rollout_bar import rollout_bar
from outrider.core.errors import NotFound, Unknown

STOPPED, TIMED_OUT = 2, 4
"""With which `rollout wait` leaves, besides 0 and 1."""
ASK_MIN_S, ASK_MAX_S = 0.5, 5.0
FACTS = ("Setting", "Value")
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
    app_id, group_id = app_id or addressing.from_context("app"), group_id or addressing.from_context("group")
    if app_id is None or group_id is None:
        raise click.UsageError(f"Missing option '--{'app-id' if app_id is None else 'group-id'}'.")
    found = service.get("apps", app_id, "groups", group_id, "rollout")
    if as_json:
        echo_json(found)
    else:
        show(found)


@rollout.command("show")
@app_option
@group_option
@service_options
@json_option
def show_(app_id: str, group_id: str, service: ServiceClient, as_json: bool) -> None:
    """Show how far a group's rollout is."""
    found = service.get("apps", app_id, "groups", group_id, "rollout")
    if as_json:
        echo_json(found)
    else:
        show(found)


@rollout.command()
@app_option
@group_option
@click.option("--timeout", metavar="TIME", help="Give up after so long: 90s, 5m, 1h.")
@service_options
@json_option
def wait(app_id: str, group_id: str, timeout: str | None, service: ServiceClient, as_json: bool) -> None:
    """Wait until a group's rollout has finished; for scripts.

    Leaves with 0 when it has finished, with 2 when it was halted, or its version is blocked, and with 4 after
    --timeout.
    """
    sys.exit(follow_until_end(service, app_id, group_id, timeout, as_json=as_json, tell=False))


@rollout.command("watch")
@app_option
@group_option
@click.option("--timeout", metavar="TIME", help="Give up after so long: 90s, 5m, 1h.")
@service_options
@json_option
def watch_(app_id: str, group_id: str, timeout: str | None, service: ServiceClient, as_json: bool) -> None:
    """Print a line whenever a group's rollout gets on, until it has ended; leaves as `rollout wait` does.

    On a terminal a bar shows how many of the group's instances are updated.
    """
    instances = 0
    if not as_json:
        with contextlib.suppress(Unknown):  # a service that is away is asked again, and there is no bar
            instances = len(service.get_all("apps", app_id, "instances", group=group_id))
    with rollout_bar(f"group {group_id}", instances) as show_bar:
        status = follow_until_end(
            service,
            app_id,
            group_id,
            timeout,
            as_json=as_json,
            tell=True,
            seen=lambda found: show_bar(found["succeeded"]),
        )
    sys.exit(status)


@rollout.command("list")
@addressing.app_option("Application whose groups are listed.")
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


def show(found: Json) -> None:
    """Print a rollout, a row for each fact; lists in words."""
    approval, override = found.get("approval"), found.get("override")
    lists = {
        "opened": [f"{one['instance']}: {one['version']} since {one['at']}" for one in found.get("opened", ())],
        "failures": [f"{one['instance']}: {one['version']}: {one['error']}" for one in found.get("failures", ())],
        "waiting": found.get("waiting", []),
        "cannot_take": found.get("cannot_take", []),
        "waits_for_approval": ["yes" if found.get("waits_for_approval") else "no"],
        "wave": [found["wave_words"]] if found.get("wave") else [],
        "approval": [] if approval is None else [_words(approval["verdict"] or "asked for", approval)],
        "override": [] if override is None else [f"until {override['until']}{_words('', override)}"],
    }
    rows = [(name, "; ".join(lists[name]) if name in lists else value) for name, value in found.items()]
    hidden = {"notes", "wave_words"} | (set() if found.get("wave") else {"wave"})
    echo_table(FACTS, [(name, value) for name, value in rows if name not in hidden])


def _words(verb: str, said: Json) -> str:
    """``approved by ann: seen on staging``."""
    return f"{verb}{f' by {one}' if (one := said['by']) else ''}{f': {one}' if (one := said['why']) else ''}"


def follow_until_end(
    service: ServiceClient, app_id: str, group_id: str, timeout: str | None, *, as_json: bool, tell: bool,
    seen: Callable[[Json], object] = lambda found: None,
) -> int:  # fmt: skip
    """Ask for the rollout until it has ended; its status for the shell. A service that is away is asked again.

    Args:
        seen: Gets each answer.
    """
    deadline = time.monotonic() + seconds(timeout) if timeout else math.inf
    told, pause_s = "", ASK_MIN_S
    while True:
        try:
            found = service.get("apps", app_id, "groups", group_id, "rollout")
            blocked = blocked_because(service, app_id, group_id, found["version"])
        except Unknown as error:
            text, ending = f"group {group_id}: {error}; asking again", None
        else:
            if found["version"] is None:
                raise NotFound(f"group {group_id!r} of {app_id} has no release to wait for: `channel update` makes one")
            seen(found)
            text, ending = describe(found, blocked), status_of(found, blocked)
        if ending is not None:
            echo_json(found) if as_json else click.echo(text)
            return ending
        if text != told:
            told, pause_s = text, ASK_MIN_S
            if tell and not as_json:
                click.echo(text)
        if time.monotonic() + pause_s > deadline:
            after = f"{timeout} s" if (timeout or "").isdigit() else timeout
            click.echo(f"Error: not finished after {after}: {text}", err=True)
            return TIMED_OUT
        time.sleep(pause_s)
        pause_s = min(ASK_MAX_S, pause_s * 1.5)


def blocked_because(service: ServiceClient, app_id: str, group_id: str, version: str | None) -> str:
    """Why the version is blocked for the group; empty when it isn't."""
    blocks = service.get_all("apps", app_id, "blocks")
    own = f"group {group_id}"  # how a block of one group alone is shown
    mine = (
        one
        for one in blocks
        if one["label"] == version and (one["instance"] == own or not one["instance"].startswith("group "))
    )
    return next((f"{one['instance']}: {one['why']}" for one in mine), "")


def describe(found: Json, blocked: str = "") -> str:
    """A rollout in a line."""
    state = "finished" if found["state"] == "running" and found["finished"] else found["state"]
    state = "blocked" if blocked else state
    counts = (
        (len(found["opened"]), "under way"),
        (len(found["waiting"]), "deferred"),
        (len(found["failures"]), "failed"),
    )
    more = "".join(f", {number} {what}" for number, what in counts if number)
    because = blocked or found["why"] or (found.get("wave_words", "") if state == "running" else "")
    why = f": {because}" if because else ""
    return f"group {found['group']}: {found['version']} {state}, {found['succeeded']} updated{more}{why}"


def status_of(found: Json, blocked: str = "") -> int | None:
    """0: it has finished. 2: it won't by itself. None: it goes on, or a person has paused it, who will resume it."""
    if found["state"] == "running" and found["finished"]:
        return 0
    return STOPPED if found["state"] == "halted" or blocked else None


def _judgement(version: str, wave: int, why: str) -> Json:
    body: Json = {"version": version, "why": why, "by": operator()}
    return body | {"wave": wave} if wave else body


def _judging(verb: str, done: str) -> Callable[..., None]:
    @app_option
    @group_option
    @click.option("--version", default="", help="What you have looked at; refused if the target is another version.")
    @click.option("--why", default="", help="Reason. Shown by `status`, and kept in the audit log.")
    @click.option("--yes", is_flag=True, help="Don't ask.")
    @service_options
    @json_option
    def judge(
        app_id: str, group_id: str, version: str, why: str, yes: bool, service: ServiceClient, as_json: bool
    ) -> None:
        place = ("apps", app_id, "groups", group_id, "rollout")
        found = service.get(*place)
        wave = found.get("wave") or {}
        number = wave["number"] if verb == "approve" and wave.get("waits_for_approval") else 0
        if not version and found["version"] is not None:
            version = found["version"]
            waiting = f"{len(found['waiting'])} instances wait for it"
            waiting += f". {found['wave_words']}" if number else ""
            confirm(f"{verb.capitalize()} {version} for group {group_id}? {waiting}", yes=yes)
        after = service.post(*place, verb, body=_judgement(version, number, why))
        for note in after.get("notes", ()):
            click.echo(f"note: {note}", err=True)
        if as_json:
            echo_json(after)
        else:
            click.echo(f"{after['version']} {done}")

    return judge


@rollout.command()
@app_option
@group_option
@click.option("--why", default="", help="Reason; required. Kept in the audit log.")
@click.option("--for", "for_", metavar="TIME", default="1h", show_default=True, help="How long: 90s, 30m, 2h.")
@click.option("--end", is_flag=True, help="End it now.")
@service_options
@json_option
def override(app_id: str, group_id: str, why: str, for_: str, end: bool, service: ServiceClient, as_json: bool) -> None:
    """Let a rollout go on in an emergency, outside its update windows and in a freeze.

    It ends by itself after --for, and with the next release. All other limits and a needed approval stay.
    """
    if not why.strip() and not end:
        raise click.UsageError("Missing option '--why': an emergency needs a reason.")
    body: Json = {"why": why, "for_s": 0 if end else seconds(for_), "by": operator()}
    after = service.post("apps", app_id, "groups", group_id, "rollout", "override", body=body)
    for note in after.get("notes", ()):
        click.echo(f"note: {note}", err=True)
    if as_json:
        echo_json(after)
    elif end:
        click.echo(f"group {group_id} heeds its windows and freezes again")
    else:
        click.echo(f"group {group_id} goes on until {after['override']['until']}, whatever windows and freezes say")


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
    """Take a group back to the release that it served before, or to an earlier version.

    The instances go back one after the other, under turns, probes and the policy.
    An earlier environment of the same version stays with the group, also for the versions that come.
    The group's channel and other groups stay as they are; the group follows its channel again after the next
    `channel update` or `rollout follow`.
    The abandoned version is blocked for this group. A pause or a halt of the rollout ends; a pause of the group stays.
    """
    with ours_only("`rollout undo`"):
        instances = len(service.get_all("apps", app_id, "instances", group=group_id))
    where = f"to {to}" if to else "to the release that it served before"
    confirm(f"Take group {group_id} of {app_id} ({instances} instances) back {where}?", yes=yes)
    body: Json = {"to": to, "keep": keep, "now": now, "why": why, "by": operator()}
    after = service.post("apps", app_id, "groups", group_id, "rollout", "undo", body=body)
    if as_json:
        echo_json(after)
        return
    back = after["undo"]
    left = f" from {back['abandoned']}" if back is not None and back["abandoned"] else ""
    target = service.get("apps", app_id, "groups", group_id, "target")["label"]
    click.echo(f"group {group_id} goes back to {target}{left}: {instances} instances")
    if after["paused"]:
        click.echo("note: the group is paused, so nothing happens before `group unpause`", err=True)


@rollout.command()
@app_option
@group_option
@click.option("--why", default="", help="Reason. Shown by `status` and in the audit log.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@service_options
@json_option
def restart(app_id: str, group_id: str, why: str, yes: bool, service: ServiceClient, as_json: bool) -> None:
    """Restart all instances of a group, one after the other, with what they run.

    It is a release with a new generation: under turns, probes and the policy, blocked if it fails, and undone by
    `rollout undo`.
    Files that the group's environment refers to are read anew.
    """
    instances = len(service.get_all("apps", app_id, "instances", group=group_id))
    confirm(f"Restart group {group_id} of {app_id} ({instances} instances)?", yes=yes)
    with ours_only("a rolling restart"):
        after = service.post(
            "apps", app_id, "groups", group_id, "rollout", "restart", body={"why": why, "by": operator()}
        )
    for note in after.get("notes", ()):
        click.echo(f"note: {note}", err=True)
    if as_json:
        echo_json(after)
        return
    target = service.get("apps", app_id, "groups", group_id, "target")["label"]
    click.echo(f"group {group_id} restarts as {target}: {instances} instances")


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
for _name, _done, _help in (
    ("approve", "is approved", "Approve a release that waits for a person."),
    ("reject", "is rejected", "Reject a release: no further update to it starts, until it is approved after all."),
):
    rollout.add_command(click.command(_name, help=_help)(_judging(_name, _done)))


rollout.add_command(preview)
rollout.add_command(replay)
