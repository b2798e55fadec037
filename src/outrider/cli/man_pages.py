"""Manual pages in roff (man:man(7)), made of what click knows of each command."""

from collections.abc import Iterator

import click

from outrider import __version__


def pages(root: click.Context) -> Iterator[tuple[str, str]]:
    """Name and text of every page: ``outrider``, ``outrider-app``, ``outrider-app-create`` and so on."""
    for context in _contexts(root):
        yield context.command_path.replace(" ", "-"), _page(context)


def page_of(root: click.Context, words: tuple[str, ...]) -> str | None:
    """The page of one command; None when there is none."""
    context = root
    for word in words:
        found = context.command.get_command(context, word) if isinstance(context.command, click.Group) else None
        if found is None:
            return None
        context = _below(context, word, found)
    return _page(context)


def _contexts(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None and not command.hidden:
                yield from _contexts(_below(context, name, command))


def _below(context: click.Context, name: str, command: click.Command) -> click.Context:
    return click.Context(command, info_name=name, parent=context, **command.context_settings)


def _page(context: click.Context) -> str:
    return "\n".join(_lines(context)) + "\n"


def _lines(context: click.Context) -> Iterator[str]:
    command, path = context.command, context.command_path
    first, *rest = _paragraphs(command.help or command.short_help or "")
    yield f'.TH "{path.replace(" ", "-").upper()}" "1" "" "outrider {__version__}" "outrider"'
    yield ".SH NAME"
    yield f"{_text(path.replace(' ', '-'))} \\- {_text(first.rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {_text(path)}"
    yield _text(" ".join(command.collect_usage_pieces(context)))
    yield ".SH DESCRIPTION"
    for number, paragraph in enumerate((first, *rest)):
        if number:
            yield ".PP"
        yield _text(paragraph)
    options = [record for one in command.get_params(context) if (record := one.get_help_record(context)) is not None]
    if options:
        yield ".SH OPTIONS"
        for names, help_text in options:
            yield ".TP"
            yield f".B {_text(names)}"
            yield _text(help_text)
    if command.epilog:
        yield ".SH ENVIRONMENT"
        yield _text(command.epilog)
    if isinstance(command, click.Group):
        yield ".SH COMMANDS"
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield ".TP"
                yield f".BR {_text(f'{path} {name}'.replace(' ', '-'))} (1)"
                yield _text(inner.get_short_help_str(200))
    if context.parent is not None:
        yield ".SH SEE ALSO"
        yield f".BR {_text(context.parent.command_path.replace(' ', '-'))} (1)"


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.strip().split("\n\n")] or [""]


def _text(text: str) -> str:
    """Text in which roff sees no command and no escape."""
    escaped = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
