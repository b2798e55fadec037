"""``outrider policy``: what a group's policy guarantees."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from outrider.cli.commands.policy import app_option, group_option
from outrider.cli.commands.rollout_preview import policy_option
from outrider.cli.group_facts import GroupFacts, read_facts, supposed
from outrider.cli.main import Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import ServiceClient, ours_only
from outrider.config.sections import DrainSettings, SoakSettings
from outrider.core.errors import ConfigError
from outrider.core.rollout.policy_lint import Surroundings, lint
from outrider.core.sidekick.memory import Strategy
from outrider.statechart import find_sidekick_chart
from outrider.verify.check import STRATEGIES
from outrider.verify.outside import shipped_views
from outrider.verify.phases import Class
from outrider.verify.policy_check import LEFT_OUT, Row, check_policy, required_by

HEADER = ("WITH", "STRATEGY", "SERVE AT LEAST", "A BAD RELEASE REACHES", "STATES")


@click.group("policy", cls=Group)
def policy() -> None:
    """Prove what a group's policy guarantees; `outrider group policy` shows and changes it."""


@policy.command()
@app_option
@group_option
@policy_option
@click.option("--slots", type=click.IntRange(1), help="Turns at once. Default: the group's, or what --policy says.")
@click.option(
    "--at-least", metavar="N|N%", help="So many instances must serve. Default: what the policy itself says must serve."
)
@click.option(
    "--strategy",
    type=click.Choice(["start-first", "stop-first"]),
    help="How the sidekicks swap. Default: both are looked at, for the service does not know it.",
)
@service_options
@json_option
def verify(
    app_id: str,
    group_id: str,
    file: Path | None,
    slots: int | None,
    at_least: str | None,
    strategy: Strategy | None,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Prove how many instances of a group always serve during rollouts, or tell how fewer may. Nothing is changed.

    Any number of crashes, expired leases and partitions may happen at any moment, and up to two of: a bad release, a
    lost machine, a sidekick that stays away for longer than its grant lives. Leaves with 1 when fewer serve than must.
    """
    with ours_only("`policy verify`"):
        facts = supposed(read_facts(service, app_id, group_id), file, slots)
    groups = classes_of(facts)
    least = _number(at_least, len(facts.instances))
    required = required_by(facts.policy, [one for one, _ in groups], least)
    began_s = time.monotonic()
    views = shipped_views(find_sidekick_chart().read_bytes())
    strategies = STRATEGIES if strategy is None else (strategy,)
    try:
        rows = list(check_policy(views, groups, facts.policy, facts.slots, strategies, required))
    except ValueError as error:
        raise ConfigError(
            f"group {facts.group}: {error}: fewer slots, or fewer kinds of labels, can be proved"
        ) from None
    took_s = time.monotonic() - began_s
    around = Surroundings(
        instances=len(facts.instances), slots=facts.slots, drain_s=DrainSettings().wait_s,
        soak_s=SoakSettings().duration_s, labels=tuple(one.labels for one in facts.instances),
    )  # fmt: skip
    warnings = lint(facts.policy, around)
    if as_json:
        echo_json(
            {
                "app": facts.app, "group": facts.group, "instances": len(facts.instances), "slots": facts.slots,
                "required": required.serving, "holds": not rows[-1].broken, "broken": rows[-1].broken,
                "story": list(rows[-1].story), "rows": [_row_json(one) for one in rows], "warnings": list(warnings),
                "left_out": list(LEFT_OUT), "seconds": round(took_s, 2),
            }
        )  # fmt: skip
    else:
        _print(facts, rows, warnings, took_s)
    if rows[-1].broken:
        sys.exit(1)


def classes_of(facts: GroupFacts) -> list[tuple[Class, list[str]]]:
    """The instances by those of their labels that the policy asks for, each class with the names of its instances."""
    names = {one.label for one in facts.policy.budgets}
    selectors = " ".join([facts.policy.canary_selector, *(one.selector for one in facts.policy.waves)])
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for one in facts.instances:
        kept = {name: value for name, value in one.labels.items() if name in names or name in selectors}
        found.setdefault(tuple(sorted(kept.items())), []).append(one.name)
    return [(Class(labels=dict(labels), size=len(known)), sorted(known)) for labels, known in sorted(found.items())]


def _number(text: str | None, total: int) -> int:
    """``7`` or ``70%`` of the instances, rounded up; 0 when it isn't given.

    Raises:
        ConfigError: it is neither, or more than there are.
    """
    if text is None:
        return 0
    digits = text.strip().removesuffix("%")
    if not (digits.isascii() and digits.isdigit()):
        raise ConfigError(f"--at-least {text!r}: write a number of instances, or a percentage such as 70%")
    number = -(-total * int(digits) // 100) if text.strip().endswith("%") else int(digits)
    if number > total:
        raise ConfigError(f"--at-least {text}: the group has {total} instances")
    return number


def _print(facts: GroupFacts, rows: Sequence[Row], warnings: Sequence[str], took_s: float) -> None:
    total = len(facts.instances)
    last = rows[-1]
    turns = "1 turn" if facts.slots == 1 else f"{facts.slots} turns"
    click.echo(f"{facts.app}/{facts.group}: {total} instances, {turns} at once; {took_s:.1f} s\n")
    if last.broken:
        click.echo(f"BROKEN {last.broken}; {last.strategy}, with {last.case.words}:")
        for line in last.story:
            click.echo(line)
        click.echo()
    proved = [one for one in rows if not one.broken]
    if not last.broken:
        without = min(one.lowest for one in proved if "lost" not in one.case.words)
        lost = min(one.lowest for one in proved)
        click.echo(f"never fewer than {without} of {total} serve; with lost machines never fewer than {lost}\n")
    echo_table(HEADER, [_row(one, total) for one in proved])
    click.echo()
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    for line in LEFT_OUT:
        click.echo(f"left out: {line}")


def _row(one: Row, total: int) -> tuple[object, ...]:
    worst: dict[str, int] = {}
    for (label, _), count in one.lowest_of.items():
        worst[label] = min(count, worst.get(label, count))
    of = "".join(f", {count} of any {label}" for label, count in worst.items())
    reached = one.reached if one.case.releases != ("none",) else ""
    return one.case.words, one.strategy, f"{one.lowest} of {total}{of}", reached, one.states


def _row_json(one: Row) -> dict[str, object]:
    return {
        "with": one.case.words,
        "strategy": one.strategy,
        "lowest": one.lowest,
        "lowest_of": {f"{label}={value}": count for (label, value), count in one.lowest_of.items()},
        "reached": one.reached,
        "states": one.states,
        "broken": one.broken,
    }
