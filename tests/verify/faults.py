"""Charts with one fault each: what the model checker must find."""

import re
from dataclasses import dataclass, replace

from outrider.core.chart.load import load_chart
from outrider.core.chart.model import Chart
from outrider.core.sidekick.memory import Strategy
from outrider.core.sidekick.rules import VOCABULARY
from outrider.statechart import find_sidekick_chart
from outrider.verify.check import CALM as ALL_CALM
from outrider.verify.check import Configuration
from outrider.verify.world import Setting

CALM = replace(ALL_CALM, waiting=1)
"""What comes late is late by one effect less than elsewhere: enough for most faults, and found in seconds."""

SHIPPED = find_sidekick_chart().read_text(encoding="utf-8")
SIZES = tuple((sidekicks, slots) for slots in (1, 2) for sidekicks in (1, 2, 3))


def loaded(text: str) -> Chart:
    """The chart that ``text`` says, checked as any other."""
    return load_chart(text.encode(), "seeded.scxml", VOCABULARY)


def edited(text: str, state: str, before: str, after: str) -> str:
    """``text`` with one thing changed in one state, and nothing else.

    Raises:
        AssertionError: ``before`` stands not exactly once in the state's own lines.
    """
    begin = text.index(f'<state id="{state}"')
    nested = re.compile(r"<state |</state>").search(text, begin + 1)
    assert nested is not None
    own = text[begin : nested.start()]
    assert own.count(before) == 1, f"{state} has {own.count(before)} times: {before}"
    return text[:begin] + own.replace(before, after) + text[nested.start() :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault in the chart, or in what it relies on.

    Attributes:
        edits: State, what stands there, what stands there instead.
        promise: How the broken promise begins.
        story: Parts of lines that the counterexample has, in this order.
    """

    name: str
    strategy: Strategy
    edits: tuple[tuple[str, str, str], ...] = ()
    setting: Setting = CALM
    promise: str
    story: tuple[str, ...]

    @property
    def text(self) -> str:
        text = SHIPPED
        for state, before, after in self.edits:
            text = edited(text, state, before, after)
        return text

    @property
    def plan(self) -> tuple[Configuration, ...]:
        return (Configuration(strategy=self.strategy, setting=self.setting, sizes=SIZES),)


OUT = "P3: the instance is out of the balancer"
ASTRAY = "P3: the balancer sends to"
NO_WAY = "from here no way leads back to idle"
BAD = replace(CALM, badness="unhealthy")
_REFUSES = (
    '<transition event="release.found" cond="may_take" target="reporting"><raise event="update.failed"/></transition>'
)

CONTRACT = replace(CALM, contracts=True, waiting=0)
ANALYSED = replace(CALM, analysis="pause", waiting=0)

FAULTS = (
    Fault(
        name="a task that is lost and runs again",
        strategy="stop-first",
        setting=replace(CALM, tasked=True, lost="again", waiting=0),
        promise="a task runs twice, and nobody has asked for it",
        story=("claims the task", "begins the task", "killed and restarted", "it may run again"),
    ),
    Fault(
        name="a task that is given back after its beginning",
        strategy="stop-first",
        setting=replace(CALM, tasked=True, regretted=True, waiting=0),
        promise="a task runs twice, and nobody has asked for it",
        story=("claims the task", "begins the task", "this machine fails, and gives the task back"),
    ),
    Fault(
        name="a contract task that compares nothing",
        strategy="stop-first",
        setting=replace(CONTRACT, counted=False),
        promise="the contract task of 2.0.0 begins while 1.0.0 still runs",
        story=("the contract task of 2.0.0 begins",),
    ),
    Fault(
        name="going back after a contract task",
        strategy="stop-first",
        setting=replace(CONTRACT, barred=False, words=1, says=("undo",)),
        promise="1.0.0 is started although the contract task of 2.0.0 has begun",
        story=(
            "lock.release is done, lock.released",
            "the contract task of 2.0.0 begins",
            "an operator takes the group back to 1.0.0",
            "lock.acquire: has a turn, lock.acquired",
            "workload.replace of 1.0.0 is done",
        ),
    ),
    Fault(
        name="an undecided analysis that passes",
        strategy="stop-first",
        setting=ANALYSED,
        edits=(
            (
                "swapping.analysing",
                'event="analysis.undecided analysis.expired" cond="takes_undecided"',
                'event="analysis.undecided analysis.expired"',
            ),
        ),
        promise="2.0.0 is committed after analysis.undecided: no data never passes",
        story=("the analysis of 2.0.0 stays undecided: swapping.analysing -> swapping.retiring",),
    ),
    Fault(
        name="an analysis that never answers passes",
        strategy="start-first",
        setting=ANALYSED,
        edits=(
            (
                "swapping.analysing",
                '<transition event="analysis.failed analysis.undecided analysis.expired" target="rollback.relocking"/>',
                '<transition event="analysis.failed analysis.undecided" target="rollback.relocking"/>'
                '<transition event="analysis.expired" target="swapping.committing"/>',
            ),
        ),
        promise="2.0.0 is committed after analysis.expired: no data never passes",
        story=("timer analysis.expired before the answer: swapping.analysing -> swapping.retiring",),
    ),
    Fault(
        name="a swap before its task is done",
        strategy="start-first",
        setting=replace(CALM, tasked=True, waiting=0),
        edits=(
            (
                "swapping.readying",
                '<transition event="ready.expired" target="swapping.readying">',
                '<transition event="ready.expired" target="swapping.queueing">',
            ),
        ),
        promise="a swap to 2.0.0 begins before its task is done",
        story=("timer ready.expired", "lock.acquire: has a turn"),
    ),
    Fault(
        name="fetching what the runtime can't run",
        strategy="start-first",
        setting=replace(CALM, badness="unfit"),
        edits=(("checking", 'cond="may_take and can_run"', 'cond="may_take"'), ("checking", _REFUSES, "")),
        promise="what the runtime can't run is fetched, or asks for a turn",
        story=("the service offers 2.0.0", "what the runtime can't run is fetched"),
    ),
    Fault(
        name="blocking a release for this machine's trouble",
        strategy="start-first",
        setting=replace(CALM, badness="local"),
        edits=(
            (
                "rollback.removing",
                'cond="is_release_bad" target="rollback.blocking"',
                'cond="has_candidate" target="rollback.blocking"',
            ),
        ),
        promise="P11: this machine's trouble blocks 2.0.0 for everybody",
        story=(
            "workload.start of 2.0.0 is done, workload.failed: swapping.starting -> rollback.removing",
            "rollback.removing -> rollback.blocking",
            "P11: this machine's trouble blocks 2.0.0",
        ),
    ),
    Fault(
        name="blocking what an instance has committed",
        strategy="start-first",
        setting=replace(CALM, heeded=False),
        promise="P11: 2.0.0 is blocked although an instance has committed it",
        story=("another instance commits 2.0.0", "P11: 2.0.0 is blocked although"),
    ),
    Fault(
        name="the turn is given back before the instance serves",
        strategy="stop-first",
        edits=(
            (
                "swapping.joining",
                '<send type="effect" event="balancer.join"/>',
                '<send type="effect" event="lock.release"/><send type="effect" event="balancer.join"/>',
            ),
            (
                "swapping.joining",
                '<transition event="balancer.joined"',
                '<transition event="lock.released"/><transition event="balancer.joined"',
            ),
        ),
        promise=OUT,
        story=(
            "balancer.leave is done, balancer.left: swapping.leaving -> swapping.draining",
            "swapping.probing -> swapping.joining; asks for probe.stop, lock.release, balancer.join 2.0.0",
            "lock.release is done, lock.released: stays in swapping.joining [balancer to nobody, runs 2.0.0, no turn]",
            "P3: the instance is out of the balancer without a turn",
        ),
    ),
    Fault(
        name="leaving without a fence",
        strategy="stop-first",
        setting=replace(CALM, fenced=False),
        promise="P2: balancer.leave is accepted, although its turn has ended or its lease has lapsed",
        story=(
            "lock.acquire: has a turn, lock.acquired: swapping.queueing -> swapping.leaving; asks for balancer.leave",
            "its lease ends in etcd, and it hasn't noticed: stays in swapping.leaving",
            "balancer.leave is done",
            "P2: balancer.leave is accepted",
        ),
    ),
    Fault(
        name="switching without a fence",
        strategy="start-first",
        edits=(
            (
                "swapping.switching",
                '<raise event="update.exposed"/>\n          <send type="effect" event="balancer.switch"/>',
                '<raise event="update.exposed"/>\n          <send type="effect" event="balancer.join"/>',
            ),
            (
                "swapping.switching",
                '<transition event="switch.due"><send type="effect" event="balancer.switch"/>',
                '<transition event="switch.due"><send type="effect" event="balancer.join"/>',
            ),
            ("swapping.switching", 'event="balancer.switched"', 'event="balancer.joined"'),
        ),
        promise="P2: an unfenced write takes the traffic from 1.0.0, which serves",
        story=(
            "its lease ends in etcd, and it hasn't noticed",
            "balancer.join 2.0.0 is done",
            "P2: an unfenced write takes the traffic from 1.0.0, which serves",
        ),
    ),
    Fault(
        name="rolling back after the commit",
        strategy="start-first",
        edits=(
            (
                "swapping.retiring",
                'event="retire.expired" target="swapping.releasing"',
                'event="retire.expired" target="rollback.relocking"',
            ),
        ),
        promise="an update is rolled back after its commit",
        story=(
            "timer soak.due: swapping.soaking -> swapping.retiring",
            "timer retire.expired before the answer: swapping.retiring -> rollback.relocking",
            "an update is rolled back after its commit",
        ),
    ),
    Fault(
        name="not coming back after a rollback",
        strategy="stop-first",
        edits=(
            (
                "rollback.reprobing",
                'event="probe.passed" target="rollback.rejoining"',
                'event="probe.passed" target="rollback.removing"',
            ),
        ),
        promise=OUT,
        story=(
            "balancer.leave is done, balancer.left",
            "1.0.0 proves healthy: rollback.reprobing -> rollback.removing",
            "lock.release is done",
            "P3: the instance is out of the balancer without a turn",
        ),
    ),
    Fault(
        name="ending the turn first, and blocking later",
        strategy="start-first",
        setting=BAD,
        edits=(
            (
                "rollback.removing",
                'cond="is_release_bad" target="rollback.blocking"',
                'cond="is_release_bad" target="rollback.releasing"',
            ),
            (
                "rollback.releasing",
                'event="lock.released" target="reporting"',
                'event="lock.released" target="rollback.blocking"',
            ),
        ),
        promise="P5: a bad release reached 2 instances, and there are 1 slots",
        story=(
            "web-1: 2.0.0 isn't healthy: swapping.probing -> rollback.removing",
            "web-1: lock.release is done, lock.released: rollback.releasing -> rollback.blocking",
            "web-2: lock.acquire: has a turn, lock.acquired: swapping.queueing -> swapping.starting",
            "web-2: workload.start of 2.0.0 is done",
            "P5: a bad release reached 2 instances",
        ),
    ),
    Fault(
        name="not blocking at all",
        strategy="stop-first",
        setting=BAD,
        edits=(
            (
                "rollback.removing",
                'event="workload.removed workload.failed remove.expired" cond="is_release_bad"',
                'event="remove.expired" cond="is_release_bad"',
            ),
        ),
        promise="P5: a bad release reached 2 instances, and there are 1 slots",
        story=(
            "web-1: 2.0.0 isn't healthy",
            "web-1: lock.release is done",
            "web-2: workload.replace of 2.0.0 is done",
            "P5: a bad release reached 2 instances",
        ),
    ),
    Fault(
        name="giving the turn back as the lease is lost (decision 0008)",
        strategy="start-first",
        setting=BAD,
        edits=(
            (
                "swapping.starting",
                'event="lock.lost" target="swapping.retreating"',
                'event="lock.lost" target="rollback.removing"',
            ),
        ),
        promise="P5: a bad release reached 2 instances, and there are 1 slots",
        story=(
            "web-1: can't reach etcd, and gives its lease up before it ends: swapping.starting -> rollback.removing",
            "web-1: workload.start of 2.0.0 is done",
            "web-1: lock.release is done",
            "web-2: workload.start of 2.0.0 is done",
            "P5: a bad release reached 2 instances",
        ),
    ),
    Fault(
        name="rolling back for a lost lease while traffic may move (decision 0008)",
        strategy="start-first",
        setting=BAD,
        edits=(
            (
                "swapping.switching",
                'event="lock.lost" target="swapping.reclaiming"',
                'event="lock.lost" target="rollback.relocking"',
            ),
        ),
        promise="P5: a bad release reached 2 instances, and there are 1 slots",
        story=(
            "web-1: 2.0.0 proves healthy: swapping.probing -> swapping.switching",
            "swapping.switching -> rollback.relocking",
            "web-1: lock.release is done",
            "web-2: workload.start of 2.0.0 is done",
            "P5: a bad release reached 2 instances",
        ),
    ),
    Fault(
        name="giving the turn back while the runtime may start the candidate yet",
        strategy="start-first",
        setting=replace(BAD, waiting=2),
        edits=(
            (
                "rollback.removing",
                '<transition event="remove.expired" target="rollback.removing">',
                '<transition event="remove.expired" target="rollback.releasing">',
            ),
        ),
        promise="P5: a bad release reached 2 instances, and there are 1 slots",
        story=(
            "web-1: timer start.expired before the answer: swapping.starting -> rollback.removing",
            "web-1: timer remove.expired before the answer: rollback.removing -> rollback.releasing",
            "P5: a bad release reached 2 instances",
        ),
    ),
    Fault(
        name="stopping the old version before the traffic has moved",
        strategy="start-first",
        edits=(
            (
                "swapping.starting",
                '<send type="effect" event="workload.start"/>',
                '<send type="effect" event="workload.replace"/>',
            ),
        ),
        promise=f"{ASTRAY} 1.0.0, which doesn't run there",
        story=(
            "lock.acquired: swapping.queueing -> swapping.starting; asks for workload.replace",
            "workload.replace",
            f"{ASTRAY} 1.0.0",
        ),
    ),
    Fault(
        name="removing the candidate while the balancer sends to it",
        strategy="start-first",
        edits=(
            (
                "rollback.restoring",
                'event="balancer.refused restore.expired lock.lost" target="rollback.relocking"',
                'event="balancer.refused restore.expired lock.lost" target="rollback.undraining"',
            ),
        ),
        promise=f"{ASTRAY} 2.0.0, which doesn't run there",
        story=(
            "balancer.switch 2.0.0 is done",
            "rollback.restoring -> rollback.undraining",
            "workload.remove is done",
            f"{ASTRAY} 2.0.0",
        ),
    ),
    Fault(
        name="stopping the candidate in its place without leaving the balancer",
        strategy="stop-first",
        edits=(
            (
                "rollback.quitting",
                '<send type="effect" event="balancer.leave"/>',
                '<send type="effect" event="balancer.undrain"/>',
            ),
            ("rollback.quitting", 'event="balancer.left"', 'event="balancer.drained balancer.unmoved"'),
        ),
        promise=f"{ASTRAY} 2.0.0, which doesn't run there",
        story=("balancer.join 2.0.0 is done", "rollback.relocking -> rollback.quitting", f"{ASTRAY} 2.0.0"),
    ),
    Fault(
        name="a turn that is never given back",
        strategy="start-first",
        edits=(
            (
                "swapping.retiring",
                '<transition event="workload.retired" target="swapping.releasing" o:success="true"/>',
                '<transition event="workload.retired" target="reporting" o:success="true"/>',
            ),
        ),
        promise=NO_WAY,
        story=(
            "workload.retire is done, workload.retired: swapping.retiring -> reporting",
            "a forgotten turn",
            NO_WAY,
        ),
    ),
    Fault(
        name="a dead end",
        strategy="start-first",
        edits=(
            (
                "rollback.releasing",
                '<transition event="lock.released" target="reporting"/>',
                '<transition event="lock.released" target="rollback.releasing"/>',
            ),
        ),
        promise=NO_WAY,
        story=("rollback.removing -> rollback.releasing", NO_WAY),
    ),
    Fault(
        name="a second verdict",
        strategy="start-first",
        setting=BAD,
        edits=(
            (
                "rollback.removing",
                '<send type="effect" event="workload.remove"/>',
                '<raise event="update.failed"/><send type="effect" event="workload.remove"/>',
            ),
        ),
        promise="an update gets its verdict twice",
        story=("-> rollback.removing", "an update gets its verdict twice"),
    ),
    Fault(
        name="a turn that is taken without permission",
        strategy="start-first",
        setting=replace(CALM, words=1, says=("brake",), permits=False),
        promise="P16: an update to 2.0.0 begins while the rollout is paused",
        story=("an operator pauses the rollout", "has a turn", "P16"),
    ),
    Fault(
        name="removing itself behind an operator's back",
        strategy="stop-first",
        setting=replace(CALM, words=1, says=("decommission",), waiting=0, admits=False),
        promise="P12: it removes itself once more although an operator has let it back",
        story=("the answer is lost", "an operator lets it back after it has gone", "lock.resign is done", "P12"),
    ),
    Fault(
        name="an effect without what it needs",
        strategy="start-first",
        edits=(
            (
                "checking",
                '<transition event="release.missing" target="idle.waiting"/>',
                '<transition event="release.missing" target="swapping"/>',
            ),
        ),
        promise="the chart asks for what can't be: release.missing in checking",
        story=("the service has nothing for it", "the chart asks for what can't be"),
    ),
)
