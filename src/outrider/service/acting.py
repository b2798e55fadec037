"""Who does what a request asks for: known to whatever runs on its behalf, without being handed from call to call.

The gate sets it for every request of the API. Omaha's check-ins have none: an instance is nobody's act.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from outrider.cluster.documents import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts.

    Attributes:
        name: The user's; in parentheses, which no user's name has, when there are no users to be.
        address: The client's IP address; empty when unknown.
    """

    name: str
    role: Role
    address: str = ""

    @property
    def is_user(self) -> bool:
        """Somebody with a token."""
        return not self.name.startswith("(")


@dataclass(slots=True, kw_only=True)
class Act:
    """One request on its way through the service.

    Attributes:
        did: Method and path.
        request_id: Unique; the client's own when it sent one.
    """

    actor: Actor
    did: str
    request_id: str


_CURRENT: ContextVar[Act | None] = ContextVar("act", default=None)


def current_act() -> Act | None:
    """The act that the calling code serves; None outside the API."""
    return _CURRENT.get()


@contextmanager
def acting(act: Act) -> Iterator[None]:
    """Make ``act`` the current one, for this task and the threads that it hands work to."""
    before = _CURRENT.set(act)
    try:
        yield
    finally:
        _CURRENT.reset(before)
