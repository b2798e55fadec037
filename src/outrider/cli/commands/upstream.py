"""``outrider upstream``: updatectl's verbs for copying from another update service, which is not offered here."""

from collections.abc import Callable

import click

from outrider.cli.main import Group
from outrider.cli.output import fail

_INSTEAD = (
    "this service doesn't copy from another one; "
    "fetch packages with 'package download' there and add them with 'package create bulk' here"
)


@click.group(cls=Group)
def upstream() -> None:
    """Not offered here: each of these verbs says what to do instead, and leaves with 1."""


def _refusal(name: str) -> Callable[..., None]:
    def refuse(words: tuple[str, ...]) -> None:
        fail("unsupported", f"upstream {name}: {_INSTEAD}")

    return refuse


for _name in ("create", "update", "list", "delete", "sync"):
    upstream.add_command(
        click.command(
            _name,
            short_help="Not offered here.",
            help=f"Not offered here: {_INSTEAD}.",
            context_settings={"ignore_unknown_options": True},
        )(click.argument("words", nargs=-1, type=click.UNPROCESSED)(_refusal(_name)))
    )
