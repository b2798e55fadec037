"""Settings from files, the environment and flags, checked strictly: a mistake is one line that names file and key.

Order, later wins, key by key: defaults; drop-in files; ``OUTRIDER_<SECTION>_<KEY>`` variables; flags. Drop-ins come
from three folders and are sorted by file name across them; a file hides those of the same name in earlier folders, so
an empty one masks a vendor's (systemd's way, man:systemd.unit(5)). A table or a list is replaced as a whole.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from outrider.balancers.drivers import BALANCERS
from outrider.config.cautions import cautions, trust_cautions
from outrider.config.contradictions import contradictions
from outrider.config.drivers import Driver, DriverTable
from outrider.config.moved import MOVED, moved_line
from outrider.config.sections import Rule, Secret, Settings
from outrider.core.errors import ConfigError
from outrider.etcd.address import read_password
from outrider.runtimes.drivers import RUNTIMES

FOLDERS = (Path("/usr/lib/outrider"), Path("/etc/outrider"), Path("/run/outrider"))


def _sections() -> Iterator[tuple[str, type[Any]]]:
    """Every section: the shared ones in order, those of drivers after what all drivers of that kind share."""
    tables: Mapping[str, DriverTable[Any]] = {"workload": RUNTIMES, "balancer": BALANCERS}
    for name, kind in get_type_hints(Settings).items():
        if name == "drivers":
            continue
        yield name, kind
        for driver in tables.get(name, ()):
            own: Driver = tables[name].load(driver)
            if own.SETTINGS is not None:
                yield driver, own.SETTINGS


SECTIONS: Mapping[str, type[Any]] = dict(_sections())
"""Section name -> its dataclass."""
DRIVER_SECTIONS = frozenset(SECTIONS) - frozenset(get_type_hints(Settings))
CHOICES: Mapping[str, tuple[str, ...]] = {table.chosen_by: tuple(table) for table in (RUNTIMES, BALANCERS)}
"""Setting that names a driver -> the drivers that there are."""
PRODUCTS: Mapping[str, str] = {**RUNTIMES.products, **BALANCERS.products}
"""What people write instead of a driver's name -> that name."""

_NOT_SETTINGS = re.compile(
    # The command line's own variables (click's auto_envvar_prefix) where a command is named like a section, and what
    # the process runtime tells the app that it starts.
    r"OUTRIDER_(INSTANCE_DIR|BALANCER_AGENT_.*|INSTANCE_(ADMIT|BENCH|DECOMMISSION|DELETE|DRAIN|FAKE|HISTORY|LIST|PAUSE|RESUME|RETRY|ROLLBACK|SHOW|UNDRAIN)_.*|LOCK_(LIST|SHOW|RELEASE)_.*)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings that were checked, and where each came from.

    Attributes:
        origin: ``lock.ttl_s`` -> path of the file, name of the variable or flag, or ``default``.
        warnings: What works and should be changed all the same, one line each.
    """

    settings: Settings
    origin: Mapping[str, str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Given:
    """A checked value, its source in full, and the source's short name for error lines; what it was called there."""

    value: object
    origin: str
    name: str
    key: str


class _Blame(Exception):
    """The setting ``key`` can't be as it is."""

    def __init__(self, key: str, problem: str) -> None:
        self.key, self.problem = key, problem


def drop_ins(folders: Sequence[Path] = FOLDERS) -> tuple[Path, ...]:
    """The ``*.toml`` files of the folders, sorted by file name; of two with one name the later folder's."""
    found: dict[str, Path] = {}
    for folder in folders:
        found.update({path.name: path for path in settings_files(folder)})
    return tuple(found[name] for name in sorted(found))


def settings_files(folder: Path) -> Iterator[Path]:
    """The ``*.toml`` files of a folder. Hidden ones are those that editors and installers have there for a moment."""
    return (path for path in folder.glob("*.toml") if not path.name.startswith("."))


def load_settings(
    files: tuple[Path, ...] = (),
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    *,
    folders: Sequence[Path] = FOLDERS,
) -> Loaded:
    """Read and check all settings.

    Args:
        files: Exactly these, in this order; none means the drop-ins in ``folders``.
        environment: ``OUTRIDER_LOCK_TTL_S`` sets ``lock.ttl_s``. Lists are JSON or separated by commas, tables are
            JSON. Variables that don't begin with a section's name are none of ours.
            Settings that have moved (``config/moved.py``) are taken from their old places too, with a warning.
        overrides: ``lock.ttl_s`` -> value from a flag, as text or in its type; None means that the flag wasn't given.

    Raises:
        ConfigError: the first problem, with file (or variable) and key.
    """
    given: dict[str, _Given] = {}
    for path in files or drop_ins(folders):
        given.update(_read_file(path))
    given.update(_read_environment(environment or {}))
    for key, value in (overrides or {}).items():
        if value is not None:
            source = f"flag {key}"
            given[key] = _given(key, value, source, source, text=isinstance(value, str))
    warnings = tuple(_moved_home(given))
    return _assemble(given, folders, warnings)


def all_fields() -> Iterator[tuple[str, str, "Field[Any]", Rule]]:
    """Every setting as (section, key, field, rule), in the order of the dataclasses."""
    for section, kind in SECTIONS.items():
        for each in fields(kind):
            yield section, each.name, each, each.metadata["rule"]


def type_of(section: str, key: str) -> Any:
    """The type of a setting: as annotated, or one of the names in a table of drivers."""
    choices = CHOICES.get(f"{section}.{key}")
    return Literal[choices] if choices else get_type_hints(SECTIONS[section])[key]


def check_setting(key: str, value: object, source: str) -> None:
    """Check one setting, ``process.command``, that was written as TOML.

    Raises:
        ConfigError: there is no such setting, or it can't be that value; ``source`` stands before the line.
    """
    _checked(MOVED.get(key, key), value, source, text=False)


def check_together(values: Mapping[str, object], source: str) -> tuple[str, ...]:
    """Check settings that some instance will have, ``process.command`` -> value, against each other.

    Returns:
        What works and should be changed all the same.

    Raises:
        ConfigError: they contradict each other, or one that is needed is missing; ``source: key: problem``.
    """
    someone: dict[str, object] = {"instance.id": "some", "instance.app": "some", "instance.group": "some"}
    given = {key: _given(key, value, source, source, text=False) for key, value in (someone | dict(values)).items()}
    warnings = tuple(_moved_home(given))
    return _assemble(given, FOLDERS, warnings).warnings


def _read_file(path: Path) -> dict[str, _Given]:
    try:
        content = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path.name}:{line}: not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_problem(path, str(error))) from error
    given = {}
    for section, table in content.items():
        if section not in SECTIONS:
            raise ConfigError(f"{path.name}: {section}: unknown section; {_known(section, SECTIONS)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path.name}: {section}: is a section; write [{section}] and its keys below")
        for name, value in table.items():
            key = f"{section}.{name}"
            given[key] = _given(key, value, str(path), path.name, text=False)
    return given


def _syntax_problem(path: Path, message: str) -> str:
    """``site.toml:3: ...`` from tomllib's ``... (at line 3, column 7)``; its other form is ``(at end of document)``."""
    matched = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", message)
    if matched:
        return f"{path.name}:{matched[2]}: {matched[1]}"
    return f"{path.name}: {message}"


def _read_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    given = {}
    for variable, text in sorted(environment.items()):
        matched = re.fullmatch(rf"OUTRIDER_({'|'.join(SECTIONS)})_(.+)", variable, re.IGNORECASE)
        if matched and variable == variable.upper() and not _NOT_SETTINGS.fullmatch(variable):
            key = f"{matched[1].lower()}.{matched[2].lower()}"
            given[key] = _given(key, text, variable, variable, text=True)
    return given


def _given(key: str, value: object, origin: str, name: str, *, text: bool) -> _Given:
    """What was written at ``key``, checked by the rules of the place where that setting is now."""
    home = MOVED.get(key, key)
    try:
        return _Given(_checked(home, value, name, text=text), origin, name, key)
    except ConfigError as error:
        if home == key:
            raise
        raise ConfigError(f"{error} (written as {key}, its old place)") from error


def _moved_home(given: dict[str, _Given]) -> Iterator[str]:
    """Put what was written at an old place where it belongs; one warning for each.

    Raises:
        ConfigError: old and new place are both set.
    """
    for old in [key for key in given if key in MOVED]:
        one, new = given.pop(old), MOVED[old]
        if new in given:
            raise ConfigError(
                f"{one.name}: {old}: has moved to {new}, which is set in {given[new].name}; keep that one"
            )
        given[new] = one
        yield moved_line(one.name, old, new)


def _known(word: str, words: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f"known: {', '.join(sorted(words))}" + (f" (did you mean {near[0]}?)" if near else "")


def _checked(key: str, value: object, source: str, *, text: bool) -> object:
    """``value`` in the type of the setting ``key``; ``text`` says that it was written as text, not as TOML."""
    section, _, name = key.partition(".")
    rules = {each.name: each.metadata["rule"] for each in fields(SECTIONS[section])} if section in SECTIONS else {}
    if section not in SECTIONS:
        raise ConfigError(f"{source}: {key}: unknown section; {_known(section, SECTIONS)}")
    if name not in rules:
        raise ConfigError(f"{source}: {key}: unknown; {_known(name, rules)}")
    wanted = type_of(section, name)
    try:
        converted = _converted(_from_text(str(value), wanted) if text else value, wanted, text=text)
        _obey(rules[name], converted)
    except (ValueError, msgspec.ValidationError, msgspec.DecodeError) as problem:
        raise ConfigError(f"{source}: {key}: {_plain(str(problem))}") from problem
    return converted


def _from_text(text: str, wanted: Any) -> object:
    """A variable's text as what TOML would have held: lists and tables are JSON, lists also ``a,b``."""
    kind = get_origin(wanted)
    if kind is tuple and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind in (tuple, Mapping):
        return msgspec.json.decode(text)
    return text


def _converted(value: object, wanted: Any, *, text: bool) -> object:
    if wanted == Path | None and value == "":
        return None
    if get_origin(wanted) is Literal and value not in get_args(wanted):
        instead = PRODUCTS.get(str(value).lower())
        right = f"; for {value} write {instead}" if instead in get_args(wanted) else ""
        raise ValueError(f"{value!r} is not one of {', '.join(get_args(wanted))}{right}")
    if isinstance(value, str) and text and wanted is str:
        return value
    return msgspec.convert(value, wanted, strict=not text, dec_hook=_decode)


def _decode(wanted: type[Any], value: object) -> object:
    if not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    return wanted(value)


def _plain(problem: str) -> str:
    """msgspec's words as ours: ``Expected `int`, got `str` - at `$[1]``` becomes ``[1]: expected int, got str``."""
    matched = re.fullmatch(r"(.*) - at `\$(.*)`", problem)
    message, place = (matched[1], f"{matched[2]}: ") if matched else (problem, "")
    message = message.replace("`", "")
    return place + (message if message[:2].isupper() else message[:1].lower() + message[1:])


def _obey(rule: Rule, value: object) -> None:
    """Raise ValueError, in words for the operator, when ``value`` breaks the rule."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a number of anything")
        if rule.least is not None and value < rule.least:
            raise ValueError(f"{value:g} is too small; at least {rule.least:g}")
        if rule.most is not None and value > rule.most:
            raise ValueError(f"{value:g} is too large; at most {rule.most:g}")
        if rule.above is not None and value <= rule.above:
            raise ValueError(f"{value:g} is too small; more than {rule.above:g}")
    if isinstance(value, Path) and not value.is_absolute():
        raise ValueError(f"{str(value)!r} is relative; write the whole path, beginning with /")
    if isinstance(value, str | tuple) and not value and not rule.empty:
        raise ValueError(f"is empty; wanted: {rule.wanted}")
    texts = (value,) if isinstance(value, str) and value else value if isinstance(value, tuple) else ()
    for part in (text for text in texts if isinstance(text, str)):
        if "\0" in part:
            raise ValueError(f"{part!r} holds a NUL character")
        if rule.pattern and not re.fullmatch(rule.pattern, part):
            raise ValueError(f"{part!r}: wanted: {rule.wanted}")


def _assemble(given: Mapping[str, _Given], folders: Sequence[Path], warnings: tuple[str, ...]) -> Loaded:
    sections: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    origin = {}
    for section, name, each, _ in all_fields():
        key = f"{section}.{name}"
        if key in given:
            sections[section][name] = given[key].value
        elif each.default is MISSING and each.default_factory is MISSING:
            variable = f"OUTRIDER_{section}_{name}".upper()
            raise ConfigError(f"{key}: missing; set it in a file in {folders[1 % len(folders)]} or with {variable}")
        origin[key] = given[key].origin if key in given else "default"
    made = {section: SECTIONS[section](**values) for section, values in sections.items()}
    shared = {section: one for section, one in made.items() if section not in DRIVER_SECTIONS}
    settings = _named(
        Settings(**shared, drivers={section: made[section] for section in SECTIONS if section not in shared}), given
    )
    try:
        for key, problem in contradictions(settings):
            raise _Blame(key, problem)
        risks = (*cautions(settings.service), *trust_cautions(settings.trust))
        return _completed(settings, origin, (*warnings, *_without_effect(settings, given), *risks))
    except _Blame as blame:
        one = given.get(blame.key)
        source = f"{one.name}: " if one is not None else ""
        old = f" (written as {one.key}, its old place)" if one is not None and one.key != blame.key else ""
        raise ConfigError(f"{source}{blame.key}: {blame.problem}{old}") from blame.__cause__


def _without_effect(settings: Settings, given: Mapping[str, _Given]) -> Iterator[str]:
    """Settings of ``[balancer]`` that the balancer here doesn't use."""
    name = settings.instance.balancer
    for each in fields(settings.balancer):
        key = f"balancer.{each.name}"
        if key in given and each.name not in BALANCERS.load(name).USES:
            yield f"{given[key].name}: {given[key].key}: has no effect while instance.balancer is {name}"


def _named(settings: Settings, given: Mapping[str, _Given]) -> Settings:
    """With what follows from the instance's name: its folder, and the server's entry where something uses one."""
    if "instance.state_dir" not in given:
        folder = settings.instance.state_dir / settings.instance.id
        settings = replace(settings, instance=replace(settings.instance, state_dir=folder))
    balancer = settings.balancer
    if balancer.server_id or "server_id" not in BALANCERS.load(settings.instance.balancer).USES:
        return settings
    return replace(settings, balancer=replace(balancer, server_id=settings.instance.id))


def _completed(settings: Settings, origin: dict[str, str], warnings: tuple[str, ...]) -> Loaded:
    """Read the password."""
    etcd = settings.etcd
    if etcd.password_file:
        try:
            password = read_password(etcd.password_file)
        except ValueError as error:
            raise _Blame("etcd.password_file", f"{etcd.password_file}: {error}") from error
        settings = replace(settings, etcd=replace(etcd, password=Secret(password)))
        origin["etcd.password"] = str(etcd.password_file)
    return Loaded(settings=settings, origin=origin, warnings=warnings)
