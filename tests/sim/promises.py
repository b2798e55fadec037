"""What must hold at every change of the simulated world, judged from the store and the machines alone."""

from collections import Counter
from typing import TYPE_CHECKING, NoReturn

from outrider.model.documents import Block, Slot, decode
from outrider.model.keys import group_scope
from tests.sim.store import KEYS, Changes

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet, Member

SCOPE = group_scope("app", "g")
_SLOTS, _QUEUE, _BLOCKS = KEYS.slots(SCOPE), KEYS.queue(SCOPE), KEYS.blocks("app")
_BUDGETS = KEYS.budgets(SCOPE)
_PROOFS = KEYS.proofs("app")
_RUNNING = KEYS.running_in("app", "g")
_SERVERS = "traefik/http/services/example/loadbalancer/servers/"


class Breach(AssertionError):
    """A promise was broken."""


class Promises:
    """Follows every change, and raises ``Breach`` at the first that breaks a promise.

    Attributes:
        slots: Number -> turn, as stored.
        queue: Instances with a key in the queue.
        budgets: Keys of the slots of disruption budgets.
        blocked: Versions that are blocked.
        proved: Versions that an instance has committed.
        entries: Instance -> address in the balancer.
        most_slots: The most turns that there were at once.
        touched: Version -> instances where it was ever started.
        reached: The same without those whose turn was given up for a reason that isn't the release's (decision 0008).
    """

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet
        self.slots: dict[int, Slot] = {}
        self.queue: set[str] = set()
        self.budgets: set[str] = set()
        self.blocked: set[str] = set()
        self.proved: set[str] = set()
        self.entries: dict[str, str] = {}
        self.most_slots = 0
        self.touched: dict[str, set[str]] = {}
        self.reached: dict[str, set[str]] = {}
        self.runs: dict[str, set[str]] = {}
        """Instance -> versions that may still run there, as stored."""
        self.taken: set[str] = set()
        """Instances whose entry a person took away, or overwrote, until a sidekick has written it."""
        self._begun_updates: set[str] = set()
        self.narrowed = 0
        """Turns that there may be beyond the allowed ones, as they were taken when more were allowed."""
        self.freed: set[str] = set()
        """Instances that were out when an operator ended their turn: the operator looks after them then."""

    def noted(self, changes: Changes) -> None:
        """Something was written."""
        blocked = any(key.startswith(_BLOCKS) and new is not None for key, (_, new) in changes.items())
        for key, (old, new) in changes.items():
            if key.startswith(_SERVERS):
                self._moved(key.removeprefix(_SERVERS).partition("/")[0], new.value.decode() if new else None)
            elif key.startswith(_SLOTS):
                number = int(key.removeprefix(_SLOTS).partition("/")[0])
                if old is not None:
                    self._ended(self.slots.pop(number), blocked=blocked)
                if new is not None:
                    self.slots[number] = decode(Slot, key, new.value)
                    self._begun(self.slots[number])
            elif key.startswith(_BUDGETS):
                (self.budgets.discard if new is None else self.budgets.add)(key)
            elif key.startswith(_QUEUE):
                name = key.removeprefix(_QUEUE)
                (self.queue.discard if new is None else self.queue.add)(name)
            elif key.startswith(_BLOCKS):
                stored = new if new is not None else old
                assert stored is not None, "a change is from something or to something"
                version = decode(Block, key, stored.value).label
                if old is None and new is not None:
                    self._may_be_blocked(version, key.removeprefix(_BLOCKS))
                (self.blocked.discard if new is None else self.blocked.add)(version)
            elif key.startswith(_RUNNING):
                name, _, version = key.removeprefix(_RUNNING).partition("/")
                known = self.runs.setdefault(name, set())
                (known.discard if new is None else known.add)(version)
            elif key.startswith(_PROOFS) and new is not None:
                self.proved.add(key.removeprefix(_PROOFS).partition("/")[0])
        self.check()

    def _may_be_blocked(self, version: str, key: str) -> None:
        """P11: what an instance has committed, and what only machines can't run, is blocked by no sidekick."""
        if key in self.proved:
            self.fail(f"P11: {version} is blocked although an instance has committed it")
        if any(version in member.host.cannot for member in self._fleet.members):
            self.fail(f"P11: {version} is blocked for the trouble of one machine")

    def started(self, name: str, version: str) -> None:
        """A version was started on an instance's machine."""
        self.touched.setdefault(version, set()).add(name)
        self._fleet.tasks.check_started(name, version)
        if self._fleet.bad.get(version, "none") in ("none", "unasked"):
            return
        reached = self.reached.setdefault(version, set())
        reached.add(name)
        if len(reached) > self._fleet.most_allowed:
            self.fail(f"P5: {version} is bad and was started on {sorted(reached)}")

    def check(self) -> None:
        """P1, and P3 as far as a sidekick can keep it: a version that dies by itself is excused until it is undone."""
        held = len(self.slots)
        self.most_slots = max(self.most_slots, held)
        self.narrowed = min(self.narrowed, max(0, held - self._fleet.slots_allowed))
        if held > self._fleet.slots_allowed + self.narrowed:
            self.fail(f"P1: {held} turns: {self.slots}")
        self._check_racks()
        for member in self._fleet.members:
            entry, host = self.entries.get(member.name), member.host
            self._check_recorded(member)
            if entry in host.workloads or entry in host.deserted or member.name in self.taken:
                continue
            memory = member.machine.memory
            if entry is None and memory.running is None:
                continue  # it was decommissioned
            away = self._fleet.strategy == "stop-first" or memory.drain is not None or memory.is_out
            may_be_out = self._holds(member.name) or member.name in self.freed
            if not away or entry is not None or not may_be_out:
                self.fail(
                    f"P3: {member.name} in {member.machine.state}: entry {entry}, workloads {host.workloads},"
                    f" turn {self._holds(member.name)}"
                )

    def _check_racks(self) -> None:
        """P1 of disruption budgets: by the labels of the turns, and by the budget slots that came with them."""
        if not self._fleet.racks:
            return
        by_turns = Counter(slot.labels["rack"] for slot in self.slots.values())
        by_budgets = Counter(key.removeprefix(_BUDGETS).partition("/")[0] for key in self.budgets)
        if any(number > 1 for number in by_turns.values()):
            self.fail(f"P1: two out in one rack: {self.slots}")
        if {f"rack={rack}": number for rack, number in by_turns.items()} != dict(by_budgets):
            self.fail(f"P1: turns {self.slots} and budget slots {sorted(self.budgets)} differ")

    def _check_recorded(self, member: "Member") -> None:
        """What runs is recorded as what may run, but for what runs under a turn or in an update that has begun."""
        memory, name = member.machine.memory, member.name
        if memory.running is None or memory.update or self._holds(name) or name in self.freed:
            return
        key = memory.running.release.id.key("g")
        if memory.running.url in member.host.workloads and key not in self.runs.get(name, set()):
            self.fail(f"{name} runs {key}, and what may run there is {sorted(self.runs.get(name, set()))}")

    def _holds(self, name: str) -> bool:
        return any(slot.instance == name for slot in self.slots.values())

    def _moved(self, name: str, after: str | None) -> None:
        """P2, from outside: traffic leaves what serves only under a turn that is held."""
        before = self.entries.pop(name, None)
        if after is not None:
            self.entries[name] = after
            self.freed.discard(name)
        if name in self.taken:
            if after == self._fleet.member(name).running_url:
                self.taken.discard(name)
            return
        member = self._fleet.member(name)
        running = member.running_url
        leaves = before is not None and before in member.host.workloads and before != after and after != running
        if leaves and not (self._holds(name) and name in self.queue):
            self.fail(f"P2: {name}: entry {before} -> {after} without a held turn; what should run is at {running}")

    def _begun(self, slot: Slot) -> None:
        """P16: during a pause only what had its turn before, an operator's way back or a drain takes one."""
        memory = self._fleet.member(slot.instance).machine.memory
        again = slot.update in self._begun_updates or (memory.manual and memory.update == slot.update)
        again = again or (memory.drain is not None and memory.drain.id == slot.update)
        self._begun_updates.add(slot.update)
        if self._fleet.braked and not again:
            self.fail(f"P16: {slot.instance} begins its update to {slot.release} while the rollout is paused")

    def _ended(self, slot: Slot, *, blocked: bool) -> None:
        memory = self._fleet.member(slot.instance).machine.memory
        if not blocked and memory.fault is not None and memory.fault.blame != "release":
            self.reached.get(slot.release, set()).discard(slot.instance)

    def fail(self, problem: str) -> NoReturn:
        """Raise ``Breach``."""
        raise Breach(f"seed {self._fleet.seed}: at {self._fleet.now_s:.3f} s: {problem}")


def at_home(member: "Member") -> bool:
    """Up, awake, and nothing under way."""
    life = member.life
    return member.up and not life.frozen and member.machine.state in ("idle.waiting", "idle.deferred")
