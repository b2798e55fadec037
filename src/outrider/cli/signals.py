"""Commands that run until they are ended."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from outrider.cli.commands.sidekick import on_signals

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop``, from another thread, when SIGTERM or Ctrl-C comes; afterwards they do what they did before."""
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    on_signals(_NUMBERS, stop)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, action in before.items():
            signal.signal(number, action)
