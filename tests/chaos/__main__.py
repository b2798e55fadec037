"""The kill matrix: ``python -m tests.chaos`` (see ``--help``)."""

import argparse
import dataclasses
import itertools
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from outrider.core.sidekick.memory import Strategy
from tests.chaos.also import ALSO, run_also
from tests.chaos.cases import Outcome, Runner, arms_for
from tests.chaos.containers import ContainerChaosFixture, SecuredContainerFixture
from tests.chaos.fixture import INSTANCES, ChaosFixture, SecuredChaosFixture
from tests.chaos.matrix import Case, Runtime, cases, container_cases, in_company, sample, strategy_of
from tests.chaos.report import write_containers, write_report
from tests.live.killed_fixture import CHECKOUT
from tests.support.secured import SecuredFixture

KEPT = CHECKOUT / ".cache" / "chaos"
FIXTURES: Mapping[Runtime, type[ChaosFixture]] = {"process": ChaosFixture, "docker": ContainerChaosFixture}
SECURED: Mapping[Runtime, type[ChaosFixture]] = {"process": SecuredChaosFixture, "docker": SecuredContainerFixture}
STRATEGIES: tuple[Strategy, ...] = ("start-first", "stop-first")


def run(
    chosen: Iterable[Case], strategy: Strategy, seed: int, *, until: float = float("inf"), secured: bool = False
) -> Iterator[Outcome]:
    """Run cases of one strategy and runtime, one after the other on one fixture, until it is ``until`` (monotonic).

    After a case that failed the fixture is made anew; what it left is kept in ``.cache/chaos``.
    """
    fixture: ChaosFixture | None = None
    numbers = itertools.count()
    folder = Path(tempfile.mkdtemp(prefix="outrider-chaos-"))
    try:
        for together in in_company(chosen, len(INSTANCES)):
            if time.monotonic() > until:
                return
            if fixture is None:
                kind = (SECURED if secured else FIXTURES)[together[0].row.runtime]
                fixture = kind(folder / f"{time.monotonic_ns()}", strategy)
                fixture.bring_up()
            arms = arms_for(fixture, together, seed, folder / "signals" / str(next(numbers)))
            outcomes = Runner(fixture, arms, seed).run()
            if isinstance(fixture, SecuredFixture) and (refused := fixture.refusals()):
                outcomes[0].problems.append(f"etcd permitted less than is needed: {refused}")
            if outcomes[0].problems:
                keep(fixture, together[0])
            if outcomes[0].problems or any(arm.scenario.spoils for arm in arms):
                fixture.stop()
                fixture = None
            yield from outcomes
    finally:
        if fixture is not None:
            fixture.stop()
        shutil.rmtree(folder, ignore_errors=True)


def keep(fixture: ChaosFixture, case: Case) -> Path:
    """Copy logs and journals to where they outlive the run."""
    kept = KEPT / case.name.replace("/", "_").replace(":", "-")
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for log in fixture.folder.glob("*.log"):
        shutil.copy(log, kept)
    for instance in fixture.instances:
        for journal in fixture.state_dir(instance).glob("journal*"):
            shutil.copy(journal, kept / f"{instance}.{journal.name}")
    return kept


def main() -> None:
    """Run what was asked for; leaves with 1 when something didn't hold."""
    options = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--seconds", type=float, default=120.0, help="a sample of that length (default)")
    options.add_argument("--all", action="store_true", help="the whole matrix; goes on where an earlier run stopped")
    options.add_argument("--only", action="append", default=[], help="EFFECT/FAILPOINT[:WHEN[:FAULT]], may be repeated")
    options.add_argument("--secured", action="store_true", help="users and TLS in etcd, https, identity, signatures")
    options.add_argument("--strategy", choices=STRATEGIES, help="only cases of this strategy")
    options.add_argument("--runtime", choices=tuple(FIXTURES), help="only cases of this runtime")
    options.add_argument("--part", default="1/1", help="K/N: the K-th of N equal parts of the cases")
    options.add_argument("--also", action="store_true", help="the faults that are no single sidekick's")
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options.add_argument("--fixtures", type=int, default=3, help="fixtures side by side with --all")
    options.add_argument("--limit-s", type=float, default=7200.0, help="longest time for --all")
    options.add_argument("--report", action="store_true", help="only write docs/develop/chaos.md from the results")
    chosen = options.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that what was started is ended
    if chosen.report:
        write_report(KEPT)
        return
    if chosen.also:
        sys.exit(1 if run_others(chosen.seed) else 0)
    if chosen.all and not chosen.worker:
        sys.exit(side_by_side(chosen))
    part, parts = (int(word) for word in chosen.part.split("/"))
    until = time.monotonic() + (chosen.limit_s if chosen.all or chosen.only else chosen.seconds)
    if chosen.secured and (chosen.all or chosen.also):
        options.error("--secured goes with a sample or with --only")
    unknown = [one for one in chosen.only if not any(wanted(case, [one]) for case in (*cases(), *container_cases()))]
    if unknown:
        options.error(f"no case is called {unknown[0]!r}; all are in docs/develop/chaos.md, as EFFECT/FAILPOINT")
    bad = 0
    strategies = STRATEGIES if chosen.strategy is None else (chosen.strategy,)
    whole: dict[Runtime, tuple[Case, ...]] = {"process": cases(), "docker": container_cases()}
    sampled = not (chosen.all or chosen.only or chosen.runtime)
    runtimes: tuple[Runtime, ...] = ("process",) if sampled else ("process", "docker")
    if chosen.runtime is not None:
        runtimes = (chosen.runtime,)
    for runtime, strategy in itertools.product(runtimes, strategies):
        if not sampled:
            known = whole[runtime]
            picked = [case for case in known if strategy_of(case.row) == strategy and wanted(case, chosen.only)]
            picked = picked[part - 1 :: parts]
            if chosen.all:
                picked = [case for case in picked if case.name not in done(chosen.seed)]
            each = until
        else:
            picked = list(sample(chosen.seed, strategy))
            each = min(until, time.monotonic() + chosen.seconds / 2)
        for outcome in run(picked, strategy, chosen.seed, until=each, secured=chosen.secured):
            say(outcome)
            if not chosen.secured:  # the page tells of the ordinary fleet
                note(outcome)
            bad += bool(outcome.problems)
    sys.exit(1 if bad else 0)


def side_by_side(chosen: argparse.Namespace) -> int:
    """The whole matrix in several processes; then the report."""
    programs = []
    for part in range(1, chosen.fixtures + 1):
        command = [sys.executable, "-m", "tests.chaos", "--all", "--worker", "--part", f"{part}/{chosen.fixtures}"]
        command += ["--seed", str(chosen.seed), "--limit-s", str(chosen.limit_s)]
        command += [] if chosen.runtime is None else ["--runtime", chosen.runtime]
        programs.append(subprocess.Popen(command, cwd=CHECKOUT))
    statuses = [program.wait() for program in programs]
    if chosen.runtime == "docker":
        write_containers(KEPT)
    else:
        statuses.append(run_others(chosen.seed))
        write_report(KEPT)
    return max(abs(status) for status in statuses)


def run_others(seed: int) -> int:
    """The faults that are no single sidekick's, one after the other; how many didn't hold."""
    broken = 0
    for name in ALSO:
        with tempfile.TemporaryDirectory(prefix="outrider-chaos-") as folder:
            outcome = run_also(name, seed, Path(folder) / "fixture")
        say(outcome)
        note(outcome)
        broken += bool(outcome.problems)
    return broken


def wanted(case: Case, only: list[str]) -> bool:
    """Whether a case is among those that were named; all are when none was."""
    return not only or any(case.name == one or case.name.startswith(f"{one}:") for one in only)


def done(seed: int) -> set[str]:
    """Cases that held in an earlier run of this checkout with that seed."""
    return {one.case for one in read_results(KEPT) if one.seed == seed and not one.problems}


def keep_results(outcomes: Iterable[Outcome]) -> None:
    """Append to the results, for the page."""
    for outcome in outcomes:
        note(outcome)


def note(outcome: Outcome) -> None:
    """Append to the results."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "results.jsonl").open("a") as file:
        file.write(json.dumps(dataclasses.asdict(outcome)) + "\n")


def read_results(folder: Path) -> list[Outcome]:
    """All results that were ever noted, oldest first."""
    path = folder / "results.jsonl"
    return [Outcome(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def say(outcome: Outcome) -> None:
    """One line for a case that held, everything for one that didn't."""
    failed = f", {outcome.failed} failed (apps were ended)" if outcome.failed and outcome.excused else ""
    word = "BROKEN" if outcome.problems else "held"
    sys.stdout.write(f"{word:7}{outcome.took_s:6.1f} s  {outcome.requests:5} requests{failed}  {outcome.case}\n")
    for problem in outcome.problems:
        sys.stdout.write(f"        {problem}\n")
    if outcome.problems:
        sys.stdout.write(f"        again: python -m tests.chaos --seed {outcome.seed} --only '{outcome.case}'\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
