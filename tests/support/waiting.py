"""Waiting for a fact instead of sleeping for luck."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(fact: Callable[[], T], within_s: float = 10.0, *, every_s: float = 0.01) -> T:
    """Return the first truthy value of ``fact``, or fail with the last one after ``within_s`` seconds.

    An ``AssertionError`` raised by ``fact`` counts as "not yet" and is the failure when time is up.
    """
    deadline = time.monotonic() + within_s
    while True:
        late = time.monotonic() >= deadline
        try:
            value = fact()
        except AssertionError:
            if late:
                raise
        else:
            if value:
                return value
            if late:
                raise AssertionError(f"not true within {within_s} s; the last value was {value!r}")
        time.sleep(every_s)
