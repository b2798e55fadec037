"""Long lists, a page at a time.

A page ends with a token that says after which item the next one begins. It names that item, not a number of items: what
is added or removed meanwhile makes nobody else be seen twice or never.
"""

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

from fastapi import Query

from outrider.core.errors import ConfigError

T = TypeVar("T")

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="At most so many items.")]
After = Annotated[
    str | None, Query(max_length=1000, description="`next` of the page before; its filters must be the same.")
]


def token_of(position: str) -> str:
    """What the client gets for a position."""
    return base64.urlsafe_b64encode(position.encode()).decode("ascii").rstrip("=")


def position_of(token: str | None) -> str | None:
    """The position that a token stands for; None for the first page.

    Raises:
        ConfigError: it isn't a token of ours.
    """
    if token is None:
        return None
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"after {token!r}: isn't the `next` of a page") from error


def page_of(
    items: Iterable[T],
    *,
    limit: int,
    after: str | None,
    name: Callable[[T], str],
    rank: Callable[[str], object] = lambda position: position,
    descending: bool = False,
) -> tuple[list[T], str | None]:
    """Cut a page out of a list.

    Args:
        items: In their order, all of them.
        limit: At most so many.
        after: Token of the page before, None for the first.
        name: What an item is known by in the list.
        rank: What the list is ordered by, from an item's name.
        descending: It is ordered from the greatest to the least.

    Returns:
        The page, and the token of the next one; None when this is the last.

    Raises:
        ConfigError: ``after`` isn't a token of ours.
    """
    position = position_of(after)
    page: list[T] = []
    for item in items:
        if position is not None and not _comes_after(rank(name(item)), rank(position), descending):
            continue
        if len(page) == limit:
            return page, token_of(name(page[-1]))
        page.append(item)
    return page, None


def _comes_after(one: object, other: object, descending: bool) -> bool:
    least, greatest = (one, other) if descending else (other, one)
    return bool(least < greatest)  # type: ignore[operator]
