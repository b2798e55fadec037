"""``outrider context``: named sets of addresses and defaults."""

import click

from outrider.cli import contexts
from outrider.cli.main import Group
from outrider.cli.options import json_option, parse_endpoints
from outrider.cli.output import echo_json, echo_table
from outrider.core.errors import ConfigError

HEADER = ("", "NAME", "SERVER", "ETCD", "APP", "GROUP")


@click.group(cls=Group)
def context() -> None:
    """Choose which fleet the commands talk to.

    Contexts are in ~/.config/outrider/config.toml. Options and variables of the environment come before them.
    """


@context.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the contexts; the chosen one is marked."""
    found = contexts.load()
    if as_json:
        hidden = {name: {**each, **({"token": "***"} if "token" in each else {})} for name, each in found.known.items()}
        echo_json({"current": found.current, "contexts": hidden})
        return
    rows = [
        ("*" if name == found.current else "", name, *(each.get(key, "") for key in ("server", "etcd", "app", "group")))
        for name, each in found.known.items()
    ]
    echo_table(HEADER, rows)


@context.command()
@click.argument("name")
def use(name: str) -> None:
    """Let the commands that follow talk to the fleet of NAME."""
    found = contexts.use(name)
    values = found.values
    where = values.get("server") or values.get("etcd") or "no address"
    click.echo(f"context {name}: {where}")


@context.command()
@click.argument("name")
@click.argument("values", metavar="KEY=VALUE...", nargs=-1)
def add(name: str, values: tuple[str, ...]) -> None:
    """Add the context NAME to the file; the first one is chosen at once.

    \b
    Keys:
      server, token, token_file, ca_file        the update service
      etcd, prefix, etcd_ca_file, etcd_cert_file,
      etcd_key_file, etcd_user, etcd_password_file
      app, group                                of commands that name none
    """
    given = {}
    for each in values:
        key, equals, text = each.partition("=")
        if not equals or not text or key not in contexts.KEYS:
            raise ConfigError(f"{each!r}: write KEY=VALUE, with one of {', '.join(contexts.KEYS)}")
        given[key] = text
    if "etcd" in given:
        parse_endpoints(given["etcd"])
    path = contexts.add(name, given)
    click.echo(f"context {name} added to {path}")
