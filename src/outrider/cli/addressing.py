"""One way to address things in all commands: ``APP``, ``APP/GROUP``, ``APP/GROUP/INSTANCE``.

``--app-id`` and ``--group-id`` say the same, as updatectl has them; what neither says is taken from the context.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from outrider.cli import contexts
from outrider.cli.names import complete_address

F = TypeVar("F", bound=Callable[..., Any])
PLACE = "outrider.address"
"""Where a command's address is kept in click's context."""
_PARTS = ("app", "group", "instance")


def split(text: str, most: int) -> tuple[str, ...]:
    """The parts of an address.

    Raises:
        click.UsageError: it has more than ``most`` parts, or an empty one.
    """
    parts = tuple(text.strip("/").split("/"))
    if len(parts) > most or not all(parts):
        form = "/".join(part.upper() for part in _PARTS[:most])
        raise click.UsageError(f"{text!r} is no address: write {form}")
    return parts


def from_context(name: str) -> str | None:
    """What the chosen context says of ``app`` or ``group``."""
    context = click.get_current_context(silent=True)
    return contexts.value(name, wanted_context(context))


def wanted_context(context: click.Context | None) -> str:
    """The value of ``outrider --context``; empty when it wasn't given."""
    wanted = context.find_root().params.get("context") if context is not None else None
    return wanted if isinstance(wanted, str) else ""


class AddressOption(click.Option):
    """``--app-id`` or ``--group-id``: when it isn't given, the address before it or the context says it.

    Args:
        part: ``app`` or ``group``.
        needed: Whether the command can't do without; else nothing is taken from the context.
        contextual: Whether the context may say it; not where it would be removed, or made.
    """

    def __init__(self, *arguments: Any, part: str, needed: bool, contextual: bool = True, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.part, self.needed, self.contextual = part, needed, contextual

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """As click has it, with what the address or the context says."""
        given = super().process_value(ctx, value)
        said = given if isinstance(given, str) else None
        addressed = ctx.meta.get(PLACE, {}).get(self.part)
        if said and addressed and said != addressed:
            raise click.UsageError(f"{self.opts[0]} says {said!r}, and the address says {addressed!r}")
        found = said or addressed or (from_context(self.part) if self.needed and self.contextual else None)
        if found is None and self.needed and not ctx.resilient_parsing:
            raise click.MissingParameter(ctx=ctx, param=self)
        return found


def _keep(ctx: click.Context, param: click.Parameter, text: str | None) -> None:
    if text:
        most = 2 if any(isinstance(one, AddressOption) and one.part == "group" for one in ctx.command.params) else 1
        ctx.meta[PLACE] = dict(zip(_PARTS, split(text, most), strict=False))


def app_option(help: str, *, needed: bool = True, contextual: bool = True) -> Callable[[F], F]:
    """Add ``--app-id`` and the address ``APP`` (``APP/GROUP`` where ``group_option`` is added, too)."""
    required = "  [required]" if needed else ""

    def add(command: F) -> F:
        option = click.option(
            "--app-id",
            cls=AddressOption,
            part="app",
            needed=needed,
            contextual=contextual,
            help=f"{help}{required}",
            shell_complete=complete_address(1),
        )
        known = getattr(command, "__click_params__", [])
        with_group = any(isinstance(one, AddressOption) and one.part == "group" for one in known)
        address = click.argument(
            "address",
            metavar="[APP[/GROUP]]" if with_group else "[APP]",
            required=False,
            is_eager=True,
            expose_value=False,
            callback=_keep,
            shell_complete=complete_address(2 if with_group else 1),
        )
        return address(option(command))

    return add


def group_option(help: str, *, needed: bool = True) -> Callable[[F], F]:
    """Add ``--group-id``; write it below ``app_option``."""
    required = "  [required]" if needed else ""
    return click.option("--group-id", cls=AddressOption, part="group", needed=needed, help=f"{help}{required}")


def instance_address(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let the command take ``APP INSTANCE``, ``APP/GROUP/INSTANCE``, or ``INSTANCE`` of the context's app.

    The command gets them as ``app`` and ``name``.
    """

    def with_address(*arguments: Any, address: tuple[str, ...], **options: Any) -> Any:
        app, name = _instance(address)
        return command(*arguments, app=app, name=name, **options)

    decorated: Any = functools.update_wrapper(with_address, command)
    argument = click.argument(
        "address", metavar="[APP] INSTANCE", nargs=-1, required=True, shell_complete=complete_address(3)
    )
    wrapped: Callable[..., Any] = argument(decorated)
    return wrapped


def _instance(words: tuple[str, ...]) -> tuple[str, str]:
    """The app and the name of an instance.

    Raises:
        click.UsageError: it is neither of the forms, or no app is named.
    """
    if len(words) == 2 and not any("/" in word for word in words):
        return words[0], words[1]
    if len(words) == 1:
        parts = split(words[0], 3)
        if len(parts) > 1:
            return parts[0], parts[-1]
        app = from_context("app")
        if app is None:
            raise click.UsageError(f"which app is {parts[0]!r} of? Write APP INSTANCE or APP/GROUP/INSTANCE")
        return app, parts[0]
    raise click.UsageError(f"{' '.join(words)!r} is no instance: write APP INSTANCE or APP/GROUP/INSTANCE")
