"""The bar that `rollout watch` shows while a rollout goes on, on a terminal only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[int], object]


@contextmanager
def rollout_bar(label: str, instances: int) -> Iterator[Tell]:
    """Show how many of a group's instances are updated; call what is yielded with that number.

    Nothing is shown where stdout or stderr isn't a terminal, without ``rich``, and for a group without instances.
    """
    if not instances or not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield lambda _: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    except ModuleNotFoundError:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        bar = shown.add_task(label, total=instances)
        yield lambda updated: shown.update(bar, completed=min(updated, instances))
