"""Tasks of a package: how they are written, what is refused, and how often each runs."""

import pytest

from outrider.core.errors import ConfigError
from outrider.core.release import ReleaseId
from outrider.core.tasks import MAX_TASKS, TaskSpec, check_tasks, task_of

PRE = TaskSpec(name="pre", kind="pre", command=("bin/migrate", "up"))


@pytest.mark.parametrize(
    ("text", "name", "command"),
    [
        ("pre=bin/migrate up", "pre", ("bin/migrate", "up")),
        ("pre:migrate=bin/migrate --url='a b'", "migrate", ("bin/migrate", "--url=a b")),
        ("pre=/usr/local/bin/backup", "pre", ("/usr/local/bin/backup",)),
    ],
)
def test_a_task_is_written_as_a_kind_with_its_command(text: str, name: str, command: tuple[str, ...]) -> None:
    task = task_of(text)

    assert (name, "pre", command) == (task.name, task.kind, task.command)


@pytest.mark.parametrize(
    ("text", "said"),
    [("pre", "write KIND=COMMAND"), ("later=x", "with a kind of pre"), ("pre='x", "No closing quotation")],
)
def test_what_is_no_task_is_refused_with_how_to_write_one(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        task_of(text)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (TaskSpec(name="Pre!", kind="pre", command=("x",)), "1 to 40 lower-case"),
        (TaskSpec(name="pre", kind="pre", command=()), "names no program"),
        (TaskSpec(name="pre", kind="pre", command=("x\0",)), "without NUL"),
        (TaskSpec(name="pre", kind="pre", command=("x",), limit_s=0.5), "a time limit is 1 s to 24 h"),
    ],
)
def test_a_task_that_cannot_be_run_is_refused(task: TaskSpec, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_tasks([task])


def test_two_tasks_of_one_name_and_too_many_are_refused() -> None:
    with pytest.raises(ConfigError, match="two tasks have this name"):
        check_tasks([PRE, PRE])
    with pytest.raises(ConfigError, match="at most 16"):
        check_tasks(TaskSpec(name=f"t{n}", kind="pre", command=("x",)) for n in range(MAX_TASKS + 1))


def test_an_image_has_tasks_of_the_machine_only() -> None:
    with pytest.raises(ConfigError, match="name a program of the machine"):
        check_tasks([PRE], is_image=True)
    on_machine = TaskSpec(name="pre", kind="pre", command=("/usr/local/bin/migrate",))

    assert (on_machine,) == check_tasks([on_machine], is_image=True)


def test_a_task_runs_once_per_payload_unless_it_says_per_release() -> None:
    first = ReleaseId(version="2.0.0", environment=1, environment_digest="1" * 64)
    second = ReleaseId(version="2.0.0", environment=2, environment_digest="2" * 64)
    each = TaskSpec(name="pre", kind="pre", command=("x",), per="release")

    assert PRE.part(first, "g") == PRE.part(second, "g") == "pre"
    assert len({each.part(first, "g"), each.part(second, "g"), each.part(first, "other")}) == 3
