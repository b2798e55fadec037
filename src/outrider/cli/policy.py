"""``outrider group policy`` and ``group percent``: how fast, how many and when a group's instances are updated."""

import json
import re
from typing import Any

import click

from outrider.cli.access import service_options
from outrider.cli.client import Json, ServiceClient
from outrider.cli.common import echo_json, echo_table, json_option
from outrider.core.errors import ConfigError

HEADER = ("Setting", "Value")
_OUTCOME = ("notes", "warnings")
"""What the service says of a policy besides what it is."""
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

app_option = click.option("--app-id", required=True, help="Application that the group belongs to.")
group_option = click.option("--group-id", required=True, help="ID of the group.")


def seconds(text: str) -> int:
    """Read ``90``, ``90s``, ``5m``, ``1h`` or ``1d``.

    Raises:
        ConfigError: it is something else, or nothing at all.
    """
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text.strip())
    if match is None or not int(match[1]):
        raise ConfigError(f"duration {text!r}: write 90s, 5m, 1h or 1d")
    return int(match[1]) * _UNITS[match[2]]


def per_interval(text: str) -> Json | None:
    """Read ``1/5m``, at most one in five minutes; ``none`` for no limit.

    Raises:
        ConfigError: it is something else.
    """
    if text == "none":
        return None
    count, slash, interval = text.partition("/")
    if not slash or not count.isascii() or not count.isdigit() or not int(count):
        raise ConfigError(f"--max-per-interval {text!r}: write COUNT/DURATION such as 1/5m, or none")
    return {"count": int(count), "interval_s": seconds(interval)}


def read(service: ServiceClient, app_id: str, group_id: str) -> Json:
    """A group's policy."""
    return service.get("apps", app_id, "groups", group_id, "policy")


def change(service: ServiceClient, app_id: str, group_id: str, changes: Json) -> Json:
    """Change some settings of a group's policy, and leave the others as they are; returns the whole.

    Raises:
        Conflict: somebody else has changed it in this moment.
    """
    place = ("apps", app_id, "groups", group_id, "policy")
    now, tag = service.get_tagged(*place)
    kept = {name: value for name, value in now.items() if name not in _OUTCOME}
    saved, _ = service.put(*place, body=kept | changes, if_match=tag)
    return saved


@click.command()
@app_option
@group_option
@click.option("--max-per-interval", metavar="N/TIME", help="At most so many in a time, such as 1/5m; or none.")
@click.option("--max-in-progress", metavar="N", help="At most so many at the same time; or none.")
@click.option("--percent", type=click.FloatRange(0, 100), help="Only so many percent of the instances.")
@click.option("--set", "settings", metavar="NAME=JSON", multiple=True, help="Any setting by its name; repeatable.")
@service_options
@json_option
def policy(
    app_id: str,
    group_id: str,
    max_per_interval: str | None,
    max_in_progress: str | None,
    percent: float | None,
    settings: tuple[str, ...],
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Show a group's policy, or change what is given."""
    changes: Json = dict(map(_setting, settings))
    if max_per_interval is not None:
        changes["max_per_interval"] = per_interval(max_per_interval)
    if max_in_progress is not None:
        changes["max_in_progress"] = _number(max_in_progress)
    if percent is not None:
        changes["percent"] = percent
    found = change(service, app_id, group_id, changes) if changes else read(service, app_id, group_id)
    for note in (note for name in _OUTCOME for note in found.get(name) or ()):
        click.echo(f"note: {note}", err=True)
    if as_json:
        echo_json(found)
    else:
        show(found)


@click.command()
@app_option
@group_option
@click.option("--update-percent", type=click.FloatRange(0, 100), required=True, help="Percentage of instances.")
@service_options
@json_option
def percent(app_id: str, group_id: str, update_percent: float, service: ServiceClient, as_json: bool) -> None:
    """Let only so many percent of a group's instances update; which ones stays the same as the number grows."""
    saved = change(service, app_id, group_id, {"percent": update_percent})
    if as_json:
        echo_json(saved)
    else:
        click.echo(f"update percent set to {saved['percent']:f}")  # noqa: S608


def show(settings: Json) -> None:
    """Print one row per setting, its value as ``--set`` takes it."""
    echo_table(HEADER, [(name, json.dumps(value)) for name, value in settings.items() if name not in _OUTCOME])


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--set {text}: write NAME=JSON")
    try:
        return name, json.loads(value)
    except ValueError:
        # A word is a text without its quotes; what begins like JSON and isn't is a mistake.
        if value[:1] in ("{", "[", '"'):
            raise click.UsageError(f"--set {text}: not JSON") from None
        return name, value


def _number(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isascii() or not text.isdigit() or not int(text):
        raise ConfigError(f"--max-in-progress {text!r}: write a number above 0, or none")
    return int(text)
