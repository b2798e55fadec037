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

from outrider.config.sections import Rule, Secret, Settings, port_range
from outrider.core.errors import ConfigError

FOLDERS = (Path("/usr/lib/outrider"), Path("/etc/outrider"), Path("/run/outrider"))
SECTIONS: Mapping[str, type[Any]] = get_type_hints(Settings)
"""Section name -> its dataclass."""

_NOT_SETTINGS = re.compile(
    # The command line's own variables (click's auto_envvar_prefix) where a command is named like a section, and what
    # the process runtime tells the app that it starts.
    r"OUTRIDER_(INSTANCE_DIR|INSTANCE_(BENCH|DELETE|FAKE|HISTORY|LIST|PAUSE|RESUME|RETRY|ROLLBACK|SHOW)_.*|LOCK_(LIST|SHOW|RELEASE)_.*)"
)
_RESERVED = frozenset({"PORT", "HOST"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings that were checked, and where each came from.

    Attributes:
        origin: ``lock.ttl_s`` -> path of the file, name of the variable or flag, or ``default``.
    """

    settings: Settings
    origin: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Given:
    """A checked value, its source in full, and the source's short name for error lines."""

    value: object
    origin: str
    name: str


class _Blame(Exception):
    """The setting ``key`` can't be as it is."""

    def __init__(self, key: str, problem: str) -> None:
        self.key, self.problem = key, problem


def drop_ins(folders: Sequence[Path] = FOLDERS) -> tuple[Path, ...]:
    """The ``*.toml`` files of the folders, sorted by file name; of two with one name the later folder's."""
    found: dict[str, Path] = {}
    for folder in folders:
        found.update({path.name: path for path in folder.glob("*.toml")})
    return tuple(found[name] for name in sorted(found))


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
            given[key] = _Given(_checked(key, value, source, text=isinstance(value, str)), source, source)
    return _assemble(given, folders)


def all_fields() -> Iterator[tuple[str, str, "Field[Any]", Rule]]:
    """Every setting as (section, key, field, rule), in the order of the dataclasses."""
    for section, kind in SECTIONS.items():
        for each in fields(kind):
            yield section, each.name, each, each.metadata["rule"]


def type_of(section: str, key: str) -> Any:
    """The annotated type of a setting."""
    return get_type_hints(SECTIONS[section])[key]


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
            given[key] = _Given(_checked(key, value, path.name, text=False), str(path), path.name)
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
            given[key] = _Given(_checked(key, text, variable, text=True), variable, variable)
    return given


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
        raise ValueError(f"{value!r} is not one of {', '.join(get_args(wanted))}")
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
    for part in texts:
        if "\0" in part:
            raise ValueError(f"{part!r} holds a NUL character")
        if rule.pattern and not re.fullmatch(rule.pattern, part):
            raise ValueError(f"{part!r}: wanted: {rule.wanted}")


def _assemble(given: Mapping[str, _Given], folders: Sequence[Path]) -> Loaded:
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
    settings = Settings(**{section: SECTIONS[section](**values) for section, values in sections.items()})
    try:
        for key, problem in _contradictions(settings):
            raise _Blame(key, problem)
        return _completed(settings, origin)
    except _Blame as blame:
        source = f"{given[blame.key].name}: " if blame.key in given else ""
        raise ConfigError(f"{source}{blame.key}: {blame.problem}") from blame.__cause__


def _contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is wrong between settings, or with one beyond its type: the key to blame and the problem."""
    etcd, process, traefik, drain, probe = (
        settings.etcd, settings.process, settings.traefik, settings.drain, settings.probe,
    )  # fmt: skip
    yield from _host_name_problem(settings)
    for key, path in (("ca_file", etcd.ca_file), ("cert_file", etcd.cert_file), ("key_file", etcd.key_file)):
        if path is not None and not path.is_file():
            yield f"etcd.{key}", f"{path}: no such file"
    if etcd.cert_file and not etcd.key_file:
        yield "etcd.cert_file", "needs etcd.key_file beside it"
    if etcd.key_file and not etcd.cert_file:
        yield "etcd.key_file", "needs etcd.cert_file beside it"
    if etcd.cert_file and not etcd.ca_file:
        yield "etcd.cert_file", "needs etcd.ca_file, which turns TLS on"
    if etcd.password and etcd.password_file:
        yield "etcd.password_file", "etcd.password is set too; keep one of them"
    if etcd.user and not (etcd.password or etcd.password_file):
        yield "etcd.user", "needs etcd.password_file"
    if (etcd.password or etcd.password_file) and not etcd.user:
        yield "etcd.password_file" if etcd.password_file else "etcd.password", "needs etcd.user"
    for endpoint in etcd.endpoints:
        if not 1 <= int(endpoint.rstrip("/").rpartition(":")[2]) <= 65535:
            yield "etcd.endpoints", f"{endpoint!r}: ports are 1 to 65535"
    if settings.service.retry_max_s < settings.service.retry_min_s:
        yield "service.retry_max_s", f"is below service.retry_min_s ({settings.service.retry_min_s:g})"
    if settings.instance.runtime == "process":
        yield from _process_problems(settings)
    for name in process.env:
        if not name or "=" in name or "\0" in name + process.env[name]:
            yield "process.env", f"{name!r}: not the name of a variable"
        if name in _RESERVED or name.startswith("OUTRIDER_"):
            yield "process.env", f"{name}: is set by outrider itself"
    if settings.instance.balancer == "traefik" and not traefik.service:
        yield "traefik.service", "missing; name the app's service in Traefik, or set instance.balancer to none"
    if (probe.successes - 1) * probe.interval_s >= probe.deadline_s:
        yield (
            "probe.deadline_s",
            (f"{probe.successes} answers at {probe.interval_s:g} s each can't come within {probe.deadline_s:g} s"),
        )
    if drain.wait_s > drain.max_s:
        yield "drain.max_s", f"is below drain.wait_s ({drain.wait_s:g})"


def _host_name_problem(settings: Settings) -> Iterator[tuple[str, str]]:
    """The default of ``instance.id`` is the host name, which ``_checked`` never saw."""
    rule = next(rule for section, key, _, rule in all_fields() if (section, key) == ("instance", "id"))
    if not re.fullmatch(rule.pattern, settings.instance.id):
        yield "instance.id", f"the host name {settings.instance.id!r} can't be used; set it: {rule.wanted}"


def _process_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    if not settings.process.command or not settings.process.command[0]:
        yield "process.command", 'missing; for example ["./server", "--port", "{port}"]'
    if settings.process.host in ("0.0.0.0", "::", "*"):  # noqa: S104 - refused here, not used
        yield (
            "process.host",
            f"{settings.process.host!r} is no address that a balancer can send to; name this machine's",
        )
    try:
        ports = port_range(settings.process.ports)
    except ValueError as problem:
        yield "process.ports", f"{settings.process.ports!r}: {problem}"
        return
    if settings.instance.strategy == "start-first" and ports is not None and ports[0] == ports[1]:
        yield (
            "process.ports",
            (
                f"start-first runs two versions at once, and {settings.process.ports!r} is one port; "
                f"give a range, or set instance.strategy to stop-first"
            ),
        )


def _completed(settings: Settings, origin: dict[str, str]) -> Loaded:
    """Fill in what depends on other settings, and read the password."""
    instance, etcd = settings.instance, settings.etcd
    if not settings.traefik.server_id:
        settings = replace(settings, traefik=replace(settings.traefik, server_id=instance.id))
    if etcd.password_file:
        try:
            password = etcd.password_file.read_text().rstrip("\r\n")
        except OSError as error:
            reason = error.strerror or str(error)
            raise _Blame("etcd.password_file", f"{etcd.password_file}: can't be read: {reason}") from error
        except UnicodeDecodeError as error:
            raise _Blame("etcd.password_file", f"{etcd.password_file}: not UTF-8") from error
        if not password:
            raise _Blame("etcd.password_file", f"{etcd.password_file}: is empty")
        settings = replace(settings, etcd=replace(etcd, password=Secret(password)))
        origin["etcd.password"] = str(etcd.password_file)
    return Loaded(settings=settings, origin=origin)
