"""``outrider help``: the same as ``--help``, for users of updatectl."""

import click

from outrider.cli.main import Group


@click.command("help")
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
@click.pass_context
def help_command(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command."""
    place = context.find_root()
    for word in words:
        command = place.command
        found = command.get_command(place, word) if isinstance(command, click.Group) else None
        if found is None:
            if not isinstance(command, Group):
                raise click.UsageError(f"'{place.command_path}' has no commands below it")
            command.refuse(place, word)
        place = click.Context(found, info_name=word, parent=place)
    click.echo(place.command.get_help(place))
