"""What ``outrider statechart verify`` prints: a table, or JSON, and the story of a broken promise."""

import json
import time
from collections.abc import Mapping

import click

from outrider.core.chart_model import Chart
from outrider.verify.check import PLANS, Configuration, Result, check, reordered
from outrider.verify.world import QUEUE_LIMIT

PROMISES = "P1, P2, P3, P5, nothing rolled back after its commit, from every state a way back to idle"
_COLUMNS = "{:12} {:10} {:>8} {:>9} {:>7} {:>6}  {}"


def verify_chart(chart: Chart, bounds: str, *, reorder: bool, as_json: bool) -> bool:
    """Check ``chart``, print what comes out, and tell whether all promises hold."""
    plan = reordered(PLANS[bounds]) if reorder else PLANS[bounds]
    if not as_json:
        click.echo(f"{chart.source}: {PROMISES}\n")
        click.echo(
            _COLUMNS.format("strategy", "release", "states", "edges", "steps", "s", "fleets: sidekicks/slots=states")
        )
    rows: list[Mapping[str, object]] = []
    began_s = last_s = time.monotonic()
    result = None
    for result in check(chart, plan):
        now_s = time.monotonic()
        rows.append(_row(result, now_s - last_s))
        if not as_json:
            _print(result, now_s - last_s)
        last_s = now_s
    broken = result is not None and bool(result.promise)
    took_s = round(last_s - began_s, 1)
    if as_json:
        click.echo(
            json.dumps({"chart": chart.source, "holds": not broken, "seconds": took_s, "checked": rows}, indent=2)
        )
    elif result is not None and broken:
        click.echo(f"\nBROKEN {result.promise}")
        click.echo("\n".join(result.story))
    else:
        click.echo(f"\nall hold, in {took_s} s; bounds of one run:")
        click.echo("\n".join(f"  {line}" for line in _bounds(plan)))
    return not broken


def _print(result: Result, took_s: float) -> None:
    fleets = " ".join(f"{one.sidekicks}/{one.slots}={one.states}" for one in result.fleets)
    setting = result.configuration.setting
    release = "good" if setting.badness == "none" else setting.badness
    click.echo(
        _COLUMNS.format(
            result.configuration.strategy, release, result.states, result.edges, result.steps, f"{took_s:.1f}", fleets
        )
    )


def _row(result: Result, took_s: float) -> Mapping[str, object]:
    setting = result.configuration.setting
    return {
        "strategy": result.configuration.strategy,
        "release": "good" if setting.badness == "none" else setting.badness,
        "late_writes": setting.late_limit,
        "late_writes_overtake": setting.reordered,
        "operator_words": setting.words,
        "states": result.states,
        "edges": result.edges,
        "steps": result.steps,
        "looks": result.looks,
        "seconds": round(took_s, 1),
        "fleets": [
            {"sidekicks": one.sidekicks, "slots": one.slots, "states": one.states, "edges": one.edges}
            for one in result.fleets
        ],
        "broken": result.promise or None,
        "story": list(result.story),
    }


def _bounds(plan: tuple[Configuration, ...]) -> tuple[str, ...]:
    settings = [one.setting for one in plan]
    good = max(one.words for one in settings if one.badness == "none")
    bad = max(one.words for one in settings if one.badness != "none")
    late = max(one.late_limit for one in settings)
    overtaking = sorted({one.strategy for one in plan if one.setting.reordered})
    return (
        "crashes, pauses, lapsed leases, lost answers, failures of runtime and service: any number, at any moment",
        f"writes that arrive late: {late} at a time;"
        f" after a later write to the same keys too: {', '.join(overtaking) or 'no'}",
        f"effects of one noun that wait: {QUEUE_LIMIT}",
        f"operators pause or roll back: {good} times with a good release, {bad} with a bad one",
    )
