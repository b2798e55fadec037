"""The top command. It imports the module of a command on use, and prints an error as one line."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import click

from outrider import __version__
from outrider.cli.options import top_options
from outrider.cli.output import print_error
from outrider.core.errors import OutriderError

F = TypeVar("F", bound=Callable[..., Any])

COMMANDS: Mapping[str, str] = {
    "activity": "outrider.cli.commands.activity:activity",
    "admin-user": "outrider.cli.commands.admin_user:admin_user",
    "adopt": "outrider.cli.commands.adopt:adopt",
    "app": "outrider.cli.commands.app:app",
    "apply": "outrider.cli.commands.apply:apply",
    "audit": "outrider.cli.commands.audit:audit",
    "balancer-agent": "outrider.cli.commands.balancer_agent:balancer_agent",
    "channel": "outrider.cli.commands.channel:channel",
    "client-token": "outrider.cli.commands.client_token:client_token",
    "completion": "outrider.cli.commands.completion:completion",
    "config": "outrider.cli.commands.config:config",
    "context": "outrider.cli.commands.context:context",
    "database": "outrider.cli.commands.database:database",
    "demo": "outrider.cli.commands.demo:demo",
    "diff": "outrider.cli.commands.apply:diff",
    "doctor": "outrider.cli.commands.doctor:doctor",
    "env": "outrider.cli.commands.env:env",
    "export": "outrider.cli.commands.apply:export",
    "group": "outrider.cli.commands.group:group",
    "help": "outrider.cli.commands.help:help_command",
    "install-units": "outrider.cli.commands.units:install_units",
    "instance": "outrider.cli.commands.instance:instance",
    "key": "outrider.cli.commands.key:key",
    "lock": "outrider.cli.commands.lock:lock",
    "login": "outrider.cli.commands.login:login",
    "logout": "outrider.cli.commands.login:logout",
    "man": "outrider.cli.commands.man:man",
    "package": "outrider.cli.commands.package:package",
    "page": "outrider.cli.commands.page:page",
    "policy": "outrider.cli.commands.policy_verify:policy",
    "release": "outrider.cli.commands.release:release",
    "rollout": "outrider.cli.commands.rollout:rollout",
    "serve": "outrider.cli.commands.serve:serve",
    "sidekick": "outrider.cli.commands.sidekick:sidekick",
    "statechart": "outrider.cli.commands.statechart:statechart",
    "status": "outrider.cli.commands.status:status",
    "story": "outrider.cli.commands.story:story",
    "task": "outrider.cli.commands.task:task",
    "units": "outrider.cli.commands.units:units",
    "upstream": "outrider.cli.commands.upstream:upstream",
    "versions": "outrider.cli.commands.versions:versions",
    "watch": "outrider.cli.commands.watch:watch",
    "webhook": "outrider.cli.commands.webhook:webhook",
    "why": "outrider.cli.commands.status:why",
}
"""Module and attribute of each command, imported on use, so that ``outrider --help`` is fast."""


SERVICES = ("outrider serve", "outrider sidekick run", "outrider sidekick shutdown", "outrider balancer-agent")
"""Commands that units start: their options come from files of variables, so the help names each variable."""


def name_variables(context: click.Context, name: str, command: click.Command) -> None:
    """Let the help of a command name the variables of the environment that its options come from.

    Those that are called like their option are named one by one where a unit sets them, and by their rule elsewhere.
    """
    path = f"{context.command_path} {name}"
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    for option in options:
        option.show_envvar = bool(option.envvar) or path.startswith(SERVICES)
    ruled = [one for one in options if not one.show_envvar and one.name not in (None, "help")]
    if isinstance(command, click.Group) or not ruled or context.auto_envvar_prefix is None:
        return
    prefix = f"{context.auto_envvar_prefix}_{name}".upper().replace("-", "_")
    first = ruled[0]
    command.epilog = (
        f"Each option may also come from the environment: {max(first.opts, key=len)} as"
        f" {prefix}_{str(first.name).upper()}, and so on."
    )


class Group(click.Group):
    """Prints an ``OutriderError`` as one line and exits with 1; any other exception is a bug with its traceback."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            name_variables(ctx, cmd_name, command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OutriderError as error:
            print_error(error)
            ctx.exit(1)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click has it, but an unknown command leaves with 3 and lists the known ones."""
        name = args[0] if args else ""
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            self.refuse(ctx, name)
        return super().resolve_command(ctx, args)

    def refuse(self, ctx: click.Context, name: str) -> NoReturn:
        """Leave with 3: there is no such command."""
        known = ", ".join(self.list_commands(ctx))
        click.echo(f"Error: '{ctx.command_path}' has no command {name!r}; known: {known}", err=True)
        ctx.exit(3)


class LazyGroup(Group):
    """The top group: imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        name_variables(ctx, cmd_name, command)
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "OUTRIDER"},
)
@click.version_option(__version__)
@top_options
def main(**_: object) -> None:
    """Zero-downtime rolling updates for services on a fleet of machines, without Kubernetes."""
    from outrider.config.sections import LogSettings
    from outrider.log import setup_logging

    # a command's answer is its log; services and sidekicks set up their own
    setup_logging(LogSettings(level="error", format="text"), sys.stderr)
