"""Names for a shell's completion: apps, groups and instances as the update service has them.

A shell waits for the answer: who can't be asked in time completes nothing, and nothing is said about it.
"""

from collections.abc import Callable

import click

from outrider.core.errors import OutriderError

ANSWER_S = 2.0
"""Longest time for one request: who presses Tab waits for it."""


def complete_address(most: int) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """A completion for ``APP``, ``APP/GROUP`` or ``APP/GROUP/INSTANCE``: so many parts at most."""

    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
        head, slash, _ = begun.rpartition("/")
        parts = head.split("/") if slash else []
        if len(parts) >= most:
            return []
        ends = "" if len(parts) == most - 1 else "/"
        found = [f"{head}{slash}{name}" for name in _names(context, parts)]
        # an app alone is an address, too
        return [f"{one}{end}" for one in found for end in dict.fromkeys(("", ends)) if f"{one}{end}".startswith(begun)]

    return complete


def _names(context: click.Context, parts: list[str]) -> list[str]:
    from outrider.cli.options import client_of

    try:
        service = client_of(context, timeout_s=ANSWER_S)
        match parts:
            case []:
                return sorted(app["id"] for app in service.get_all("apps"))
            case [app]:
                return sorted(group["id"] for group in service.get_all("apps", app, "groups"))
            case [app, group]:
                rows = service.get_all("apps", app, "instances")
                return sorted(row["id"] for row in rows if row["group"] == group)
            case _:
                return []
    except OutriderError:
        return []
