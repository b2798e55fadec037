"""One round: a release comes to all apps, each sidekick is met at its place by a cut, and what follows is noted."""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec

from outrider.core.errors import DriverError
from outrider.core.sidekick.effects import EFFECT_TYPES
from outrider.demo.fleet import HOST
from outrider.demo.load import LoadFigures, LoadGenerator
from outrider.journal.journal import Record
from outrider.sidekick.workers.report import reports
from outrider.statechart import load_sidekick_chart
from outrider.story import read_lines, replay
from tests.partitions.cut_points import CutPoint
from tests.partitions.cuts import Thing, cut
from tests.partitions.fleet import SETTINGS, App, Fleet
from tests.partitions.table import Expected, expected, verdict
from tests.partitions.watching import History
from tests.support.waiting import eventually

RATE_PER_S = 40.0
REQUEST_S = 5.0
LAPSE_S = 0.6 * float(str(SETTINGS["lock"]["ttl_s"])) + 0.5
"""After so long without etcd a sidekick has noticed that its lease can't be relied on."""
SETTLE_S, STAY_S, HEAL_S = 45.0, 1.5, 90.0
LAPSES: tuple[Thing, ...] = ("etcd", "network")
"""Here a sidekick is held until its lease is lost: so it learns of that at its place, and not three states later."""
EXPLAINED: tuple[Thing, ...] = ("balancer", "network")
"""Here the balancer sends requests to a machine that it can't reach."""


@dataclass(frozen=True)
class Cut:
    """One thing that is taken away from one machine, and the apps that it is about."""

    thing: Thing
    machine: str
    apps: tuple[App, ...]


@dataclass
class Seen:
    """What was seen of one cell.

    Attributes:
        path: States from the cut to its healing; ``after``: from there to rest.
        healed: Both instances came to be where they should be.
        problems: What differs from the table or breaks a promise; empty when all is as it should be.
    """

    app: App
    thing: Thing
    state: str = ""
    runs: str = ""
    entry: str = ""
    turn: str = ""
    reports: int = 0
    path: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    healed: bool = False
    problems: list[str] = field(default_factory=list)


@dataclass
class Round:
    """What was seen of all cells of one round.

    Attributes:
        failures: Requests that failed and that no cut explains, told for people; empty when all is well.
    """

    cells: dict[tuple[Thing, str], Seen] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


class Director:
    """Runs rounds on a fleet, one version after the other."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._round = 1
        self._chart = load_sidekick_chart()

    def run(self, cuts: Sequence[Cut]) -> Round:
        """Promote the next version, cut, look, heal, look again."""
        self._round += 1
        version, fleet, result = f"{self._round}.0.0", self._fleet, Round()
        apps = [app for each in cuts for app in each.apps]
        began = {name: fleet.last(name).number for app in apps for name, _ in app.instances}
        before = {app: (fleet.version(app.cut), fleet.entry(app.cut)) for app in apps}
        for each in cuts:
            for app in each.apps:
                result.cells[each.thing, app.name] = Seen(app, each.thing)
        history = History(fleet)
        load = LoadGenerator(fleet.world.web_url, HOST, RATE_PER_S, timeout_s=REQUEST_S).start()
        try:
            self._arrange(cuts, version)
            held = {app: fleet.last(app.cut).number for app in apps}
            result.failures += _failures("before the cut", LoadFigures(), load.snapshot())
            with ExitStack() as healing:
                self._cut(cuts, version, healing)
                self._observe(result, before, version, held)
                healed = {app: fleet.last(app.cut).number for app in apps}
            self._await_end(result, version, before)
            if any(each.thing in EXPLAINED for each in cuts):
                result.failures += self._afterwards(load)
        finally:
            for app in apps:
                for name, _ in app.instances:
                    fleet.let_go(name)
            figures = load.stop()
            history.close()
        if not any(each.thing in EXPLAINED for each in cuts):
            result.failures += _failures("in this round", LoadFigures(), figures)
        for seen in result.cells.values():
            self._judge(seen, history, began, held[seen.app], healed[seen.app])
        self._resume(apps, version)
        return result

    def _arrange(self, cuts: Sequence[Cut], version: str) -> None:
        """Bring every sidekick to its place, in parallel as far as the kinds of ways allow."""
        fleet = self._fleet
        for each in cuts:
            for app in each.apps:
                cut_point = app.cut_point
                first = {"restarted": "swapping.retiring", "rolled back": "swapping.probing"}
                fleet.hold(
                    app.other, _with_turn(cut_point) if cut_point.way in ("second", "called off") else "checking"
                )
                if cut_point.way in ("second", "called off"):
                    fleet.hold(app.cut, "checking")
                elif cut_point.way != "announced":
                    fleet.hold(app.cut, first.get(cut_point.way, cut_point.state))
        for each in cuts:
            for app in each.apps:
                if app.cut_point.way != "announced":
                    self._publish(each.thing, app, version)
        for app in (app for each in cuts for app in each.apps):
            self._bring(app)

    def _publish(self, thing: Thing, app: App, version: str) -> None:
        self._fleet.publish(app, version, release=app.cut_point.release, from_elsewhere=thing == "payload server")

    def _bring(self, app: App) -> None:
        fleet, cut_point = self._fleet, app.cut_point
        match cut_point.way:
            case "announced":
                return
            case "plain":
                pass
            case "second" | "called off":
                fleet.await_held(app.cut, "checking")
                fleet.await_held(app.other, _with_turn(cut_point))
                fleet.hold(app.cut, "swapping.queueing")
                fleet.await_held(app.cut, "swapping.queueing")
                if cut_point.way == "called off":
                    fleet.pause(app, True)
                    fleet.hold(app.cut, cut_point.state)
            case "restarted":
                fleet.await_held(app.cut, "swapping.retiring")
                fleet.kill(app.cut, then_hold=cut_point.state)
            case "rolled back":
                fleet.await_held(app.cut, "swapping.probing")
                fleet.roll_back(app.cut)
                fleet.hold(app.cut, cut_point.state)
        fleet.await_held(app.cut, cut_point.state)

    def _cut(self, cuts: Sequence[Cut], version: str, healing: ExitStack) -> None:
        """Make the cuts, then let everybody go on."""
        for each in cuts:
            healing.enter_context(cut(self._fleet.world, each.thing, each.machine))
        at = time.monotonic()
        for each in cuts:
            for app in each.apps:
                if app.cut_point.way == "announced":
                    self._publish(each.thing, app, version)
                if each.thing not in LAPSES:
                    self._release(app)
        if any(each.thing in LAPSES for each in cuts):
            # nobody can be asked whether the lease is lost: the one who knows stands still
            threading.Event().wait(max(0.0, at + LAPSE_S - time.monotonic()))
        for each in cuts:
            for app in each.apps:
                self._release(app)

    def _release(self, app: App) -> None:
        for name, _ in app.instances:
            self._fleet.let_go(name)

    def _observe(
        self, result: Round, before: Mapping[App, tuple[str, str | None]], version: str, held: Mapping[App, int]
    ) -> None:
        """Wait until all is as the table says, then look whether it stays so; what differs then is a problem."""

        def look() -> list[str]:
            self._fleet.complain_of_ends()
            running = {machine: self._fleet.seen(machine) for machine in {s.app.machine for s in result.cells.values()}}
            found = []
            for seen in result.cells.values():
                cell = expected(seen.thing, seen.app.cut_point)
                try:
                    self._look(seen, running[seen.app.machine][seen.app.cut], before[seen.app], version)
                except DriverError as error:
                    seen.problems = [f"the test could not look: {error}"]
                    found += seen.problems
                    continue
                seen.path = _path(self._fleet.records(seen.app.cut, held[seen.app] - 1)) if cell.passes else ()
                seen.problems = _differences(cell, seen)
                found += seen.problems
            return found

        deadline = time.monotonic() + SETTLE_S
        while look() and time.monotonic() < deadline:
            time.sleep(0.2)
        threading.Event().wait(STAY_S)
        look()

    def _look(self, seen: Seen, running: Sequence[str], before: tuple[str, str | None], version: str) -> None:
        fleet, app = self._fleet, seen.app
        words = {(True, True): "both", (True, False): "old", (False, True): "new", (False, False): "nothing"}
        seen.state = fleet.last(app.cut).target
        seen.runs = words[before[0] in running, version in running]
        entry = fleet.entry(app.cut)
        seen.entry = "none" if entry is None else "old" if entry == before[1] else "new"
        keys = [key.key.removeprefix(fleet.world.keys.turns(app.scope)) for key in fleet.turns(app)]
        slots = [key.value for key in fleet.turns(app) if key.key.startswith(fleet.world.keys.slots(app.scope))]
        ours = any(msgspec.json.decode(value)["instance"] == app.cut for value in slots)
        seen.turn = "none" if not ours else "held" if f"queue/{app.cut}" in keys else "dirty"
        seen.reports = fleet.reports(app.cut)

    def _await_end(self, result: Round, version: str, before: Mapping[App, tuple[str, str | None]]) -> None:
        """Nothing is cut any more: wait until every app is where it should be, by nobody's help."""
        healed, fleet = time.monotonic(), self._fleet
        waiting = dict(result.cells)
        while waiting and time.monotonic() < healed + HEAL_S:
            fleet.complain_of_ends()
            running = {machine: fleet.seen(machine) for machine in ("m1", "m2", "m3")}
            for cell, seen in list(waiting.items()):
                try:
                    left = self._left(seen.app, version, before[seen.app][0], running)
                except DriverError as error:
                    left = [f"the test could not look: {error}"]
                if not left:
                    seen.healed = True
                    del waiting[cell]
                elif time.monotonic() > healed + HEAL_S - 5.0:
                    seen.problems.append(f"{HEAL_S - 5.0:g} s after healing: {', '.join(left)}")
                    del waiting[cell]
            time.sleep(0.1)

    def _left(self, app: App, version: str, old: str, running: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
        """What isn't yet as it should be in the end."""
        fleet, left = self._fleet, []
        for name, machine in app.instances:
            wanted = self._wanted(app, name, version, old)
            if not any(fleet.at_rest(name, one) for one in wanted):
                left.append(f"{name} runs {fleet.version(name)}, not {wanted}, in {fleet.last(name).target}")
            if running[machine][name] not in [[one] for one in wanted]:
                left.append(f"{name}: {running[machine][name]} run")
            if fleet.reports(name):
                left.append(f"{name}: {fleet.reports(name)} reports wait")
            url = fleet.last(name).memory["running"]["url"]
            if fleet.entry(name) != url:
                left.append(f"{name}: its entry is {fleet.entry(name)}, it serves at {url}")
        left += [f"left in the scope: {entry.key}" for entry in fleet.turns(app)]
        return left

    @staticmethod
    def _wanted(app: App, name: str, version: str, old: str) -> tuple[str, ...]:
        """What the instance may run in the end. A paused group's bystander may have failed, and then tries no more."""
        if name == app.cut:
            return (version,) if verdict(app.cut_point) == "new" else (old,)
        if app.cut_point.way == "called off":
            return version, old
        return (version,) if app.cut_point.release == "good" else (old,)

    def _afterwards(self, load: LoadGenerator) -> list[str]:
        """Once healed, and what hung in between has had its time, no request fails any more."""
        threading.Event().wait(REQUEST_S + 1.0)
        begun = load.snapshot()
        threading.Event().wait(1.0)
        return _failures("after healing", begun, load.snapshot())

    def _judge(self, seen: Seen, history: History, began: Mapping[str, int], held: int, healed: int) -> None:
        """Hold what was seen against the promises."""
        fleet, app = self._fleet, seen.app
        records = fleet.records(app.cut, began[app.cut])
        seen.path = _path(record for record in records if held <= record.number <= healed)
        seen.after = _path(record for record in records if record.number >= healed)
        cell = expected(seen.thing, app.cut_point)
        for record in records:
            if held < record.number <= healed and record.event["name"] == "balancer.drained":
                how = str(record.event["how"])
                seen.problems += [] if cell.drained in how else [f"drained: {how}"]
        if (most := history.most_at_once(app)) > 1:
            seen.problems.append(f"P1: {most} turns at once")
        for name, machine in app.instances:
            written = history.written(name)
            home = f"http://{fleet.world.machines[machine].address}:"
            seen.problems += [f"{name}: its entry was {one.url}" for one in written if one.url and home not in one.url]
            if app.cut_point.strategy == "start-first" and any(one.url is None for one in written):
                seen.problems.append(f"P3: the entry of {name} vanished")
            replay(read_lines(fleet.state_dir(name)), self._chart)
            seen.problems += self._unreported(app, name, fleet.records(name, began[name]))
        if app.cut_point.release != "good":
            others = fleet.records(app.other, began[app.other])
            if any(record.target == "swapping.starting" for record in others):
                seen.problems.append("P5: the bad release reached another instance")

    def _unreported(self, app: App, name: str, records: Sequence[Record]) -> list[str]:
        """P9: the service has booked every report of this round, in order; a repeat is booked once."""
        wanted = [
            report.request_id
            for record in records
            for effect in record.effects
            if effect["name"].startswith("report.")
            for report in reports(_effect(effect), record.at)
        ]
        wanted = list(dict.fromkeys(wanted))[-30:]  # the service keeps the last fifty
        row = self._fleet.row(app, name)
        booked = [one.request_id for one in row.history if one.request_id in set(wanted)] if row is not None else []
        return [] if booked == wanted else [f"P9: {name} reported {wanted}, the service has {booked}"]

    def _resume(self, apps: Iterable[App], version: str) -> None:
        """An operator resumes what an operator paused, so that the next round finds all at rest."""
        paused = [app for app in apps if app.cut_point.way == "called off"]
        for app in paused:
            self._fleet.pause(app, False)
        resumed = [name for app in paused for name, _ in app.instances]
        eventually(lambda: all(self._fleet.at_rest(name, version) for name in resumed), HEAL_S, every_s=0.2)


def _with_turn(cut_point: CutPoint) -> str:
    """The first state with a turn."""
    return "swapping.starting" if cut_point.strategy == "start-first" else "swapping.leaving"


def _differences(cell: Expected, seen: Seen) -> list[str]:
    """What of ``seen`` isn't as ``cell`` says."""
    outcome = verdict(seen.app.cut_point)
    stands = cell.stands or ("idle.waiting", "idle.deferred")
    runs, entry = cell.runs or (outcome,), cell.entry or (() if cell.stands else (outcome,))
    if seen.app.cut_point.strategy == "stop-first":  # one port: old and new have the same address
        entry = tuple("old" if one == "new" else one for one in entry)
    found = []
    if not any(seen.state.startswith(state) for state in stands):
        found.append(f"it is in {seen.state}, not in {' or '.join(stands)}")
    if seen.runs not in runs:
        found.append(f"{seen.runs} runs, not {' or '.join(runs)}")
    if entry and seen.entry not in entry:
        found.append(f"the balancer's entry is {seen.entry}, not {' or '.join(entry)}")
    if cell.turn and seen.turn not in cell.turn:
        found.append(f"the turn is {seen.turn}, not {' or '.join(cell.turn)}")
    found += [f"it has not passed {state}" for state in cell.passes if state not in seen.path]
    if cell.reports is not None and bool(seen.reports) != cell.reports:
        found.append(f"{seen.reports} reports wait")
    return found


def _path(records: Iterable[Record]) -> tuple[str, ...]:
    """The states, without repeats in a row."""
    states: list[str] = []
    for record in records:
        if not states or states[-1] != record.target:
            states.append(record.target)
    return tuple(states)


def _failures(when: str, before: LoadFigures, now: LoadFigures) -> list[str]:
    failed = now.failed - before.failed
    examples = "; ".join(str(example) for example in now.examples[-3:])
    return [f"{failed} requests failed {when}: {dict(now.failures)}; {examples}"] if failed else []


def _effect(effect: Mapping[str, Any]) -> Any:
    fields = {name: value for name, value in effect.items() if name not in ("name", "request")}
    return msgspec.convert(fields, type=EFFECT_TYPES[effect["name"]])
