"""Check-ins, answered below the application: at once where nothing changes, else when their batch is committed.

The same limits hold as in the inlet, and the same code judges. Whatever is refused, or isn't the usual, goes the whole
way.
"""

import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import Scope

from outrider.service.http1 import Answer, Pending
from outrider.service.inlet import ClientRules
from outrider.service.omaha.quick import QuickEndpoint

ROUTE = "/v1/update"


class CheckinShortcut:
    """Implements ``http1.Shortcut``."""

    def __init__(self, rules: ClientRules, quick: QuickEndpoint, observe: Callable[[int, float], None]) -> None:
        """``observe``: is told the status of each answer, and the seconds that it took."""
        self._rules, self._quick, self._observe = rules, quick, observe

    def is_for(self, scope: Scope) -> bool:
        """Whether this is a check-in, by method, address and length."""
        return self._quick.is_for(scope)

    def answer(self, scope: Scope, body: bytes, pending: Pending) -> Answer | Pending | None:
        """Answer a check-in, now or later; None: it takes the whole way."""
        began, headers = time.monotonic(), Headers(scope=scope)
        self._rules.find_client(scope, headers)
        if self._rules.wait_s(scope, ROUTE):
            return None  # the inlet says so

        def done(answer: Answer | None) -> None:
            if answer is not None:
                self._observe(answer[0], time.monotonic() - began)
            pending.tell(answer)

        found = self._quick.begin(scope, headers, body, pending, done)
        if isinstance(found, bool):
            return pending
        if found is not None:
            self._observe(found[0], time.monotonic() - began)
        return found
