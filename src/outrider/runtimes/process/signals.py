"""Signals to processes that are surely the ones that were meant, and the wait for their end."""

import os
import select
import signal
import time
from collections.abc import Iterable

from outrider.runtimes.process.identity import Process, open_process


def send(leader: tuple[int, int] | None, members: Iterable[Process], number: signal.Signals) -> None:
    """Send it to the group of ``leader`` while that one lives, which proves that the group is ours, and to each member.

    Args:
        leader: Pid and start time of the workload's first process; None when it has ended.
    """
    reached = 0
    if leader is not None:
        with open_process(*leader) as pidfd:
            if pidfd is not None:
                reached = leader[0]
                try:
                    os.killpg(leader[0], number)
                except ProcessLookupError:
                    reached = 0
    for member in members:
        if member.group == reached:
            continue
        with open_process(member.pid, member.started) as pidfd:
            if pidfd is not None:
                try:
                    signal.pidfd_send_signal(pidfd, number)
                except ProcessLookupError:
                    continue


def wait_for_end(members: Iterable[Process], deadline: float) -> bool:
    """Wait until all of them have ended; False at the deadline (monotonic)."""
    for member in members:
        with open_process(member.pid, member.started) as pidfd:
            if pidfd is not None:
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    return False
    return True
