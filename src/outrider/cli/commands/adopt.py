"""``outrider adopt``: a workload that something else started becomes this instance's own."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outrider.cli.commands.config import files_option
from outrider.cli.main import F, Group
from outrider.cli.options import json_option
from outrider.cli.output import confirm, echo_json

if TYPE_CHECKING:
    from outrider.sidekick.adopt import Plan


@click.group(cls=Group)
def adopt() -> None:
    """Take over a workload that something else started, without a restart.

    It is found and checked first, its entry in the load balancer too, and what will happen is shown. Run it as the
    sidekick's user, while the sidekick does not run; then start the sidekick. The next update replaces it.
    """


def adopt_options(command: F) -> F:
    """Add what all kinds have."""
    for option in reversed(
        (
            click.option("--version", help="Its version. Default: the tag of its image, when that is a version."),
            click.option("--url", help="Where it answers: http://HOST:PORT. Default: the one port that it listens on."),
            click.option("--dry-run", is_flag=True, help="Check and show what would happen; change nothing."),
            click.option("--yes", is_flag=True, help="Don't ask."),
        )
    ):
        command = option(command)
    return files_option(json_option(command))


@adopt.command()
@click.argument("name")
@adopt_options
def container(
    name: str,
    version: str | None,
    url: str | None,
    dry_run: bool,
    yes: bool,
    files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Adopt a Docker container by its NAME or id."""
    _adopt("container", name, version, url, dry_run, yes, files, as_json)


@adopt.command()
@click.argument("name")
@adopt_options
def unit(
    name: str,
    version: str | None,
    url: str | None,
    dry_run: bool,
    yes: bool,
    files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Adopt a systemd unit by its NAME, or by a pattern that fits one that runs."""
    _adopt("unit", name, version, url, dry_run, yes, files, as_json)


@adopt.command("pid-file")
@click.argument("path")
@adopt_options
def pid_file(
    path: str,
    version: str | None,
    url: str | None,
    dry_run: bool,
    yes: bool,
    files: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Adopt the process whose number is in the file PATH."""
    _adopt("pid-file", path, version, url, dry_run, yes, files, as_json)


def _adopt(
    kind: str,
    name: str,
    version: str | None,
    url: str | None,
    dry_run: bool,
    yes: bool,
    files: tuple[Path, ...],
    as_json: bool,
) -> None:
    from outrider.balancers.keys import checked_url
    from outrider.config.load import load_settings
    from outrider.sidekick.adopt import Adoption

    settings = load_settings(files, os.environ).settings
    adoption = Adoption(settings, os.environ)
    plan = adoption.plan(kind, name, version=version or "", url=checked_url(url) if url else "")
    for line in _lines(plan):
        click.echo(line, err=as_json)
    if not dry_run:
        confirm(f"Adopt it for instance {settings.instance.id}?", yes=yes)
        adoption.carry_out(plan)
        click.echo(f"adopted; start the sidekick of {settings.instance.id}", err=as_json)
    if as_json:
        echo_json(_told(plan) | {"adopted": not dry_run})


def _told(plan: "Plan") -> dict[str, object]:
    record = plan.record
    return {
        "kind": record.kind,
        "name": record.name,
        "id": record.id,
        "version": record.version,
        "version_told_by": plan.told_by,
        "url": record.url,
        "entry": plan.entry_words,
        "when_replaced": plan.candidate.after,
        "can_be_started_again": not record.no_restart,
        "notes": list(plan.candidate.notes),
    }


def _lines(plan: "Plan") -> list[str]:
    record = plan.record
    back = (
        f"a rollback needs it running, for outrider can't start it again: {record.no_restart}"
        if record.no_restart
        else "a rollback starts it again if it was stopped"
    )
    return [
        plan.candidate.handle,
        f"  version   {record.version}, by {plan.told_by}",
        f"  address   {record.url}, health check passed ({plan.probed})",
        f"  entry     {plan.entry_words}",
        f"  replaced  {plan.candidate.after}",
        f"  rollback  {back}",
        *(f"  note      {note}" for note in plan.candidate.notes),
    ]
