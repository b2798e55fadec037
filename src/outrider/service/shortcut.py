"""Check-ins that change nothing, answered where they were read from the connection, before any task is made for them.

The same limits hold as in the inlet, and the same code judges. Whatever is refused, or can't be answered at once, goes
the whole way.
"""

import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import Scope

from outrider.service.inlet import ClientRules
from outrider.service.omaha.quick import QuickEndpoint

ROUTE = "/v1/update"
_XML = b"content-type: text/xml\r\n"


class CheckinShortcut:
    """Implements ``http1.Shortcut``."""

    def __init__(self, rules: ClientRules, quick: QuickEndpoint, observe: Callable[[float], None]) -> None:
        """``observe``: is told the seconds that each answer took."""
        self._rules, self._quick, self._observe = rules, quick, observe

    def is_for(self, scope: Scope) -> bool:
        """Whether this is a check-in, by method, address and length."""
        return self._quick.is_for(scope)

    def answer(self, scope: Scope, body: bytes) -> tuple[int, bytes, bytes] | None:
        """Answer a check-in; None: it takes the whole way."""
        began, headers = time.monotonic(), Headers(scope=scope)
        self._rules.find_client(scope, headers)
        if self._rules.wait_s(scope, ROUTE):
            return None  # the inlet says so
        text = self._quick.at_once(scope, headers, body)
        if text is None:
            return None
        self._observe(time.monotonic() - began)
        return 200, _XML, text
