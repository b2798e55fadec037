"""Tasks of a package on the command line."""

import pytest

from outrider.cli.task_options import given_tasks
from outrider.core.errors import ConfigError


def test_each_option_is_about_the_task_that_it_names() -> None:
    first, second = given_tasks(
        ["pre=bin/migrate up", "pre:warm=/usr/bin/warm"], ["pre=15min"], ["warm"], ["pre"], ["warm"]
    )

    assert ("pre", ["bin/migrate", "up"], 900.0, False, "release", "group") == tuple(
        first[name] for name in ("name", "command", "limit_s", "repeatable", "per", "scope")
    )
    assert ("warm", ["/usr/bin/warm"], 600.0, True, "payload", "app") == tuple(
        second[name] for name in ("name", "command", "limit_s", "repeatable", "per", "scope")
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limits": ["later=5min"]}, "--task-limit later: no --task has this name; there is pre"),
        ({"limits": ["pre=soon"]}, "--task-limit pre=soon: write NAME=TIME"),
        ({"repeatable": ["x"]}, "--task-repeatable x: no --task has this name"),
        ({"limits": ["pre=48h"]}, "a time limit is 1 s to 24 h"),
    ],
)
def test_an_option_that_fits_no_task_is_refused(options: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        given_tasks(["pre=x"], **options)
