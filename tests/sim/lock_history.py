"""What the lock promises, checked on every revision of a store: from the promises, not with the code under test."""

from outrider.etcd.seam import Entry, KeyChanged
from outrider.model.documents import Slot, Target, Waiter, decode
from outrider.model.keys import Keys, group_scope

KEYS = Keys()
APP, GROUP = "shop", "web"
SCOPE = group_scope(APP, GROUP)
TARGET = KEYS.target(APP, GROUP)
TRAFFIC = KEYS.prefix + "/traffic/"


def check_history(history: list[KeyChanged], slots: int) -> int:
    """Replay all revisions and assert P1, P2 and the order of the queue; returns the number of turns taken."""
    state: dict[str, Entry] = {}
    taken = 0
    for revision in sorted({change.revision for change in history}):
        before = dict(state)
        changes = [change for change in history if change.revision == revision]
        for change in changes:
            if change.entry is None:
                state.pop(change.key, None)
            else:
                state[change.key] = change.entry
        turns = {key: _slot(entry) for key, entry in state.items() if key.startswith(KEYS.slots(SCOPE))}
        budget = decode(Target, TARGET, state[TARGET].value).slots if TARGET in state else slots
        assert len(turns) <= slots, f"revision {revision}: {sorted(turns)}"
        owners = [turn.instance for turn in turns.values()]
        assert len(set(owners)) == len(owners), f"revision {revision}: one instance with two turns"
        aim = decode(Target, TARGET, state[TARGET].value) if TARGET in state else None
        racks = [turn.labels.get("rack") for turn in turns.values()]
        if aim is not None and aim.budgets:
            assert len(set(racks)) == len(racks), f"revision {revision}: two out in one rack: {turns}"
            slots_of = [key.removeprefix(KEYS.budgets(SCOPE)) for key in state if key.startswith(KEYS.budgets(SCOPE))]
            assert sorted(f"rack={rack}" for rack in racks) == sorted(key.partition("/")[0] for key in slots_of)
        for key in turns.keys() - before.keys():
            taken += 1
            assert len(turns) <= budget, f"revision {revision}: {len(turns)} turns, {budget} slots"
            # one whose rack has just become free may be passed by who had read that it wasn't: in a rack nobody is
            rack = turns[key].labels.get("rack") if aim is not None and aim.budgets else None
            first = _first_in_line(before, rack)
            assert turns[key].instance == first, f"revision {revision}: {turns[key].instance} overtook {first}"
        for change in changes:
            if change.key.startswith(TRAFFIC) and change.entry is not None:
                name, update = change.entry.value.decode().split()
                assert KEYS.waiter(SCOPE, name) in state, f"revision {revision}: {name} wrote without a lease"
                assert (name, update) in {(t.instance, t.update) for t in turns.values()}, (
                    f"revision {revision}: {name} wrote without a turn"
                )
    return taken


def _slot(entry: Entry) -> Slot:
    return decode(Slot, entry.key, entry.value)


def _first_in_line(state: dict[str, Entry], rack: str | None) -> str | None:
    """Who is next, of those in a rack if there are any."""
    holders = {_slot(entry).instance for key, entry in state.items() if key.startswith(KEYS.slots(SCOPE))}
    waiting = [
        (entry.create_revision, key.removeprefix(KEYS.queue(SCOPE)))
        for key, entry in state.items()
        if key.startswith(KEYS.queue(SCOPE))
        and key.removeprefix(KEYS.queue(SCOPE)) not in holders
        and (rack is None or decode(Waiter, key, entry.value).labels.get("rack") == rack)
    ]
    return min(waiting)[1] if waiting else None
