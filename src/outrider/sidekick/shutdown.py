"""Drains an instance because its machine shuts down: what the unit ``outrider-shutdown@`` runs beside the sidekick.

The sidekick does it, as for ``outrider instance drain --reboot``: it takes a turn, leaves the balancer and waits for
the last requests. A machine that shuts down doesn't wait forever, so when no turn comes in the stated time this program
takes the entry out itself. That write is fenced all the same: etcd refuses it once the sidekick's place in the queue is
another one, or the entry is another owner's. The sidekick puts nothing back while it queues for a turn to leave.
"""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from loguru import logger

from outrider.balancers import Balancer
from outrider.balancers.drain import Drain, Drained
from outrider.config.sections import Settings
from outrider.core.chart.model import Chart, SendEffect, SendLater
from outrider.core.errors import NotFound, Refused
from outrider.core.omaha import app_key
from outrider.core.sidekick.effects import RetakeLock
from outrider.etcd.seam import Cluster, CreatedAt, Put
from outrider.journal.journal import read
from outrider.model.damage import read_or_none
from outrider.model.documents import Command, Presence, encode
from outrider.model.keys import Keys
from outrider.sidekick.assemble import contender
from outrider.statechart import load_sidekick_chart

DRAINED_TIMER = "drained"
"""Of the state in which a drained instance rests."""
MARGIN_S = 5.0
"""More than the drain's own longest time, for the sidekick to say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """The instance gets no more requests; ``how`` is for people."""

    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the chart's drain is: it waits for a turn, goes out under it, or is out with nothing left to do."""

    queueing: frozenset[str]
    on_the_way: frozenset[str]
    out: frozenset[str]


def places_of(chart: Chart) -> Places:
    """Find them by what they do: the chart alone knows its states."""
    out = frozenset(
        state.id
        for state in chart.leaves
        if any(isinstance(one, SendLater) and one.timer == DRAINED_TIMER for one in state.onentry)
    )
    beside = {chart.states[each].parent for each in out}
    takes = frozenset(
        state.id
        for state in chart.leaves
        if state.safe and any(isinstance(one, SendEffect) and one.effect == RetakeLock.name for one in state.onentry)
    )
    on_the_way = frozenset(state.id for state in chart.leaves if state.parent in beside) - out
    return Places(queueing=takes, on_the_way=on_the_way, out=out)


class ShutdownDrain:
    """One instance's way out of the balancer before its machine goes down.

    Args:
        clock: Seconds that never go back.
        now: Aware UTC now, for the command's document.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        make_balancer: Callable[[Presence], Balancer],
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        instance = settings.instance
        self._settings, self._cluster, self._make_balancer = settings, cluster, make_balancer
        self._now, self._clock = now, clock
        self._keys = Keys(settings.etcd.prefix)
        self._app, self._instance = app_key(instance.app), instance.id
        self._presence_key = self._keys.presence(self._app, instance.group, instance.id)
        self._changed = threading.Event()
        self._places = places_of(load_sidekick_chart())

    def run(self) -> Left:
        """Drain it; return once it gets no more requests.

        Raises:
            NotFound: its sidekick isn't running, so there is nobody who could drain it.
            Refused: the entry stays as it is; the message says why.
            Unknown: etcd doesn't answer.
        """
        presence = self._presence()
        if presence is None:
            raise NotFound(f"no sidekick of instance {self._instance!r} is running: nothing is drained")
        self._require_ours(presence)
        if presence.state in self._places.out:
            return Left(how="it had been drained before")
        seen = self._cluster.list(self._presence_key, exact=True).revision
        watch = self._cluster.watch(self._presence_key, seen + 1, lambda _: self._changed.set(), exact=True)
        turn_by = self._clock() + self._settings.instance.shutdown_wait_s
        try:
            self._command()
            return self._wait(turn_by)
        finally:
            watch.close()

    def _presence(self) -> Presence | None:
        entry = self._cluster.get(self._presence_key)
        return None if entry is None else read_or_none(Presence, entry.key, entry.value)

    def _require_ours(self, presence: Presence) -> None:
        """A twin on another machine may have our name: its entry is its own."""
        records = read(self._settings.instance.state_dir / "journal.jsonl")
        process = records[-1].memory.get("process") if records else None
        if presence.process != process:
            raise Refused(
                f"instance {self._instance!r} is a sidekick on {presence.machine or 'another machine'}, not the one in"
                f" {self._settings.instance.state_dir}: nothing is drained"
            )

    def _command(self) -> None:
        command = Command(
            id=uuid.uuid4().hex, verb="drain", by="shutdown of its machine", at=self._now(), until_reboot=True
        )
        key = self._keys.command(self._app, self._instance)
        self._cluster.txn((), (Put(key=key, value=encode(command)),))

    def _wait(self, turn_by: float) -> Left:
        drain = self._settings.drain
        out_by: float | None = None
        while True:
            self._changed.clear()
            now = self._clock()  # before the look: what is seen then is what counts when the time is over
            presence = self._presence()
            if presence is None:
                raise NotFound(f"the sidekick of instance {self._instance!r} has ended: nothing more is drained")
            if presence.state in self._places.out:
                return Left(how="drained under a turn")
            if presence.state in self._places.on_the_way:
                out_by = out_by or now + drain.max_s + drain.confirm_timeout_s + MARGIN_S
            until = out_by or turn_by
            if now >= until:
                if out_by is not None:
                    raise Refused(f"the last requests did not end in time: {presence.why}")
                return self._leave_without_turn(presence, self._settings.instance.shutdown_wait_s)
            self._changed.wait(until - now)

    def _leave_without_turn(self, presence: Presence, waited_s: float) -> Left:
        if presence.state not in self._places.queueing:
            raise Refused(
                f"no turn within {waited_s:g} s, and the instance is in {presence.state}: its entry stays as it is"
            )
        us = contender(self._settings)
        waiter = self._cluster.get(self._keys.waiter(us.scope, us.member))
        if waiter is None:
            raise Refused(f"no turn within {waited_s:g} s, and no place in the queue: its entry stays as it is")
        balancer = self._make_balancer(presence)
        balancer.entry.leave(fence=(CreatedAt(key=waiter.key, revision=waiter.create_revision),))
        logger.bind(waited_s=waited_s).info("left the balancer without a turn")
        how = f"left without a turn, after {waited_s:g} s"
        if presence.url is None:
            return Left(how=how)
        drain = self._settings.drain
        inflight = presence.url + drain.inflight_path if drain.inflight_path else None
        verdict = Drain(balancer.observer, drain).wait(
            frozenset(), frozenset({presence.url}), inflight_url=inflight, stop=threading.Event()
        )
        if isinstance(verdict, Drained):
            return Left(how=f"{how}; {verdict.how}")
        raise Refused(f"{how}, and {getattr(verdict, 'why', 'the wait was ended')}")
