"""What ``outrider demo`` shows: three instances, a good release, a bad one, and a load that must not notice."""

import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from outrider.core.errors import DriverError
from outrider.demo.balancers import CLOSES_IDLE, DROPS_POSTS
from outrider.demo.fleet import APP_ID, CHANNEL, GROUP, HOST, DemoFleet
from outrider.demo.load import LoadFigures, LoadGenerator
from outrider.demo.table import LiveTable
from outrider.demo.turns import SeenTurn, TurnWatch
from outrider.model.documents import Block, Presence, decode
from outrider.model.keys import group_scope

NAMES = {"traefik": "Traefik", "haproxy": "HAProxy", "nginx": "nginx", "caddy": "Caddy", "envoy": "Envoy"}
LIMIT_S = 90.0
LOOK_S = 0.2
QUIET_S = 1.0
"""Seconds without a change after which the demo takes the rollout as stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the demo saw.

    Attributes:
        versions: Instance -> version at the end.
        block: The block of 3.0.0, None when there is none.
        rate_per_s: Requests that were sent a second.
    """

    figures: LoadFigures
    versions: dict[str, str]
    turns: tuple[SeenTurn, ...]
    most_turns_at_once: int
    block: Block | None
    rate_per_s: float

    @property
    def touched(self) -> tuple[str, ...]:
        """Instances that had a turn for 3.0.0."""
        return tuple(dict.fromkeys(turn.instance for turn in self.turns if turn.release == "3.0.0"))

    def complaints(self) -> tuple[str, ...]:
        """What is not as it was promised; empty when all is."""
        wrong = []
        if set(self.versions.values()) != {"2.0.0"}:
            wrong.append(f"not all instances are on 2.0.0: {self.versions}")
        if self.figures.failed or not self.figures.requests:
            wrong.append(f"{self.figures.failed} of {self.figures.requests} requests failed: {self.figures.failures}")
        if self.figures.requests < 0.8 * self.rate_per_s * self.figures.duration_s:
            wrong.append(f"only {self.figures.requests} requests in {self.figures.duration_s:.0f} s: too few to tell")
        if self.most_turns_at_once != 1:
            wrong.append(f"{self.most_turns_at_once} turns at once instead of 1")
        if len(self.touched) != 1:
            wrong.append(f"3.0.0 reached {len(self.touched)} instances instead of 1: {', '.join(self.touched)}")
        if self.block is None:
            wrong.append("3.0.0 is not blocked")
        return tuple(wrong)


class Demo:
    """Runs the story on a fleet."""

    def __init__(self, fleet: DemoFleet, table: LiveTable) -> None:
        self._fleet, self._table = fleet, table
        self._load: LoadGenerator | None = None
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """From an empty folder to the summary.

        Raises:
            DriverError: a program didn't start, or a step wasn't reached in time.
        """
        fleet = self._fleet
        agent = "" if fleet.balancer == "traefik" else ", its balancer agent"
        self._say(f"starting etcd, {NAMES[fleet.balancer]}{agent} and the update service")
        fleet.start()
        turns = TurnWatch(fleet.cluster, fleet.keys, group_scope(APP_ID, GROUP))
        try:
            self._say("the operator creates the app, as CoreOS' guide does")
            self._command("app", "create", f"--app-id={APP_ID}", "--label=Example", "--description=From the guide")
            self._publish("1.0.0")
            self._command(
                *("group", "create", f"--app-id={APP_ID}", f"--group-id={GROUP}"),
                *(f"--channel={CHANNEL}", "--label=Production"),
            )
            self._say("starting three instances with their sidekicks on 1.0.0")
            for instance in fleet.instances:
                fleet.start_sidekick(instance)
            self._until("all instances on 1.0.0", lambda: self._all_on("1.0.0"))

            fresh_posts, posts = fleet.balancer in CLOSES_IDLE, fleet.posts and fleet.balancer not in DROPS_POSTS
            self._load = LoadGenerator(
                fleet.web_url + fleet.path, HOST, fleet.rate_per_s, fresh_posts=fresh_posts, posts=posts
            ).start()
            self._say(f"sending {fleet.rate_per_s:.0f} requests a second through {NAMES[fleet.balancer]}")
            if not posts and fleet.posts:
                self._say("all of them GETs: in a reload it may drop a POST (docs/use/balancers.md)")
            self._say("2.0.0, a good release:")
            self._publish("2.0.0")
            self._until("all instances on 2.0.0", lambda: self._all_on("2.0.0"))

            self._say("3.0.0, a release whose health check fails:")
            self._publish("3.0.0", healthy=False)
            self._until("3.0.0 blocked", lambda: self._block() is not None)
            self._until("the rollout stopped", self._quiet())
            load, self._load = self._load, None
            return Outcome(
                figures=load.stop(),
                versions={one.instance: one.version for one in self._presences()},
                turns=turns.turns(),
                most_turns_at_once=turns.most_at_once,
                block=self._block(),
                rate_per_s=fleet.rate_per_s,
            )
        finally:
            turns.close()

    def end(self) -> None:
        """Stop the load if it still runs."""
        load, self._load = self._load, None
        if load is not None:
            load.stop()

    def _say(self, text: str) -> None:
        self._table.say(f"{time.monotonic() - self._began:5.1f} s  {text}")

    def _command(self, *words: str) -> None:
        self._table.say(f"         $ outrider {shlex.join(words)}")
        self._fleet.outrider(*words)

    def _publish(self, version: str, *, healthy: bool = True) -> None:
        package = self._fleet.package(version, healthy=healthy)
        self._command("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={package}")
        self._command("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")

    def _until(self, what: str, fact: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not fact():
            if time.monotonic() > deadline:
                where = ", ".join(f"{one.instance} {one.state} ({one.why})" for one in self._presences())
                raise DriverError(
                    f"the demo waited {LIMIT_S:.0f} s in vain: {what}; {where}; logs in {self._fleet.folder}"
                )
            for name, program in self._fleet.sidekicks.items():
                if program.ended is not None:
                    raise DriverError(f"the sidekick of {name} ended with {program.ended}; see {program.log}")
            self._table.show(self._presences(), self._load.snapshot() if self._load is not None else None)
            time.sleep(LOOK_S)
        self._table.show(self._presences(), self._load.snapshot() if self._load is not None else None)

    def _presences(self) -> list[Presence]:
        listing = self._fleet.cluster.list(self._fleet.keys.presences(APP_ID))
        return [decode(Presence, entry.key, entry.value) for entry in listing.entries]

    def _all_on(self, version: str) -> bool:
        presences = self._presences()
        at_rest = [one for one in presences if one.version == version and one.state.startswith("idle.")]
        return len(at_rest) == len(self._fleet.instances)

    def _block(self) -> Block | None:
        key = self._fleet.keys.block(APP_ID, "3.0.0")
        entry = self._fleet.cluster.get(key)
        return None if entry is None else decode(Block, key, entry.value)

    def _quiet(self) -> Callable[[], bool]:
        """A fact that becomes true when everybody has been at rest for ``QUIET_S``."""
        since: float | None = None

        def fact() -> bool:
            nonlocal since
            if not self._all_on("2.0.0"):
                since = None
                return False
            since = since if since is not None else time.monotonic()
            return time.monotonic() - since >= QUIET_S

        return fact


def summary(outcome: Outcome, took_s: float) -> Iterator[str]:
    """The demo's summary, line by line."""
    figures = outcome.figures
    yield ""
    yield f"requests   {figures.requests} in {figures.duration_s:.0f} s, failed {figures.failed}"
    served = ", ".join(f"{version}: {one.requests}" for version, one in sorted(figures.versions.items()))
    yield f"served     {served}"
    yield f"latency    median {figures.median_ms} ms, p99 {figures.p99_ms} ms, slowest {figures.slowest_ms} ms"
    for turn in outcome.turns:
        took = f"{turn.took_s:.1f} s" if turn.took_s is not None else "not ended"
        yield f"turn       {turn.instance} for {turn.release}: {took}"
    yield f"at once    at most {outcome.most_turns_at_once} turn"
    yield f"instances  {', '.join(f'{name}: {version}' for name, version in outcome.versions.items())}"
    if outcome.block is not None:
        yield f"blocked    {outcome.block.version} by {outcome.block.instance}: {outcome.block.why}"
    yield f"took       {took_s:.0f} s"
    for complaint in outcome.complaints():
        yield f"FAILED     {complaint}"
    if not outcome.complaints():
        yield "all as promised"
