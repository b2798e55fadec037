"""One simulated fleet lives through a thousand rollouts: ``python -m tests.sim.long_run --seed 7``.

Good and bad releases, one after the other, with every kind of trouble at random moments. ``promises.py`` judges every
change of the world; after each rollout everybody must be at rest where it should be, and nothing may be left behind.
"""

import argparse
import gc
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Literal

from outrider.core.sidekick.memory import Strategy
from tests.sim.fleet import Badness, Breach, Fleet, Member
from tests.sim.host import KEPT_PAYLOADS
from tests.sim.store import FaultProfile

Kind = Literal["good", "refused", "unhealthy", "dies", "sours", "called off", "superseded"]

KINDS: tuple[Kind, ...] = (
    *("good",) * 10, "refused", "unhealthy", "dies", "dies", "sours", "sours", "called off", "superseded"
)  # fmt: skip
TROUBLES_S = 90.0
"""All trouble of a rollout begins in this time, and lasts a minute at most."""
LONGEST_S = 60.0
PATIENCE_S = 3600.0
"""For the way home once the trouble is over: the longest deadlines of the chart, a few times over."""
LEASE_S = 40.0
"""Longer than any lease in the simulator lives without its sidekick."""
APPOINTMENTS = 16
"""The most that one resting sidekick has: its keeper's next call and look, its timers, the watches' deliveries."""
WATCHES = 6


@dataclass(slots=True)
class Figures:
    """What a run measured.

    Attributes:
        journal_bytes: After each rollout, the longest record of any member.
        objects: Objects that the garbage collector tracks, every hundred rollouts.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    journal_bytes: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    steps: int = 0
    simulated_s: float = 0.0


class LongRun:
    """A fleet and its fate, from one seed."""

    def __init__(self, seed: int, *, instances: int = 0, tell: Callable[[str], None] = lambda line: None) -> None:
        """``instances`` 0: the seed says how many, from 3 to 12."""
        self.seed, self._instances, self._tell = seed, instances, tell
        self.random = Random(f"fate {seed}")
        strategy: Strategy = "stop-first" if seed % 2 else "start-first"
        self.fleet = Fleet(
            seed,
            instances=instances or self.random.randint(3, 12),
            slots=self.random.randint(1, 3),
            strategy=strategy,
        )
        self.figures = Figures()
        self._version = 1
        self._good = "1.0.0"
        self._troubles: dict[str, Callable[[Member], None]] = {
            "crash": lambda member: self.fleet.crash(member, self._time(0.1, 20.0)),
            "reboot": lambda member: self.fleet.reboot(member, self._time(1.0, 30.0)),
            "lost lease": self.fleet.lose_lease,
            "frozen": lambda member: self.fleet.freeze(member, self._time(0.5, LONGEST_S)),
            "deaf": lambda member: self.fleet.cut_off(member, "deaf", self._time(1.0, LONGEST_S)),
            "mute": lambda member: self.fleet.cut_off(member, "mute", self._time(1.0, LONGEST_S)),
            "etcd away": lambda member: self._etcd_away(self._time(1.0, 40.0)),
            "app crash": self._app_crash,
            "operator pauses": self._operator_pauses,
            "operator rolls back": lambda member: self.fleet.command(member, "rollback"),
            "operator retries": lambda member: self.fleet.command(member, "retry"),
            "other slots": lambda member: self.fleet.resize(self.random.randint(1, 3)),
            "group paused": lambda member: self._group_paused(self._time(1.0, LONGEST_S)),
            "release unblocked": lambda member: self._block_lifted(),
            "faults": lambda member: self._inject_faults(self._time(5.0, LONGEST_S)),
        }

    def run(self, rollouts: int) -> Figures:
        """Live through so many rollouts.

        Raises:
            Breach: a promise was broken, somebody is stuck, or something was left behind; names the seed.
        """
        fleet, figures = self.fleet, self.figures
        fleet.run(fleet.at_rest)
        for number in range(1, rollouts + 1):
            kind = self.random.choice(KINDS)
            figures.kinds[kind] += 1
            try:
                self._roll_out(kind)
                self._check_left()
            except Breach as breach:
                raise Breach(f"rollout {number} ({kind}): {breach}; again: {self._again(number)}") from None
            figures.journal_bytes.append(max(member.journal_bytes for member in fleet.members))
            if number % 100 == 0:
                gc.collect()
                figures.objects.append(len(gc.get_objects()))
                self._tell(f"{number} rollouts, {fleet.steps} steps, {fleet.now_s / 3600:.1f} h")
        figures.steps, figures.simulated_s = fleet.steps, fleet.now_s
        return figures

    def _again(self, number: int) -> str:
        instances = f" --instances {self._instances}" if self._instances else ""
        return f"python -m tests.sim.long_run --seed {self.seed} --rollouts {number}{instances}"

    def _time(self, least_s: float, most_s: float) -> float:
        return self.random.uniform(least_s, most_s)

    def _roll_out(self, kind: Kind) -> None:
        fleet = self.fleet
        version = self._next_version()
        badness: Badness = kind if kind in ("refused", "unhealthy", "dies", "sours") else "none"
        if badness != "none":
            fleet.bad[version] = badness
        fleet.most_allowed = fleet.slots_allowed
        fleet.promises.reached.clear()
        fleet.promises.touched.clear()
        begun_s = fleet.now_s
        self._plan_trouble()
        fleet.promote(version)
        wanted = {version}
        if kind == "called off":
            fleet.at(self._time(0.0, 60.0), partial(fleet.promote, self._good))
            # nobody goes back by itself, and an earlier one may have been called off, too
            wanted = {version, self._good, *fleet.versions()}
        elif kind == "superseded":
            version = self._next_version()
            fleet.at(self._time(0.0, 60.0), partial(fleet.promote, version))
            wanted = {version}
        fleet.run(lambda: fleet.now_s >= begun_s + TROUBLES_S + LONGEST_S)
        self._calm()
        if badness == "none":
            self._wait(lambda: set(fleet.versions()) <= wanted, kind)
            self._good = fleet.target[0]
        else:
            self._wait(lambda: version in fleet.blocked and version not in fleet.versions(), kind)
            del fleet.bad[version]

    def _next_version(self) -> str:
        self._version += 1
        return f"1.{self._version}.0"

    # --- trouble ----------------------------------------------------------------------------------------------------

    def _plan_trouble(self) -> None:
        for _ in range(self.random.choice((0, 1, 2, 4, 8))):
            name = self.random.choice(list(self._troubles))
            member = self.random.choice(self.fleet.members)
            self.figures.troubles[name] += 1
            self.fleet.at(self._time(0.0, TROUBLES_S), partial(self._troubles[name], member))

    def _etcd_away(self, for_s: float) -> None:
        for member in self.fleet.members:
            self.fleet.cut_off(member, "deaf", for_s)

    def _app_crash(self, member: Member) -> None:
        """What runs ends by itself; a candidate that did so would be the release's fault."""
        memory = member.kept.memory
        if memory is not None and memory.running is not None:
            member.host.die(memory.running.workload_id)

    def _operator_pauses(self, member: Member) -> None:
        self.fleet.command(member, "pause")
        self.fleet.at(self._time(1.0, LONGEST_S), partial(self.fleet.command, member, "resume"))

    def _group_paused(self, for_s: float) -> None:
        self.fleet.pause(paused=True)
        self.fleet.at(for_s, partial(self.fleet.pause, paused=False))

    def _block_lifted(self) -> None:
        if self.fleet.blocked:
            self.fleet.unblock(max(self.fleet.blocked, key=lambda version: int(version.split(".")[1])))

    def _inject_faults(self, for_s: float) -> None:
        faults = self.fleet.faults
        match self.random.randrange(6):
            case 0:
                faults.lost_answers = self._time(0.02, 0.3)
            case 1:
                faults.lost_calls = self._time(0.02, 0.3)
            case 2:
                faults.late = self._time(0.02, 0.2)
            case 3:
                faults.unmoved = 0.5
            case 4:
                faults.downloads = faults.runtime = 0.5
            case _:
                faults.service_down = True
        self.fleet.at(for_s, self._end_faults)

    def _end_faults(self) -> None:
        faults, fair = self.fleet.faults, FaultProfile()
        faults.lost_answers, faults.lost_calls, faults.late = fair.lost_answers, fair.lost_calls, fair.late
        faults.unmoved, faults.downloads, faults.runtime = fair.unmoved, fair.downloads, fair.runtime
        faults.service_down = fair.service_down

    # --- the way home -----------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        self._end_faults()
        if self.fleet.paused:
            self.fleet.pause(paused=False)

    def _wait(self, arrived: Callable[[], bool], kind: Kind) -> None:
        """Wait until everybody is home; operators take back what they asked for."""
        fleet = self.fleet
        end_s = fleet.now_s + PATIENCE_S
        while not (fleet.at_rest() and arrived() and not self._asked_for()):
            if fleet.now_s > end_s:
                raise Breach(
                    f"seed {fleet.seed}: not home {PATIENCE_S:.0f} s after the trouble: {self._where()},"
                    f" target {fleet.target}, turns {fleet.slots}, queue {sorted(fleet.promises.queue)}"
                )
            for member, verb in self._asked_for():
                fleet.command(member, verb)
            pause_s = fleet.now_s + 10.0
            fleet.run(lambda until_s=pause_s: fleet.now_s >= until_s)  # type: ignore[misc]

    def _asked_for(self) -> list[tuple[Member, Literal["resume", "retry"]]]:
        """What was asked of whom and still stands in its way."""
        found: list[tuple[Member, Literal["resume", "retry"]]] = []
        for member in self.fleet.members:
            memory = member.kept.memory
            assert memory is not None
            if memory.paused:
                found.append((member, "resume"))
            elif memory.undone is not None and memory.undone == memory.wanted:
                found.append((member, "retry"))
        return found

    def _where(self) -> dict[str, str]:
        return {
            member.name: f"{member.machine.state} on {version}"
            for member, version in zip(self.fleet.members, self.fleet.versions(), strict=True)
        }

    def _check_left(self) -> None:
        """Nothing is left of a rollout but what runs."""
        fleet, store = self.fleet, self.fleet.store
        for member in fleet.members:
            host = member.host
            member.read_back()
            if len(host.workloads) != 1 or len(host.ids) != 1 or len(host.recorded) != 1:
                self._left(f"{member.name}: workloads {host.workloads}, folders {sorted(host.recorded)}")
            if len(host.payloads) > KEPT_PAYLOADS:
                self._left(f"{member.name}: {len(host.payloads)} payloads")
            lookouts = [one for several in host.lookouts.values() for one in several if not one.closed]
            if len(lookouts) != 1:
                self._left(f"{member.name}: {len(lookouts)} look-outs")
            waiting = [worker for worker in member.life.workers.values() if worker.waiting]
            if waiting:
                self._left(f"{member.name}: effects that nobody performs: {waiting}")
        # Of a lease whose grant got no answer nobody knows: it ends by itself.
        self._pass(lambda: len(store.leases) == len(fleet.members), LEASE_S, lambda: f"leases {store.leases}")
        gone = ("turns/", "/commands/", "/wakeups/")
        strays = [key for key in store.entries if "/tickets/" not in key and any(part in key for part in gone)]
        # One that was written late is written over by the next attempt, or goes with its sidekick's lease: lock.md.
        strays += [
            key for key, entry in store.entries.items() if "/tickets/" in key and entry.lease not in store.leases
        ]
        if strays:
            self._left(f"keys {strays}")
        if len(store.watches) != WATCHES * len(fleet.members):
            self._left(f"{len(store.watches)} watches: {Counter(watch.prefix for watch in store.watches)}")
        if len(fleet.agenda) > APPOINTMENTS * len(fleet.members):
            self._left(f"{len(fleet.agenda)} appointments")

    def _pass(self, fact: Callable[[], bool], within_s: float, otherwise: Callable[[], str]) -> None:
        """Let time pass until ``fact`` holds; else that is left behind which ``otherwise`` says."""
        end_s = self.fleet.now_s + within_s
        self.fleet.run(lambda: fact() or self.fleet.now_s > end_s)
        if not fact():
            self._left(otherwise())

    def _left(self, what: str) -> None:
        raise Breach(f"seed {self.fleet.seed}: left behind: {what}")


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.sim.long_run", description=__doc__)
    options.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    options.add_argument("--fleets", type=int, default=1, help="how many seeds from there (default: 1)")
    options.add_argument("--rollouts", type=int, default=1000, help="of each fleet (default: 1000)")
    options.add_argument("--instances", type=int, default=0, help="in each fleet (default: as the seed says, 3 to 12)")
    options.add_argument("--minutes", type=float, help="begin no other fleet after so many minutes")
    chosen = options.parse_args()
    started, failed = time.monotonic(), 0
    for seed in range(chosen.seed, chosen.seed + chosen.fleets):
        if chosen.minutes is not None and time.monotonic() - started > chosen.minutes * 60:
            break
        run = LongRun(seed, instances=chosen.instances)
        begun = time.process_time()
        try:
            figures = run.run(chosen.rollouts)
        except Breach as breach:
            failed += 1
            sys.stdout.write(f"seed {seed}: {breach}\n")
        else:
            sys.stdout.write(
                f"seed {seed}: {len(run.fleet.members)} instances, {run.fleet.strategy}: {chosen.rollouts} rollouts,"
                f" {figures.steps} steps, {figures.simulated_s / 3600:.1f} h in {time.process_time() - begun:.1f} s;"
                f" record {figures.journal_bytes[0]}..{max(figures.journal_bytes)} bytes, objects {figures.objects}\n"
            )
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
