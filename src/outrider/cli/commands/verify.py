"""What ``outrider statechart verify`` prints: a table, or JSON, and the story of a broken promise."""

import json
import os
import time
from collections.abc import Mapping, Sequence

import click

from outrider.core.chart.model import Chart
from outrider.verify.check import PLANS, Configuration, Result, check, part_of
from outrider.verify.world import Setting

PROMISES = "P1, P2, P3, P5, budgets, tasks, no verdict changed nor undone, from every state a way back to idle"
_COLUMNS = "{:12} {:10} {:12} {:>8} {:>9} {:>7} {:>6}  {}"


def verify_chart(chart: Chart, bounds: str, *, jobs: int, as_json: bool, part: tuple[int, int] = (0, 1)) -> bool:
    """Check ``chart``, print what comes out, and tell whether all promises hold.

    Args:
        jobs: Processes at the same time; 0: one for each processor that we may use.
        part: Which part of the bounds, from 0 on, and of how many.
    """
    plan = part_of(PLANS[bounds], *part)
    if not as_json:
        click.echo(f"{chart.source}: {PROMISES}\n")
        click.echo(
            _COLUMNS.format(
                "strategy", "release", "besides", "states", "edges", "steps", "s", "fleets: sidekicks/slots=states"
            )
        )
    rows: list[Mapping[str, object]] = []
    began_s = time.monotonic()
    result = None
    for result in check(chart, plan, jobs=jobs or len(os.sched_getaffinity(0))):
        rows.append(_row(result))
        if not as_json:
            _print(result)
    broken = result is not None and bool(result.promise)
    took_s = round(time.monotonic() - began_s, 1)
    if as_json:
        click.echo(
            json.dumps({"chart": chart.source, "holds": not broken, "seconds": took_s, "checked": rows}, indent=2)
        )
    elif result is not None and broken:
        click.echo(f"\nBROKEN {result.promise}")
        click.echo("\n".join(result.story))
    else:
        states = sum(int(str(row["states"])) for row in rows)
        click.echo(f"\nall hold in {states} states, in {took_s} s; what is allowed to happen in one run:")
        click.echo("\n".join(f"  {line}" for line in _bounds(plan)))
    return not broken


def _release(setting: Setting) -> str:
    return "good" if setting.badness == "none" else setting.badness


def _besides(setting: Setting) -> str:
    """What is counted of the troubles that a configuration allows."""
    said = "/".join(setting.says)
    counted = {"late": setting.late_limit, said: setting.words, "fall": setting.falls}
    words = [f"{count} {name}" for name, count in counted.items() if count]
    words += ["fresh"] if setting.fresh else []
    words += ["task, repeatable" if setting.repeatable else "task"] if setting.tasked else []
    words += ["contract"] if setting.contracts else []
    words += ["env"] if setting.environment else []
    words += ["analysis"] if setting.analysis else []
    return ", ".join(words) or "-"


def _print(result: Result) -> None:
    fleets = " ".join(
        f"{one.sidekicks}/{one.slots}{f' ({one.racks})' if one.racks else ''}={one.states}" for one in result.fleets
    )
    setting = result.configuration.setting
    click.echo(
        _COLUMNS.format(
            result.configuration.strategy,
            _release(setting),
            _besides(setting),
            result.states,
            result.edges,
            result.steps,
            f"{result.took_s:.1f}",
            fleets,
        )
    )


def _row(result: Result) -> Mapping[str, object]:
    setting = result.configuration.setting
    return {
        "strategy": result.configuration.strategy,
        "release": _release(setting),
        "fresh": setting.fresh,
        "late_writes": setting.late_limit,
        "operator_words": setting.words,
        "operator_says": list(setting.says) if setting.words else [],
        "waiting_effects": setting.waiting,
        "falls": setting.falls,
        "task": setting.tasked,
        "contract_task": setting.contracts,
        "environment": setting.environment,
        "analysis": setting.analysis,
        "states": result.states,
        "edges": result.edges,
        "steps": result.steps,
        "looks": result.looks,
        "seconds": round(result.took_s, 1),
        "fleets": [
            {
                "sidekicks": one.sidekicks,
                "slots": one.slots,
                "racks": one.racks,
                "states": one.states,
                "edges": one.edges,
            }
            for one in result.fleets
        ],
        "broken": result.promise or None,
        "story": list(result.story),
    }


def _bounds(plan: Sequence[Configuration]) -> tuple[str, ...]:
    settings = [one.setting for one in plan]
    late, words, falls = (
        max(getattr(one, name) for one in settings) for name in ("late_limit", "words", "falls")
    )  # fmt: skip
    said = sorted({word for one in settings if one.words for word in one.says})
    return (
        "always, any number, at any moment: kills and restarts, pauses, lapsed leases, lost answers, deadlines before"
        " the answer, failures of runtime, prober and service",
        f"late: etcd carries out what was given up, or whose sender was killed, later: {late} at a time",
        f"{', '.join(said) or 'nothing'}: what an operator says: {words} times in a run",
        f"fall: a workload ends by itself, or the machine goes down; other addresses after that: {falls} in a run",
        "fresh: nothing is installed yet",
        f"effects of one noun that wait: {max(one.waiting for one in settings)}; with operators"
        f" {min(one.waiting for one in settings)}",
    )
