"""An instance moves to another group by its configuration, unless something of the old one is under way."""

import msgspec
import pytest

from outrider.core.errors import ConfigError
from outrider.core.sidekick.memory import Installed, Memory, Release, Turn
from outrider.journal.journal import Record
from outrider.sidekick.loop import _recall
from tests.support.wall_clock import NOON

RUNNING = Installed(
    release=Release(version="1.0.0", urls=("http://x/p",), sha256="1" * 64, size_bytes=1), workload_id="a-1",
    url="http://10.0.0.1:80",
)  # fmt: skip
TURN = Turn(scope="turns/shop/web", number=0, slot_revision=1, waiter_revision=1, update="u")


def settings(group: str = "canary", app: str = "shop", instance: str = "a") -> Memory:
    return Memory(
        instance=instance, app=app, group=group, scope=f"turns/{app}/{group}", strategy="start-first", at=NOON, slots=3
    )


def journal(**facts: object) -> Record:
    memory = Memory(
        instance="a", app="shop", group="web", scope="turns/shop/web", strategy="start-first", at=NOON,
        running=RUNNING, wanted="2.0.0", target_revision=9, group_paused=True, undone="2.0.0", **facts,  # type: ignore[arg-type]
    )  # fmt: skip
    return Record(
        number=1, at=NOON, event={}, source="", target="idle.waiting", refused=(), effects=(), machine={},
        memory=msgspec.to_builtins(memory),
    )  # fmt: skip


def test_it_keeps_what_it_runs_and_forgets_what_the_old_group_wanted() -> None:
    moved = _recall(journal(paused=True), settings())

    assert (RUNNING, "canary", "turns/shop/canary", True) == (moved.running, moved.group, moved.scope, moved.paused)
    assert (None, 0, False, None, 3) == (
        moved.wanted, moved.target_revision, moved.group_paused, moved.undone, moved.slots,
    )  # fmt: skip


def test_in_the_same_group_nothing_is_forgotten() -> None:
    same = _recall(journal(), settings("web"))

    assert ("2.0.0", 9, True) == (same.wanted, same.target_revision, same.group_paused)


@pytest.mark.parametrize(
    ("facts", "why"),
    [({"update": "u"}, "an update is under way"), ({"turn": TURN}, "it still holds a turn")],
)
def test_with_something_under_way_it_says_what_to_do(facts: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=f"was in 'web', and {why}; go back to that group, let it end"):
        _recall(journal(**facts), settings())


@pytest.mark.parametrize("other", [settings("web", app="mail"), settings("web", instance="b")])
def test_the_folder_of_another_instance_or_app_is_refused(other: Memory) -> None:
    with pytest.raises(ConfigError, match="give each instance its own folder"):
        _recall(journal(), other)
