"""Waiting for a fact instead of sleeping for luck.

A deadline here is no promise of the product: it says when to give up on a machine that others use. A test that is
about how soon something happens compares times itself, and says so.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import requests

from outrider.core.errors import Unknown

T = TypeVar("T")

PATIENCE_S = 60.0
"""Several times what any fact of these tests takes on a machine with five times more work than cores."""

NO_ANSWER = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    ConnectionError,
    TimeoutError,
    Unknown,
)
"""The test's own question got no answer: that says nothing about the fact, so it is asked again."""


def eventually(fact: Callable[[], T], within_s: float = PATIENCE_S, *, every_s: float = 0.01) -> T:
    """Return the first truthy value of ``fact``, or fail with the last one after ``within_s`` seconds.

    An ``AssertionError`` raised by ``fact`` counts as "not yet" and is the failure when time is up. So does a question
    that got no answer (``NO_ANSWER``).
    """
    deadline = time.monotonic() + within_s
    while True:
        late = time.monotonic() >= deadline
        try:
            value = fact()
        except (AssertionError, *NO_ANSWER):
            if late:
                raise
        else:
            if value:
                return value
            if late:
                raise AssertionError(f"not true within {within_s} s; the last value was {value!r}")
        time.sleep(every_s)
