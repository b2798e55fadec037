"""``outrider rollout preview`` and ``rollout replay``: a rollout in simulated time, before it happens or once more."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from outrider.cli.commands.policy import app_option, group_option, seconds
from outrider.cli.group_facts import GroupFacts, read_facts, supposed
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import ServiceClient, ours_only
from outrider.cli.times import start_option
from outrider.core import versions
from outrider.core.errors import ConfigError
from outrider.core.sidekick.memory import Strategy
from outrider.preview.recorded import Recorded, read_recorded, replayed
from outrider.preview.run import Group, Trouble, Turned
from outrider.preview.summary import Foreseen, as_json, duration_words, foresee, serving_at
from outrider.preview.world import Failing

SCENARIOS = ("IF", "P50", "P95", "LOWEST", "STARTED", "UPDATED", "ENDS WITH")
ORDER = ("INSTANCE", "BEGINS", "ENDS", "SERVING", "RESULT")
SHOWN = 60
"""Turns that the table has; JSON has all."""

policy_option = click.option(
    "--policy", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with another policy than the group's: settings as in `outrider apply`, and `slots`.",
)  # fmt: skip
strategy_option = click.option(
    "--strategy",
    type=click.Choice(["start-first", "stop-first"]),
    default="start-first",
    show_default=True,
    help="How the sidekicks swap (`instance.strategy`); the service does not know it.",
)


@click.command()
@app_option
@group_option
@click.argument("version", required=False)
@policy_option
@click.option("--slots", type=click.IntRange(1), help="Turns at once. Default: the group's, or what --policy says.")
@strategy_option
@click.option("--fail", "fails", type=click.IntRange(1), multiple=True, help="Also if the n-th to swap fails.")
@click.option(
    "--fail-in",
    type=click.Choice(["probing", "soaking"]),
    default="probing",
    show_default=True,
    help="Where it fails: it never proves healthy, or it goes bad while it is watched.",
)
@click.option(
    "--etcd-away", "away", metavar="TIME", is_flag=False, flag_value="1m", help="Also if etcd is away: 30s, 1m, 5m."
)
@start_option("When it begins; default: now")
@click.option("--runs", type=click.IntRange(1, 1000), default=None, help="How often. Default: 5 to 40, by its size.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same runs.")
@service_options
@json_option
def preview(
    app_id: str,
    group_id: str,
    version: str | None,
    file: Path | None,
    slots: int | None,
    strategy: Strategy,
    fails: tuple[int, ...],
    fail_in: Failing,
    away: str | None,
    start: datetime | None,
    runs: int | None,
    seed: int,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Foresee the rollout of VERSION to a group: how long, in which order, how many serve. Nothing is changed.

    The statechart, the policy, waves and budgets are the real ones, in simulated time; what takes time takes as long
    as in the group's last updates. VERSION is the group's target unless it is given.
    """
    with ours_only("`rollout preview`"):
        facts = supposed(read_facts(service, app_id, group_id), file, slots)
    group = group_of(facts, _version(facts, version), strategy)
    began = start or datetime.now(UTC)
    count = runs or 0
    found = foresee(group, facts.durations, Trouble(), began, runs=count, seed=seed)
    troubles: dict[str, Foreseen] = {}
    for number in fails:
        if number > len(group.instances):
            raise ConfigError(f"--fail {number}: the group has {len(group.instances)} instances")
        trouble = Trouble(fails_at=number, how=fail_in)
        troubles[f"number {number} fails"] = foresee(group, facts.durations, trouble, began, runs=count, seed=seed)
    if away is not None:
        trouble = Trouble(away_from_s=found.p50_s / 2, away_s=float(seconds(away)))
        troubles[f"etcd is away for {away}"] = foresee(
            group, facts.durations, trouble, began, runs=count, seed=seed
        )  # fmt: skip
    if as_json:
        echo_json(dict(as_json_of(facts, group, found, troubles)))
        return
    _print(facts, group, found, troubles)


def group_of(facts: GroupFacts, version: str, strategy: Strategy) -> Group:
    """The group as the preview takes it."""
    return Group(
        version=version, instances=facts.instances, policy=facts.policy, slots=facts.slots, strategy=strategy
    )  # fmt: skip


def _version(facts: GroupFacts, given: str | None) -> str:
    """Where it goes.

    Raises:
        ConfigError: it is no version, or everybody runs it already.
    """
    version = given or facts.target
    if version is None:
        raise ConfigError(f"group {facts.group} has no target yet: name the VERSION")
    versions.parse(version)
    if all(one.version == version for one in facts.instances):
        known = f"all {len(facts.instances)} instances of group {facts.group} run {version} already"
        raise ConfigError(f"{known}: name the VERSION to come")
    return version


def as_json_of(
    facts: GroupFacts, group: Group, found: Foreseen, troubles: Mapping[str, Foreseen]
) -> Mapping[str, object]:
    """The answer for programs."""
    head = {
        "app": facts.app, "group": facts.group, "version": group.version, "slots": group.slots,
        "strategy": group.strategy,
    }  # fmt: skip
    return head | dict(as_json(found, troubles, len(facts.instances)))


def _print(facts: GroupFacts, group: Group, found: Foreseen, troubles: Mapping[str, Foreseen]) -> None:
    total = len(facts.instances)
    turns = "1 turn" if group.slots == 1 else f"{group.slots} turns"
    click.echo(f"{facts.app}/{facts.group} to {group.version}: {total} instances, {turns} at once, {found.runs} runs")
    takes = f"takes {duration_words(found.p50_s)} (p50), {duration_words(found.p95_s)} (p95)"
    click.echo(f"{takes}; begun {found.began:%Y-%m-%d %H:%M:%S} UTC it ends {found.ends:%Y-%m-%d %H:%M:%S} UTC")
    if found.window:
        click.echo(found.window)
    for name, why in found.middle.outside.items():
        click.echo(f"{name} is not updated: {why}")
    if facts.paused:
        click.echo(f"note: group {facts.group} is paused; this is the time from when it goes on", err=True)
    if facts.running == "halted":
        click.echo(f"note: the present rollout of group {facts.group} is halted", err=True)
    click.echo()
    scenarios = {"nothing goes wrong": found, **troubles}
    echo_table(SCENARIOS, [_scenario(name, one, total) for name, one in scenarios.items()])
    click.echo()
    order = found.order
    echo_table(ORDER, [_turn(one, found) for one in order[:SHOWN]])
    if len(order) > SHOWN:
        click.echo(f"and {len(order) - SHOWN} more; --json has all of them")
    click.echo()
    for line in dict.fromkeys(line for one in scenarios.values() for line in one.assumed):
        click.echo(f"assumed: {line}")


def _scenario(name: str, one: Foreseen, total: int) -> tuple[object, ...]:
    return (
        name, duration_words(one.p50_s), duration_words(one.p95_s), f"{one.lowest} of {total}", one.reached,
        one.updated, one.middle.stopped or "all updated",
    )  # fmt: skip


def _turn(one: Turned, found: Foreseen) -> tuple[object, ...]:
    ended = "" if one.ended_s is None else duration_words(one.ended_s)
    serving = serving_at(found.capacity, one.began_s, one.ended_s)
    result = "updated" if one.succeeded else "rolled back" if one.ended_s is not None else "has not ended"
    return one.instance, duration_words(one.began_s), ended, serving, result


@click.command()
@app_option
@group_option
@click.argument("version", metavar="[ROLLOUT]", required=False)
@policy_option
@click.option("--slots", type=click.IntRange(1), help="Turns at once. Default: the group's, or what --policy says.")
@strategy_option
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same runs.")
@service_options
@json_option
def replay(
    app_id: str,
    group_id: str,
    version: str | None,
    file: Path | None,
    slots: int | None,
    strategy: Strategy,
    seed: int,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Let a recorded rollout happen once more under another policy. Nothing is changed.

    ROLLOUT is the version that was rolled out; default: the last one on record. What is known of it comes from the
    activity events, which are kept for 30 days.
    """
    if file is None and slots is None:
        raise click.UsageError("Missing option '--policy' or '--slots': under what should it happen once more?")
    with ours_only("`rollout replay`"):
        facts = supposed(read_facts(service, app_id, group_id), file, slots)
        events = service.get_all("activity", app=app_id, group=group_id)
        # a block names no group
        blocks = service.get_all("activity", app=app_id, kind="release-blocked")
    recorded = read_recorded([*events, *blocks], group_id, version, tuple(one.name for one in facts.instances))
    group = replace(
        group_of(facts, recorded.version, strategy),
        instances=tuple(replace(one, version=recorded.before) for one in facts.instances),
    )
    found = replayed(group, facts.durations, recorded, seed=seed)
    if as_json:
        echo_json({"recorded": recorded.facts(), **as_json_of(facts, group, found, {})})
        return
    _print_replay(facts, recorded, found)


def _print_replay(facts: GroupFacts, recorded: Recorded, found: Foreseen) -> None:
    total = len(facts.instances)
    click.echo(recorded.words)
    reached, then = len(found.middle.reached), len(recorded.reached)
    if reached != then:
        more = "more" if reached > then else "fewer"
        click.echo(
            f"under this policy {recorded.version} would have reached {_machines(reached)} instead of {then}, {more}"
        )
    else:
        click.echo(f"under this policy {recorded.version} would have reached {_machines(reached)}, too")
    click.echo()
    echo_table(SCENARIOS, [_scenario("this policy", found, total)])
    click.echo()
    echo_table(ORDER, [_turn(one, found) for one in found.order[:SHOWN]])
    click.echo()
    for line in (*recorded.assumed, *found.assumed):
        click.echo(f"assumed: {line}")


def _machines(count: int) -> str:
    return "1 machine" if count == 1 else f"{count} machines"
