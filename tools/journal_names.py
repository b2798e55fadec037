"""The one map by which the recorded journals of tests/data/journals were renamed: old name -> new, nothing else.

``python tools/journal_names.py FILE...`` rewrites journals in place; a line that holds no old name stays as it is.
"""

import json
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = {
    # events
    "poison.changed": "block.changed",
    "summons.received": "wakeup.received",
    "revive.due": "restart.due",
    "condemn.expired": "block.expired",
    # effects
    "lock.condemn": "lock.block",
    "workload.revive": "workload.restart",
    # states
    "idle.ailing": "idle.degraded",
    "idle.held": "idle.deferred",
    "swapping.reviving": "swapping.restarting",
    "rollback.condemning": "rollback.blocking",
    # guards
    "has_fallen": "is_down",
    "has_candidate_fallen": "is_candidate_down",
    "is_candidate_poisoned": "is_candidate_blocked",
    "is_declined": "is_undone",
    "must_revive": "must_restart",
    # timers
    "condemn": "block",
    "poll-held": "poll-deferred",
    "revive": "restart",
}
"""Values: names of events, effects, states, guards and timers. A guard may have a ``!`` before it."""

FIELDS = {
    "candidate_fallen": "candidate_down",
    "declined": "undone",
    "fallen": "down",
    "held_reason": "deferred_reason",
    "place": "queue_position",
    "poisoned": "blocked",
    "was_ailing": "was_degraded",
}
"""Keys of the memory."""

GONE = frozenset({"turn_held"})
"""Keys of the memory that are no more."""

_NOT_REFUSED = re.compile(r"\S+ was offered and not taken: it isn't newer than what runs")
"""What the memory gave as the reason for deferring every release, also for one that was taken: it has none now."""

_NAMED = ("name", "source", "target", "refused", "effect_name", "event", "state", "id")


def renamed(record: dict[str, Any]) -> dict[str, Any]:
    """A journal's record with today's names; everything else is as it was, in the same order."""
    out = {key: _names(value) if key in ("source", "target", "refused") else value for key, value in record.items()}
    out["event"] = _named(record["event"])
    out["effects"] = [_named(effect) for effect in record["effects"]]
    out["machine"] = _machine(record["machine"])
    memory = {FIELDS.get(key, key): value for key, value in record["memory"].items() if key not in GONE}
    memory["deferred_reason"] = _NOT_REFUSED.sub("", memory["deferred_reason"])
    out["memory"] = dict(sorted(memory.items()))
    return out


def renamed_line(line: str, checksum: Callable[[bytes], int] = zlib.crc32) -> str:
    """One line of a journal (``checksum record``), its checksum made anew."""
    _, _, text = line.partition(" ")
    body = json.dumps(renamed(json.loads(text)), separators=(",", ":"), ensure_ascii=False)
    return f"{checksum(body.encode()):08x} {body}"


def _names(value: Any) -> Any:
    if isinstance(value, str):
        bare = value.removeprefix("!")
        return value[: len(value) - len(bare)] + NAMES.get(bare, bare)
    return [_names(one) for one in value] if isinstance(value, list) else value


def _named(thing: dict[str, Any]) -> dict[str, Any]:
    return {key: _names(value) if key in _NAMED else value for key, value in thing.items()}


def _machine(machine: dict[str, Any]) -> dict[str, Any]:
    out = dict(machine)
    out["history"] = {_names(key): _names(value) for key, value in machine["history"].items()}
    out["outstanding"] = [_named(one) for one in machine["outstanding"]]
    out["state"] = _names(machine["state"])
    out["timers"] = sorted((_named(one) for one in machine["timers"]), key=lambda timer: str(timer["id"]))
    return out


def main() -> None:
    """Rewrite the files that are named."""
    for name in sys.argv[1:]:
        path = Path(name)
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("".join(f"{renamed_line(line)}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
