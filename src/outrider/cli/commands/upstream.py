"""``outrider upstream``: updatectl's verbs for copying from another update service, which is not offered here."""

from collections.abc import Callable

import click

from outrider.cli.main import Group
from outrider.cli.output import fail

_INSTEAD = (
    "outrider doesn't copy from another update service; "
    "run `package download` against that service and `package create bulk` here"
)


@click.group(cls=Group)
def upstream() -> None:
    """Not supported: each of these commands prints what to do instead and exits with 1."""


def _refusal(name: str) -> Callable[..., None]:
    def refuse(words: tuple[str, ...]) -> None:
        fail(f"upstream {name}: {_INSTEAD}")

    return refuse


for _name in ("create", "update", "list", "delete", "sync"):
    upstream.add_command(
        click.command(
            _name,
            short_help="Not supported.",
            help=f"Not supported: {_INSTEAD}.",
            context_settings={"ignore_unknown_options": True},
        )(click.argument("words", nargs=-1, type=click.UNPROCESSED)(_refusal(_name)))
    )
