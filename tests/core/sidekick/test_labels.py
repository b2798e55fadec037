"""The labels of an instance are frozen while it holds a turn."""

from dataclasses import replace

from outrider.core.sidekick.memory import Memory, Turn, with_settings
from tests.support.wall_clock import NOON

MEMORY = Memory(
    instance="a", app="shop", group="web", scope="turns/shop/web", strategy="start-first", at=NOON,
    labels=(("rack", "1"),),
)  # fmt: skip
TURN = Turn(scope="turns/shop/web", number=0, slot_revision=7, waiter_revision=6, update="u", labels=(("rack", "1"),))


def test_new_labels_count_once_the_turn_has_ended() -> None:
    """
    1. the sidekick holds a turn, and starts again with other labels
    2. the turn ends
    """
    restarted = with_settings(replace(MEMORY, turn=TURN), replace(MEMORY, labels=(("rack", "2"),)))

    assert (("rack", "1"),) == restarted.labels_now
    assert (("rack", "2"),) == replace(restarted, turn=None).labels_now
