"""A journal that can't be written stops all acting, and the fleet is told why."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from outrider.core.sidekick.effects import NOUNS
from outrider.core.sidekick.memory import Memory
from outrider.core.sidekick.rules import make_rules
from outrider.journal.journal import Journal, JournalError
from outrider.model.documents import Presence
from outrider.sd_notify import Notifier
from outrider.sidekick import loop
from outrider.sidekick.loop import Sidekick
from outrider.statechart import load_sidekick_chart

MEMORY = Memory(
    instance="a", app="app", group="g", scope="turns/app/g", strategy="start-first", at=datetime(2026, 6, 1, tzinfo=UTC)
)


class FullJournal:
    """A journal on a full disk, which has room again after so many tries."""

    last = None

    def __init__(self, tries: int) -> None:
        self.tries, self.written = tries, list[Any]()

    def append(self, record: Any) -> None:
        self.tries -= 1
        if self.tries >= 0:
            raise JournalError("/x/journal.jsonl: No space left on device")
        self.written.append(record)
        raise KeyboardInterrupt  # far enough: the step is written


@pytest.mark.parametrize("tries", [1, 2, 5])
def test_whoever_stands_still_is_not_missing_and_goes_on_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch, tries: int
) -> None:
    monkeypatch.setattr(loop, "JOURNAL_RETRY_S", 0.0)
    shown, performed, journal = list[Presence](), list[Any](), FullJournal(tries)
    sidekick = Sidekick(
        load_sidekick_chart(), make_rules({}), MEMORY, cast(Journal, journal),
        nouns={noun: lambda effect, request: performed.append(effect) for noun in NOUNS},
        show=shown.append, consumed=lambda command: None, notifier=Notifier.from_environment({}),
    )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        sidekick.run()

    assert 1 == len(journal.written)
    assert [] == performed, "nothing is done that isn't written down"
    (told,) = shown
    assert told.why.startswith("stands still until its journal can be written: /x/journal.jsonl: No space left")
    assert "make room on that disk" in told.why
