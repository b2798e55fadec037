"""What a test needs of the machine: without it the test is skipped with its reason, or fails where CI must prove it."""

import os
from typing import NoReturn

import pytest


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test that calls this; with ``CI=true`` fail it, so that nothing goes unproved unseen."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"CI must run this test: {reason}")
    pytest.skip(reason)
