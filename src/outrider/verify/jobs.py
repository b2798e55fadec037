"""Several processes for one list of tasks, with the results in the list's order."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Run:
    """One task in a process of its own."""

    def __init__(self, work: Callable[[T], Iterable[R]], task: T) -> None:
        # a fork has all modules and the chart already; there are no threads here that it could catch at a bad moment
        context = multiprocessing.get_context("fork")
        self.receiving, sending = context.Pipe(duplex=False)
        self.process: BaseProcess = context.Process(target=_work, args=(work, task, sending), daemon=True)
        self.results: deque[Any] = deque()
        self.error: Exception | None = None
        self.is_done = False
        self.process.start()
        sending.close()

    def receive(self) -> None:
        """Take in what it has sent."""
        try:
            kind, answer = self.receiving.recv()
        except EOFError:
            self.process.join()
            message = f"a process of the model checker ended without an answer (exit status {self.process.exitcode})"
            kind, answer = "error", RuntimeError(message)
        if kind == "result":
            self.results.append(answer)
        else:
            self.error, self.is_done = answer, True
            self.end()

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.receiving.close()


def in_processes(work: Callable[[T], Iterable[R]], tasks: Sequence[T], jobs: int) -> Iterator[R]:
    """The results of each task, as they come, in the order of ``tasks``; with one job without a process.

    What a task needs of memory is free again when it is done. Whoever stops asking ends those that are still at work.

    Raises:
        Whatever ``work`` raised, behind the results of that task that came before.
        RuntimeError: a process ended without an answer; it may have been killed for want of memory.
    """
    if jobs < 2 or len(tasks) < 2:
        for task in tasks:
            yield from work(task)
        return
    runs: list[_Run] = []
    try:
        for place in range(len(tasks)):
            while True:
                while len(runs) < len(tasks) and sum(not run.is_done for run in runs) < jobs:
                    runs.append(_Run(work, tasks[len(runs)]))
                yield from _taken(runs[place])
                if runs[place].is_done:
                    break
                for ready in wait([run.receiving for run in runs if not run.is_done]):
                    next(run for run in runs if run.receiving is ready).receive()
            if (error := runs[place].error) is not None:
                raise error
    finally:
        for run in runs:
            if not run.is_done:
                run.end()


def _taken(run: _Run) -> Iterator[Any]:
    while run.results:
        yield run.results.popleft()


def _work(work: Callable[[T], Iterable[R]], task: T, sending: Connection) -> None:
    try:
        for result in work(task):
            sending.send(("result", result))
        sending.send(("done", None))
    except Exception as error:  # noqa: BLE001 - handed to the parent, which raises it
        sending.send(("error", error))
