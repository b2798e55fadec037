"""Judges what happened by what etcd went through: every revision of a case, replayed by code that knows no sidekick.

All it knows are the keys of design section 5 and Traefik's: a slot key and a queue key under ``turns/``, a server's
entry (Traefik's, or that for balancer agents), a block. From these it says whether P1, P2, P3 and P5 held at
every single revision.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import msgspec

from outrider.etcd.seam import KeyChanged

TURNS, BLOCK, GONE = "/outrider/v1/turns/", "/outrider/v1/blocks/", "/outrider/v1/gone/"
SERVERS, AGENT_SERVERS = "/loadbalancer/servers/", "/outrider/v1/servers/"
"""Of Traefik, and of the balancers that have an agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds in a case.

    Attributes:
        slots: Turns at once.
        starts_first: The entry may never be absent; else only under a turn.
        instances: All of them; an entry's key names its instance.
        freed: The harness took a turn away, as an operator may: then the verdict comes without a turn to end.
        apps_die: The harness ended apps: whose address is dead may come back at another one without a turn.
        leaves: Instances that an operator removes for good: out under a turn, and then until they are back. Whoever
            takes that turn away as well answers for the time until the next one.
        racks: Instance -> the value of its label, of which at most one may hold a turn; empty: no budget.
    """

    slots: int
    starts_first: bool
    instances: tuple[str, ...]
    freed: bool = False
    apps_die: bool = False
    leaves: frozenset[str] = frozenset()
    racks: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _World:
    """The keys as they are at one revision: key -> (value, create revision)."""

    keys: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    """Instances that were removed for good, until the balancer sends to them again."""

    def look_for_the_gone(self, instances: Iterable[str]) -> None:
        for instance in instances:
            if any(key.startswith(GONE) and key.endswith(f"/{instance}") for key in self.keys):
                self.gone.add(instance)
            elif self.address(instance) is not None:
                self.gone.discard(instance)

    def slot_of(self, instance: str) -> str | None:
        for key, (value, _) in self.keys.items():
            if _is_turn(key) and msgspec.json.decode(value).get("instance") == instance:
                return key
        return None

    def waits(self, instance: str) -> bool:
        return any(key.startswith(TURNS) and key.endswith(f"/queue/{instance}") for key in self.keys)

    def slots(self) -> int:
        return sum(map(_is_turn, self.keys))

    def address(self, instance: str) -> str | None:
        for key, (value, _) in self.keys.items():
            if f"{SERVERS}{instance}/" in key and key.endswith("/url"):
                return value.decode()
            if key.startswith(AGENT_SERVERS) and key.endswith(f"/{instance}/entry"):
                return str(msgspec.json.decode(value)["url"])
        return None


def _is_turn(key: str) -> bool:
    """A slot key; the slots of budgets, which come with a turn and end with it, are none."""
    return key.startswith(TURNS) and "/slots/" in key and "/budgets/" not in key


def audit(before: Mapping[str, bytes], changes: Iterable[KeyChanged], rules: Rules) -> list[str]:
    """Every breach, each with its revision; empty when all promises held.

    Args:
        before: All keys and values right before the first change.
        changes: All changes; those of one revision happened at once.
    """
    world = _World({key: (value, 0) for key, value in before.items()})
    breaches: list[str] = []
    for revision, together in _by_revision(changes):
        was = {instance: world.address(instance) for instance in rules.instances}
        held = {one for one in rules.instances if world.slot_of(one) is not None and world.waits(one)}
        owners = {one for one in rules.instances if world.slot_of(one) is not None}
        for change in together:
            if change.entry is None:
                world.keys.pop(change.key, None)
            else:
                world.keys[change.key] = (change.entry.value, change.entry.create_revision)
        world.look_for_the_gone(rules.leaves)
        ended = {one for one in owners if world.slot_of(one) is None}
        blocks = [change.key for change in together if change.key.startswith(BLOCK) and change.entry is not None]
        lines = [*_turns(world, rules), *_entries(world, rules, was, held), *_blocks(blocks, ended, rules)]
        breaches += [f"revision {revision}: {line}" for line in lines]
    left = sorted(key for key in world.keys if key.startswith(TURNS))
    return [*breaches, f"in the end: left of turns: {', '.join(left)}"] if left else breaches


def _turns(world: _World, rules: Rules) -> Iterator[str]:
    if world.slots() > rules.slots:
        yield f"P1: {world.slots()} turns, and there are {rules.slots} slots"
    out = Counter(rack for instance, rack in rules.racks.items() if world.slot_of(instance) is not None)
    for rack, count in out.items():
        if count > 1:
            yield f"budget: {count} turns in rack {rack}, and at most 1 may be out"


def _entries(world: _World, rules: Rules, before: Mapping[str, str | None], held: set[str]) -> Iterator[str]:
    for instance in rules.instances:
        was, now = before[instance], world.address(instance)
        if was is not None and now is None and instance not in held:
            yield f"P2: {instance} was taken out of the balancer without a valid turn"
        if was is not None and now is not None and was != now and instance not in held and not rules.apps_die:
            yield f"P2: traffic of {instance} was moved from {was} to {now} without a valid turn"
        if instance in world.gone or (rules.freed and instance in rules.leaves):
            continue
        starts_first = rules.starts_first and instance not in rules.leaves
        if now is None and (starts_first or world.slot_of(instance) is None):
            yield f"P3: {instance} is out of the balancer{'' if starts_first else ' without a turn'}"


def _blocks(blocks: Sequence[str], ended: set[str], rules: Rules) -> Iterator[str]:
    for key in blocks:
        if not ended and not rules.freed:
            yield f"P5: {key} was written without the end of a turn: the next one could go before it"


def _by_revision(changes: Iterable[KeyChanged]) -> Iterator[tuple[int, Sequence[KeyChanged]]]:
    for revision, together in groupby(sorted(changes, key=lambda one: one.revision), key=lambda one: one.revision):
        yield revision, tuple(together)
