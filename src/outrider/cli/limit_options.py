"""The options of ``serve`` that set its limits, one for each."""

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar, cast

import click

from outrider.service.limits import NAMES, Limits, checked, option_of

F = TypeVar("F", bound=Callable[..., Any])


def limit_options(command: F) -> F:
    """Add an option for each limit; the command gets them as ``limits``."""

    @functools.wraps(command)
    def with_limits(*arguments: Any, **options: Any) -> Any:
        limits = checked(Limits(**{name: options.pop(name) for name in NAMES}))
        return command(*arguments, limits=limits, **options)

    decorated: Any = with_limits
    for each in reversed(fields(Limits)):
        decorated = click.option(
            option_of(each.name), type=int, default=each.default, show_default=True, help=each.metadata["help"]
        )(decorated)
    return cast(F, decorated)
