"""The balancer ``keys``: any other consumer of etcd, such as confd or a program of the operator's, by templates.

``[keys] entries`` names the keys of one server and what stands in them. Templates know ``{service}``, ``{server}``,
``{url}``, ``{scheme}``, ``{host}`` and ``{port}``; everything else stands for itself, JSON's braces too. The address is
read back from the values, so that an entry that somebody changed is noticed: one of them must hold ``{url}``, or
``{host}`` and ``{port}``.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from outrider.balancers import Balancer, Server
from outrider.balancers.drivers import BalancerContext
from outrider.balancers.entry import EtcdEntry
from outrider.balancers.keys import ID, ID_WORDS, checked_url
from outrider.balancers.vulcand import ByTime
from outrider.config.drivers import Problem
from outrider.config.sections import Settings, computed, setting
from outrider.core.errors import ConfigError

_WORD = re.compile(r"\{(service|server|url|scheme|host|port)\}")
_IN_VALUES = {
    "url": r"(?P<url>https?://[^\s\"']+?)",
    "scheme": r"(?P<scheme>https?)",
    "host": r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)",
    "port": r"(?P<port>[0-9]{1,5})",
}
KNOWN = "{service}, {server}, {url}, {scheme}, {host} and {port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysSettings:
    """[keys]: the keys of one server, when instance.balancer is keys."""

    entries: Mapping[str, str] = computed(
        dict,
        "Key and value of each key of a server, as templates with {service}, {server}, {url}, {scheme}, {host} and"
        " {port}. Needed when instance.balancer is keys.",
    )
    propagation_s: float = setting(
        5.0, "Longest time until whatever reads the keys follows a change: nobody can be asked.", least=0
    )


SETTINGS = KeysSettings
USES = frozenset({"service", "server_id"})


def problems(settings: Settings) -> tuple[Problem, ...]:
    """Templates that can't work."""
    shared = settings.balancer
    found = [
        (f"balancer.{key}", f"{name!r}: {ID_WORDS}")
        for key, name in (("service", shared.service), ("server_id", shared.server_id))
        if not ID.fullmatch(name)
    ]
    return (*found, *(("keys.entries", problem) for problem in _problems(settings.of(KeysSettings).entries)))


def make(settings: Settings, context: BalancerContext) -> Balancer:
    """The instance's keys."""
    own, shared = settings.of(KeysSettings), settings.balancer
    entry = EtcdEntry(
        context.cluster,
        TemplateKeys(own, service=shared.service),
        service=shared.service,
        server_id=shared.server_id,
        keys=context.keys,
        owner=context.owner,
        predecessors=context.predecessors,
    )
    return Balancer(entry=entry, observer=ByTime("keys", own.propagation_s))


class TemplateKeys:
    """Computes keys and values from the templates."""

    def __init__(self, settings: KeysSettings, *, service: str) -> None:
        """Check the templates.

        Raises:
            ConfigError: one that can't work.
        """
        for problem in _problems(settings.entries):
            raise ConfigError(f"keys.entries: {problem}")
        self.name = "keys"
        self._entries, self._service = settings.entries, service
        self._readers = {key: re.compile(_reader(value)) for key, value in settings.entries.items() if _tells(value)}

    def static_keys(self) -> Mapping[str, str]:
        """None."""
        return {}

    def server_keys(self, server: Server) -> Mapping[str, str]:
        """Every template filled in.

        Raises:
            ConfigError: an address that isn't one.
        """
        parts = urlsplit(checked_url(server.url))
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        words = {"url": server.url, "scheme": parts.scheme, "host": str(host), "port": str(parts.port)}
        return {
            self._filled(key, server.id): self._filled(value, server.id, words) for key, value in self._entries.items()
        }

    def owned_prefix(self, server_id: str) -> str:
        """The one key; of several keys what they have in common, through ``{server}/``."""
        if not ID.fullmatch(server_id):
            raise ConfigError(f"server id {server_id!r}: {ID_WORDS}")
        first = next(iter(self._entries))
        if "{server}/" in first:
            first = first[: first.index("{server}/") + len("{server}/")]
        return self._filled(first, server_id)

    def pool(self) -> tuple[str, str]:
        """As ``KeyLayout.pool``: what comes before ``{server}`` in the first template."""
        before, _, after = next(iter(self._entries)).partition("{server}")
        prefix = self._filled(before, "")
        if not prefix.strip("/"):
            return "", ""
        rest = r"/(?P<rest>.+)" if after.startswith("/") else re.escape(self._filled(after, "")) + "(?P<rest>)"
        return prefix, r"(?P<id>[^/]+?)" + rest

    def url_of(self, server_id: str, found: Mapping[str, str]) -> str | None:
        """The address that the values tell; ``http`` where none of them says the scheme."""
        for key, reader in self._readers.items():
            match = reader.fullmatch(found.get(self._filled(key, server_id), ""))
            if match is None:
                continue
            told = match.groupdict()
            return told.get("url") or f"{told.get('scheme') or 'http'}://{told['host']}:{told['port']}"
        return None

    def _filled(self, template: str, server_id: str, words: Mapping[str, str] | None = None) -> str:
        known = {"service": self._service, "server": server_id, **(words or {})}
        return _WORD.sub(lambda match: known[match[1]], template)


def _tells(value: str) -> bool:
    """Whether the address can be read back from what the template makes."""
    words = {match[1] for match in _WORD.finditer(value)}
    return "url" in words or {"host", "port"} <= words


def _reader(value: str) -> str:
    """A pattern that reads the words back from what the template makes."""
    seen: set[str] = set()
    pattern, end = "", 0
    for match in _WORD.finditer(value):
        word = match[1]
        pattern += re.escape(value[end : match.start()])
        if word in seen:
            pattern += f"(?P={word})"
        elif word in _IN_VALUES:
            pattern += _IN_VALUES[word]
            seen.add(word)
        else:
            pattern += ".+?"
        end = match.end()
    return pattern + re.escape(value[end:])


def _problems(entries: Mapping[str, str]) -> Iterator[str]:
    if not entries:
        yield 'missing; for example {"/services/{service}/{server}" = "{host}:{port}"}'
        return
    for key in entries:
        words = {match[1] for match in _WORD.finditer(key)}
        if "server" not in words:
            yield f"{key!r}: without {{server}} all servers would have the same key"
        elif words - {"service", "server"} or "{" in _WORD.sub("", key):
            yield f"{key!r}: a key may hold {{service}} and {{server}}, and no other brace"
        elif not key.strip("/") or key.endswith("/") or key != key.strip() or "\0" in key:
            yield f"{key!r}: write a whole key, without a slash or a blank at its end"
    beginnings = {key.partition("{server}/")[0] if "{server}/" in key else key for key in entries}
    if len(entries) > 1 and (len(beginnings) > 1 or not all("{server}/" in key for key in entries)):
        yield "several keys of one server must all begin alike and hold {server}/, so that they are removed together"
    if not any(_tells(value) for value in entries.values()):
        yield f"no value tells the address: one must hold {{url}}, or {{host}} and {{port}}; known are {KNOWN}"
