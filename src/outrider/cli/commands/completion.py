"""``outrider completion``: what a shell needs to complete our commands and options."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    For bash: outrider completion bash > ~/.local/share/bash-completion/completions/outrider
    """
    kind = get_completion_class(shell)
    assert kind is not None, shell
    root = context.find_root()
    click.echo(kind(root.command, {}, "outrider", "_OUTRIDER_COMPLETE").source())
