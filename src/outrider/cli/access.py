"""How every verb finds the update service and says who asks: the same options on each verb and before it.

What is written nearest to the verb counts, then the environment, then the default.
"""

import functools
import getpass
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])

_NAMES = ("server", "user", "key", "token", "ca_file", "skip_ssl_verify", "debug")


def _options(*, environment: bool) -> tuple[Callable[[F], F], ...]:
    def variables(*names: str) -> list[str] | None:
        return list(names) if environment else None

    return (
        click.option(
            "--server",
            envvar=variables("OUTRIDER_SERVER", "UPDATECTL_SERVER"),
            default="http://localhost:8000",
            show_default=environment,
            help="Address of the update service.",
        ),
        click.option("--token", envvar=variables("OUTRIDER_TOKEN"), default="", help="Who asks: a user's token."),
        click.option(
            "--user", envvar=variables("OUTRIDER_USER", "UPDATECTL_USER"), default="", help="Who asks: a user's name..."
        ),
        click.option(
            "--key", envvar=variables("OUTRIDER_KEY", "UPDATECTL_KEY"), default="", help="...and that user's token."
        ),
        click.option(
            "--ca-file",
            envvar=variables("OUTRIDER_CA_FILE"),
            type=click.Path(path_type=Path),
            help="Authority of the service's certificate (PEM).",
        ),
        click.option(
            "--skip-ssl-verify",
            envvar=variables("OUTRIDER_SKIP_SSL_VERIFY"),
            is_flag=True,
            help="Don't check the service's certificate.",
        ),
        click.option(
            "--debug", envvar=variables("OUTRIDER_DEBUG"), is_flag=True, help="Print what is asked and answered."
        ),
    )


def top_options(command: F) -> F:
    """Let the options of ``service_options`` be written before the verb as well: ``outrider --server=... app list``."""
    for option in reversed(_options(environment=False)):
        command = option(command)
    return command


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where the update service is and who asks; the verb gets a client as ``service``."""

    def with_service(*arguments: Any, **options: Any) -> Any:
        from outrider.cli.client import ServiceClient

        chosen = _chosen(click.get_current_context(), {name: options.pop(name) for name in _NAMES})
        if chosen.pop("debug"):
            _log_everything()
        return command(*arguments, service=ServiceClient(**chosen), **options)

    decorated: Any = functools.update_wrapper(with_service, command)
    for option in reversed(_options(environment=True)):
        decorated = option(decorated)
    wrapped: Callable[..., Any] = decorated
    return wrapped


def _chosen(context: click.Context, here: Mapping[str, Any]) -> dict[str, Any]:
    """The options' values: of each the one that is written nearest to the verb, else what the verb has of itself."""
    chosen = dict(here)
    for name in _NAMES:
        place: click.Context | None = context
        while place is not None:
            if place.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                chosen[name] = place.params[name]
                break
            place = place.parent
    return chosen


def _log_everything() -> None:
    from outrider.config import LogSettings
    from outrider.log import setup_logging

    setup_logging(LogSettings(level="debug", format="text"), sys.stderr)


def operator() -> str:
    """Who types here, by the name that this machine knows."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in a container
        return "unknown"
