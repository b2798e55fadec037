"""Long lists, a page at a time.

A page ends with a token that says after which item the next page begins. The token names that item, not a number of
items, so additions and removals between two pages neither repeat nor hide other items.
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

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="The largest number of items.")]
After = Annotated[str | None, Query(max_length=1000, description="`next` of the previous page; use the same filters.")]


def token_of(position: str) -> str:
    """The token that the client gets for a position."""
    return base64.urlsafe_b64encode(position.encode()).decode("ascii").rstrip("=")


def position_of(token: str | None) -> str | None:
    """The position that a token stands for; None for the first page.

    Raises:
        ConfigError: it is not a token of this service.
    """
    if token is None:
        return None
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"after {token!r}: not the `next` of a page") from error


def page_of(
    items: Iterable[T],
    *,
    limit: int,
    after: str | None,
    name: Callable[[T], str],
    rank: Callable[[str], object] = lambda position: position,
    descending: bool = False,
) -> tuple[list[T], str | None]:
    """Take one page of a list.

    Args:
        items: All items, in their order.
        limit: The largest number of items.
        after: Token of the previous page; None for the first page.
        name: The unique name of an item.
        rank: The sort key, from an item's name.
        descending: The list is sorted from the greatest to the least.

    Returns:
        The page, and the token of the next page; None for the last page.

    Raises:
        ConfigError: ``after`` is not a token of this service.
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
