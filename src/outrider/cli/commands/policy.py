"""``outrider group policy`` and ``group percent``: how fast, how many and when instances of a group update."""

import json
import re
from collections.abc import Callable
from typing import Any

import click

from outrider.cli import addressing
from outrider.cli.analysis_texts import analysis_text, read_analyses
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient
from outrider.cli.wave_texts import budget_texts, read_budgets, read_waves, wave_text
from outrider.core.errors import ConfigError
from outrider.core.rollout.windows import DAYS

HEADER = ("Setting", "Value")
_OUTCOME = ("notes", "warnings")
"""Keys of the answer that are not settings."""
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

app_option = addressing.app_option("App that the group belongs to.")
group_option = addressing.group_option("ID of the group.")


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
    """Read ``1/5m`` as at most one in five minutes, and ``none`` as no limit.

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
    """Change some settings of a group's policy and keep the others; returns the whole policy.

    Raises:
        Conflict: another operator changed it at the same time.
    """
    place = ("apps", app_id, "groups", group_id, "policy")
    now, tag = service.get_with_etag(*place)
    kept = {name: value for name, value in now.items() if name not in _OUTCOME}
    saved, _ = service.put(*place, body=kept | changes, if_match=tag)
    return saved


def windows(texts: tuple[str, ...]) -> list[Json]:
    """Read ``fri,sat 22:00-04:00``, ``mon-fri 09:00-17:00``, ``22:00-04:00`` as every day, ``none`` as no windows.

    Raises:
        ConfigError: it is something else; the service checks the days and times themselves.
    """
    if texts == ("none",):
        return []
    return [_window(text) for text in texts]


def _window(text: str, option: str = "--window") -> Json:
    days, _, times = text.strip().rpartition(" ")
    opens, dash, closes = times.partition("-")
    if not dash or not opens or not closes:
        raise ConfigError(f"{option} {text!r}: write DAYS OPENS-CLOSES such as 'mon-fri 09:00-17:00', or none")
    words = [] if days.strip() in ("", "daily") else days.replace(" ", "").lower().split(",")
    return {
        "days": [day for word in words for day in _days(word, f"{option} {text!r}")],
        "opens": opens,
        "closes": closes,
    }


def _days(word: str, given: str) -> list[str]:
    """``fri`` itself, and ``mon-fri`` as all days from the one to the other; ``sat-mon`` goes over the week's end."""
    first, dash, last = word.partition("-")
    if not dash:
        return [word]
    if first not in DAYS or last not in DAYS:
        raise ConfigError(f"{given}: {word!r} are no days: write two of {', '.join(DAYS)}, such as mon-fri")
    begin, end = DAYS.index(first), DAYS.index(last)
    return list(DAYS[begin : end + 1] if begin <= end else (*DAYS[begin:], *DAYS[: end + 1]))


def _number_or_none(name: str) -> Callable[[str], int | None]:
    def read(text: str) -> int | None:
        if text == "none":
            return None
        if not text.isascii() or not text.isdigit() or not int(text):
            raise ConfigError(f"--{name} {text!r}: write a number above 0, or none")
        return int(text)

    return read


def deny_windows(texts: tuple[str, ...]) -> list[Json]:
    """As ``windows``.

    Raises:
        ConfigError: as ``windows``.
    """
    return [] if texts == ("none",) else [_window(text, "--deny-window") for text in texts]


def freezes(texts: tuple[str, ...]) -> list[Json]:
    """Read ``2026-12-20..2027-01-03 holidays``, one day alone, or ``none`` as no freezes.

    Raises:
        ConfigError: there is no day at all; the service checks what the days are.
    """
    if texts == ("none",):
        return []
    found = []
    for text in texts:
        days, _, why = text.strip().partition(" ")
        begins, dots, ends = days.partition("..")
        if not begins or (dots and not ends):
            raise ConfigError(
                f"--freeze {text!r}: write FIRST..LAST and a reason such as '2026-12-20..2027-01-03 holidays'"
            )
        found.append({"begins": begins, "ends": ends or begins, "why": why.strip()})
    return found


def waves(texts: tuple[str, ...]) -> list[Json]:
    """As ``wave_texts.read_waves``.

    Raises:
        ConfigError: as there.
    """
    return read_waves(texts, seconds)


def budgets(texts: tuple[str, ...]) -> list[Json]:
    """As ``wave_texts.read_budgets``.

    Raises:
        ConfigError: as there.
    """
    return read_budgets(texts)


def analyses(texts: tuple[str, ...]) -> list[Json]:
    """As ``analysis_texts.read_analyses``.

    Raises:
        ConfigError: as there.
    """
    return read_analyses(texts, seconds)


_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "max_per_interval": per_interval,
    "max_in_progress": _number_or_none("max-in-progress"),
    "max_failures": _number_or_none("max-failures"),
    "update_timeout_s": seconds,
    "windows": windows,
    "deny_windows": deny_windows,
    "freezes": freezes,
    "waves": waves,
    "budgets": budgets,
    "analyses": analyses,
    "canary_selector": lambda text: "" if text == "none" else text,
    "approve_after_s": lambda text: None if text == "none" else seconds(text),
    "pin": lambda text: "" if text == "none" else text,
}
"""Options whose text is not the setting itself -> how it is read."""


@click.command()
@app_option
@group_option
@click.option("--enabled/--disabled", default=None, help="Turn updates on or off.")
@click.option(
    "--max-per-interval",
    metavar="N/TIME",
    help="Largest number of new updates in an interval, such as 1/5m; none for no limit.",
)
@click.option("--max-in-progress", metavar="N", help="Largest number of updates in progress; none for no limit.")
@click.option("--percent", type=click.FloatRange(0, 100), help="Percentage of instances that may update.")
@click.option(
    "--canary",
    type=click.IntRange(0),
    metavar="N",
    help="Number of instances that update first. The others follow when these have succeeded.",
)
@click.option(
    "--canary-selector", metavar="LABELS", help="Labels of the instances that may be canaries; none for any instance."
)
@click.option(
    "--wave",
    "waves",
    metavar="'LABELS; N; soak TIME'",
    multiple=True,
    help="Instances that go first, and what must hold before the next ones follow, such as"
    " 'site=a; 25%; soak 1h; success 90%; analysis NAME; approval'; repeatable, in order; none for no waves.",
)
@click.option(
    "--analysis",
    "analyses",
    metavar="'NAME; prometheus URL; < N; query PROMQL'",
    multiple=True,
    help="What the service asks at the end of the waves that name it ('site=a; soak 1h; analysis NAME'), before the"
    " next ones begin: Prometheus, or an endpoint ('NAME; http URL'); repeatable; none for no analyses.",
)
@click.option(
    "--budget",
    "budgets",
    metavar="'at most N per LABEL'",
    multiple=True,
    help="How many instances with one value of a label may be out ('at most 1 per rack'), and how many others must"
    " serve ('at least 2 serving per site'); repeatable; none for no budgets.",
)
@click.option(
    "--window",
    "windows",
    metavar="'DAYS HH:MM-HH:MM'",
    multiple=True,
    help="Time window in which updates start; repeatable; none for any time.",
)
@click.option(
    "--deny-window",
    "deny_windows",
    metavar="'DAYS HH:MM-HH:MM'",
    multiple=True,
    help="Weekly time in which no update starts, also inside a window; repeatable; none for no such time.",
)
@click.option(
    "--freeze",
    "freezes",
    metavar="'FIRST..LAST WHY'",
    multiple=True,
    help="Days in which no update starts, such as '2026-12-20..2027-01-03 holidays'; repeatable; none for no freeze.",
)
@click.option("--time-zone", metavar="NAME", help="IANA time zone of windows and freezes, such as Europe/Berlin.")
@click.option(
    "--update-timeout",
    "update_timeout_s",
    metavar="TIME",
    help="Longest time for one update, such as 1h; then it counts as failed.",
)
@click.option(
    "--max-failures", metavar="N", help="Number of failed instances that halts the rollout; none for no limit."
)
@click.option(
    "--count-new/--ignore-new",
    default=None,
    help="Whether an instance that never ran anything counts against --max-per-interval.",
)
@click.option(
    "--count-timeouts/--ignore-timeouts", default=None, help="Whether an update without a result counts as a failure."
)
@click.option(
    "--min-healthy",
    type=click.IntRange(0),
    metavar="N",
    help="Number of other instances that must serve during an update.",
)
@click.option(
    "--pin", metavar="VERSION", help="Offer only versions with this prefix, such as 1.2; none for any version."
)
@click.option(
    "--approval/--no-approval", default=None, help="Whether a person must approve each release before it rolls out."
)
@click.option(
    "--approve-after",
    "approve_after_s",
    metavar="TIME",
    help="Time after which a release that nobody has judged counts as approved; none for never.",
)
@click.option(
    "--downgrade",
    type=click.Choice(["never", "asked", "always"]),
    help="Whether an older version is offered: never, if the instance allows it (asked), or always.",
)
@click.option("--set", "settings", metavar="NAME=JSON", multiple=True, help="Set any setting by its name; repeatable.")
@service_options
@json_option
def policy(
    app_id: str, group_id: str, settings: tuple[str, ...], service: ServiceClient, as_json: bool, **options: Any
) -> None:
    """Show a group's policy, or change the given settings."""
    changes: Json = dict(map(_setting, settings))
    for name, given in options.items():
        if given is not None and given != ():
            changes[name] = _SETTINGS.get(name, _as_it_is)(given)
    found = change(service, app_id, group_id, changes) if changes else read(service, app_id, group_id)
    tell_outcome(found)
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
    """Limit updates to a percentage of a group's instances. A larger percentage includes the same instances."""
    saved = change(service, app_id, group_id, {"percent": update_percent})
    tell_outcome(saved)
    if as_json:
        echo_json(saved)
    else:
        click.echo(f"update percent set to {saved['percent']:f}")  # noqa: S608


def tell_outcome(saved: Json) -> None:
    """Print on stderr what a changed policy means, and which parts of it cannot work."""
    for note in (note for name in _OUTCOME for note in saved.get(name) or ()):
        click.echo(f"note: {note}", err=True)


def show(settings: Json) -> None:
    """Print one row per setting, its value as the options take it."""
    echo_table(HEADER, [(name, word_of(name, value)) for name, value in settings.items() if name not in _OUTCOME])


def word_of(name: str, value: Any) -> str:
    """A setting as a person writes it: ``1/5m``, ``mon,tue 09:00-17:00``, ``none``."""
    shown = text_of(name, value)
    if isinstance(shown, bool):
        return "yes" if shown else "no"
    if isinstance(shown, list):
        return "; ".join(str(one) for one in shown) or "none"
    return "none" if shown in (None, "") else str(shown)


def text_of(name: str, value: Any) -> Any:
    """A setting with short texts instead of tables; a list stays a list."""
    if value is None:
        return "none"
    if name == "max_per_interval":
        return f"{value['count']}/{duration(value['interval_s'])}"
    if name in ("update_timeout_s", "approve_after_s"):
        return duration(value)
    if name == "budgets":
        return [text for one in value for text in budget_texts(one)]
    if name == "analyses":
        return [analysis_text(one, duration) for one in value]
    if name == "waves":
        return [wave_text(one, duration) for one in value]
    if name == "freezes":
        return [f"{one['begins']}..{one['ends']} {one['why']}".strip() for one in value]
    if name in ("windows", "deny_windows"):
        return [f"{','.join(one['days'])} {one['opens']}-{one['closes']}".strip() for one in value]
    return value


def duration(whole_s: int) -> str:
    """``5m`` for 300: the largest unit that fits."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if whole_s and whole_s % length == 0:
            return f"{whole_s // length}{unit}"
    return f"{whole_s}s"


def _as_it_is(given: Any) -> Any:
    return given


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--set {text}: write NAME=JSON")
    try:
        return name, json.loads(value)
    except ValueError:
        # A word is a text without its quotes; a value that begins like JSON must be JSON.
        if value[:1] in ("{", "[", '"'):
            raise click.UsageError(f"--set {text}: not JSON") from None
        return name, value
