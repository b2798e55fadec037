"""What the activity says of tasks."""

import msgspec
import pytest

from outrider.model.keys import Keys
from outrider.model.tasks import Task
from outrider.service.history.activity import Shift, tell
from outrider.service.history.recorder import watched_key_of
from tests.support.service_examples import APP, lost_task
from tests.support.wall_clock import NOON

RUNNING = lost_task("warm", NOON, kind="post", state="running", why="")


def told(before: Task | None, after: Task | None) -> list[tuple[str, str, str]]:
    shift = Shift(app=APP, name="warm", before=before, after=after, known=True, at=NOON)
    return [(one.severity, one.kind, one.instance) for one in tell(shift)]


@pytest.mark.parametrize(
    ("state", "event"),
    [
        ("done", [("success", "task-done", "web-1")]),
        ("failed", [("error", "task-failed", "web-1")]),
        ("unknown", [("error", "task-unknown", "web-1")]),
        ("due", []),
    ],
)
def test_the_end_of_a_task_is_told(state: str, event: list[tuple[str, str, str]]) -> None:
    assert event == told(RUNNING, msgspec.structs.replace(RUNNING, state=state, ended=NOON))


def test_its_beginning_is_told_once_and_its_removal_never() -> None:
    due = msgspec.structs.replace(RUNNING, state="due", instance="")

    assert [("info", "task-started", "web-1")] == told(due, RUNNING) == told(None, RUNNING)
    assert [] == told(RUNNING, msgspec.structs.replace(RUNNING, why="another text"))
    assert [] == told(RUNNING, None)


def test_a_failure_says_how_it_goes_on() -> None:
    failed = msgspec.structs.replace(RUNNING, state="failed", why="exit 3")
    (event,) = tell(Shift(app=APP, name="warm", before=RUNNING, after=failed, known=True, at=NOON))

    assert event.text.startswith("task warm of 1.0.0 failed on web-1: exit 3; `outrider task retry` runs it again")


def test_the_keys_of_tasks_are_watched() -> None:
    keys = Keys()

    watched = watched_key_of(keys, keys.task(APP, "", "1" * 64, "warm"))

    assert watched is not None
    assert (Task, APP, "warm") == (watched.kind, watched.app, watched.name)
