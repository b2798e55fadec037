"""What happens to real machines while releases come. Each scenario begins and ends with all at rest.

None of them touches what the product stores or waits for luck: a scenario types what ``docs/use/`` tells an operator to
type, and waits for facts.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from outrider.etcd.client import connect
from tests.scenarios.apps import API, APPS, GROUP, WEB, App
from tests.scenarios.image import NEXT_PACKAGE, NEXT_VERSION, PACKAGES
from tests.scenarios.machine import HERE, WITHIN_S, Machine
from tests.scenarios.run import Run
from tests.scenarios.site import SMALL_DISK, is_in_a_swap
from tests.support.requirements import skip_or_fail
from tests.support.waiting import eventually

Scenario = Callable[[Run], None]
FULL_S = 20.0
"""How long a disk stays full in the middle of a swap: longer than a lease lives."""
HOURS = ("+3600", "-3600")
SLEEP = "import time, threading; time.sleep = lambda s, event=threading.Event: event().wait(s) and None"
"""libfaketime 0.9.10 refuses what the sleep of Python asks for (clock_nanosleep until a time of the clock that nobody
sets): so where it is loaded, a thread that sleeps waits in another way."""


def clean(run: Run) -> None:
    """A good release reaches every instance."""
    run.site.await_rest(run.site.release("good"))


def bad(run: Run) -> None:
    """A release that never proves healthy is blocked, and reaches one instance of each app."""
    site, before = run.site, run.site.version
    version = site.release("bad")
    for app in APPS:
        eventually(lambda app=app: version in site.blocked(app), WITHIN_S, every_s=0.2)  # type: ignore[misc]
    site.await_rest(before)
    for app in APPS:
        reached = run.reached(app, version)
        run.expect(len(reached) == 1, f"P5: {version} of {app.name} is bad, and {sorted(reached)} had a turn for it")
        # a changed environment would make another release of it, which isn't blocked
        site.point_at(app, before)
    site.await_rest(before)


def environment(run: Run) -> None:
    """A changed environment is rolled out like a release, and every app was started with it."""
    site, word = run.site, f"word-{time.monotonic_ns()}"
    for app in APPS:
        site.outrider(f"env set {app.name}/{GROUP} SCENARIO={word}")
    for app in APPS:
        for machine in site.machines.values():
            unit = f"outrider-app-{site.instance(app, machine.name)}@*"
            line = f"cat $(systemctl show --property=MainPID --value '{unit}' | sed 's,..*,/proc/&/environ,')"

            def has_it(line: str = line, machine: Machine = machine) -> bool:
                return f"SCENARIO={word}\0" in machine.try_to_run(line)

            eventually(has_it, WITHIN_S, every_s=0.5)
    site.await_rest(site.version)


def cutoff(run: Run) -> None:
    """A machine is cut off from etcd in the middle of a swap, for longer than its lease lives."""
    site = run.site
    version = site.release("good")
    machine, state = _in_a_swap(run, WEB)
    with _severed(run, machine):
        run.note(f"{machine.name} cut off in {state}")
        eventually(lambda: site.presence(WEB, machine.name) is None, WITHIN_S, every_s=0.1)
        eventually(lambda: site.presence(API, machine.name) is None, WITHIN_S, every_s=0.1)
    site.await_rest(version)


def leader(run: Run) -> None:
    """The node that leads etcd is killed in the middle of a rollout, which the two others carry on with."""
    site = run.site
    version = site.release("good")
    machine, state = _in_a_swap(run, WEB)
    killed = site.etcd.leader()
    killed.kill()
    run.note(f"{killed.name} killed while {machine.name} was in {state}")
    site.await_rest(version)
    killed.start()
    site.etcd.await_node(killed)


def restart(run: Run) -> None:
    """All sidekicks are restarted at once in the middle of a rollout."""
    site = run.site
    version = site.release("good")
    machine, state = _in_a_swap(run, WEB)
    run.note(f"restarted while {machine.name} was in {state}")
    _everywhere(run, "systemctl restart 'outrider-sidekick@*'")
    site.await_rest(version)


def upgrade(run: Run) -> None:
    """outrider itself is upgraded on every machine, by its package, in the middle of a rollout."""
    site = run.site
    before = {app: {name: one.process for name, one in site.presences(app).items()} for app in APPS}
    version = site.release("good")
    machine, state = _in_a_swap(run, WEB)
    run.note(f"upgraded while {machine.name} was in {state}")
    _everywhere(run, f"dpkg --install {NEXT_PACKAGE}")
    site.await_rest(version)
    for each in site.machines.values():
        said = each.run("outrider --version")
        run.expect(NEXT_VERSION in said, f"{each.name} has {said.strip()}, not {NEXT_VERSION}")
    for app in APPS:
        same = [name for name, one in site.presences(app).items() if one.process == before[app].get(name)]
        run.expect(not same, f"the package did not restart the sidekicks of {same}")


def drain(run: Run) -> None:
    """An operator drains a machine, reboots it, and brings it back: it stays out until then."""
    site, machine = run.site, run.site.machines[_first(run)]
    run.leaves(machine)
    for app in APPS:
        site.outrider(f"instance drain {app.name} {site.instance(app, machine.name)}")
    for app in APPS:
        _await_state(run, app, machine, "idle.drained")
    machine.reboot()
    for app in APPS:
        _await_state(run, app, machine, "idle.drained")
        site.outrider(f"instance undrain {app.name} {site.instance(app, machine.name)}")
    site.await_rest(site.version)


def reboot(run: Run) -> None:
    """A machine reboots in the middle of a swap: its shutdown drains it before anything is stopped."""
    site, machine = run.site, run.site.machines[_first(run)]
    run.leaves(machine)
    version = site.release("good")
    state = site.await_swap(WEB, machine.name)
    run.note(f"{machine.name} rebooted in {state}")
    machine.reboot()
    site.await_rest(version)


def clock(run: Run) -> None:
    """The clocks of two machines are an hour off, one before and one behind, over two rollouts."""
    site = run.site
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        skip_or_fail("libfaketime: no such library: apt-get install faketime")
    shutil.copy(found[0], site.shared / "libfaketime.so.1")
    off = dict(zip(site.machines, HOURS, strict=False))
    try:
        for name, seconds in off.items():
            site.machines[name].write(
                "/etc/systemd/system/outrider-sidekick@.service.d/clock.conf",
                f"[Service]\nEnvironment=LD_PRELOAD={HERE}/libfaketime.so.1 FAKETIME={seconds}"
                " DONT_FAKE_MONOTONIC=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n",
            )
            site.machines[name].write(f"{PACKAGES}/scenario.pth", SLEEP + "\n")
            site.machines[name].run("systemctl daemon-reload; systemctl restart 'outrider-sidekick@*'")
        for _ in range(2):
            site.await_rest(site.release("good"))
        for name, seconds in off.items():
            seen = site.presences(WEB)[site.instance(WEB, name)].since.timestamp() - time.time()
            run.expect(abs(seen - int(seconds)) < 1800, f"{name}: its clock is {seen:.0f} s off, not {seconds}")
    finally:
        for name in off:
            machine = site.machines[name]
            machine.run(f"rm {PACKAGES}/scenario.pth /etc/systemd/system/outrider-sidekick@.service.d/clock.conf")
            machine.run("systemctl daemon-reload; systemctl restart 'outrider-sidekick@*'")
    site.await_rest(site.release("good"))


def disk(run: Run) -> None:
    """A machine's disk is full, first before a release comes, then in the middle of a swap."""
    site = run.site
    machine = site.machines[SMALL_DISK]
    with _full(machine):
        version = site.release("good")
        others = [name for name in site.machines if name != machine.name]
        for app in APPS:
            for name in others:
                _await_version(run, app, name, version)
    site.await_rest(version)
    version = site.release("good")
    state = site.await_swap(WEB, machine.name)
    with _full(machine):
        run.note(f"full in {state}")
        threading.Event().wait(FULL_S)
    site.await_rest(version)


def restore(run: Run) -> None:
    """etcd is restored from a snapshot that is older than the last release."""
    site = run.site
    snapshot = site.etcd.save()
    site.await_rest(site.release("good"))
    run.close_history()
    site.cluster.close()
    site.etcd.restore(snapshot)
    site.cluster = connect(site.etcd.address)
    run.open_history(restored=True)
    for app in APPS:
        eventually(lambda app=app: _entries_are_right(run, app), WITHIN_S, every_s=0.2)  # type: ignore[misc]
    with run.without_load(WEB):  # as docs/use/balancers.md says
        site.balancers.run("systemctl restart traefik")
        eventually(lambda: site.serves(WEB), WITHIN_S, every_s=0.1)
    site.await_rest(site.release("good"))


def poweroff(run: Run) -> None:
    """A machine loses its power in the middle of a swap and is replaced by another one."""
    site = run.site
    with site.health_checks():
        version = site.release("good")
        machine, state = _in_a_swap(run, WEB, but=SMALL_DISK)
        with run.losing(machine):
            machine.container.kill()
        run.note(f"{machine.name} lost in {state}")
        for app in APPS:
            gone = partial(lambda app: site.presence(app, machine.name) is None, app)
            eventually(gone, WITHIN_S, every_s=0.2)
            site.outrider(f"instance delete {app.name} {site.instance(app, machine.name)} --machine-off --yes")
        del site.machines[machine.name]
    run.note(f"{site.add_machine().name} in its place")
    site.await_rest(version)


SCENARIOS: Mapping[str, Scenario] = {
    one.__name__: one
    for one in (
        clean, bad, environment, cutoff, leader, restart, drain, reboot, clock, disk, upgrade, restore, poweroff,
    )
}  # fmt: skip
"""In the order in which they are run."""
QUICK = ("clean", "bad", "leader")
"""What ``make live`` runs."""


def _first(run: Run) -> str:
    """A machine whose disk outlives a reboot."""
    return next(name for name in run.site.machines if name != SMALL_DISK)


def _in_a_swap(run: Run, app: App, but: str = "") -> tuple[Machine, str]:
    """The first machine that is in the middle of a swap of the app, and its state."""

    def found() -> tuple[Machine, str] | None:
        for name, machine in run.site.machines.items():
            one = run.site.presence(app, name)
            if name != but and one is not None and is_in_a_swap(one.state):
                return machine, one.state
        return None

    seen = eventually(found, WITHIN_S, every_s=0.02)
    assert seen is not None
    return seen


def _await_state(run: Run, app: App, machine: Machine, state: str) -> None:
    def where() -> str:
        found = run.site.presence(app, machine.name)
        return "" if found is None else found.state

    eventually(lambda: where() == state, WITHIN_S, every_s=0.2)


def _await_version(run: Run, app: App, machine: str, version: str) -> None:
    def runs() -> str:
        found = run.site.presence(app, machine)
        return found.version if found is not None and found.state == "idle.waiting" else ""

    eventually(lambda: runs() == version, WITHIN_S, every_s=0.2)


def _entries_are_right(run: Run, app: App) -> bool:
    """Whether each sidekick is there, and the balancer's entry of each is where it serves."""
    presences = run.site.presences(app)
    return set(presences) == set(run.site.instances(app)) and all(
        one.url is not None and run.site.entry(app, name) == one.url for name, one in presences.items()
    )


def _everywhere(run: Run, line: str) -> None:
    """Type a line on all machines at once."""
    machines: Iterable[Machine] = run.site.machines.values()
    with ThreadPoolExecutor(len(run.site.machines)) as pool:
        list(pool.map(lambda machine: machine.run(line), machines))


@contextmanager
def _severed(run: Run, machine: Machine) -> Iterator[None]:
    """Let packets between a machine and etcd vanish, without a word to either."""
    rules = [f"{chain} {node.address} -j DROP" for node in run.site.etcd.nodes for chain in ("INPUT -s", "OUTPUT -d")]
    network = run.site.network
    network.beside(machine.container, "; ".join(f"iptables -w -I {rule}" for rule in rules))
    try:
        yield
    finally:
        network.beside(machine.container, "; ".join(f"iptables -w -D {rule}" for rule in rules))


@contextmanager
def _full(machine: Machine) -> Iterator[None]:
    """Leave not a byte on the disk with the sidekicks' state."""
    ballast = "/var/lib/outrider/ballast"
    fill = "; ".join(f"dd if=/dev/zero of={ballast} bs={size} oflag=append conv=notrunc || true" for size in (65536, 1))
    machine.run(f"{{ {fill}; }} 2>/dev/null; test $(stat --file-system --format=%a /var/lib/outrider) = 0")
    try:
        yield
    finally:
        machine.run(f"rm {ballast}")
