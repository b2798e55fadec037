"""Every etcd key that outrider writes, spelled in one place (design, section 5).

Names in keys are checked here: a part never holds ``/`` and is never empty, so one key can't be read as another.
"""

import re
from dataclasses import dataclass

from outrider.core.errors import ConfigError

DEFAULT_PREFIX = "/outrider/v1"
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@:-]{0,127}")


def check_part(what: str, text: str) -> str:
    """Return ``text`` if it may be a part of a key, else raise.

    Raises:
        ConfigError: empty, longer than 128 characters, or with characters outside ``A-Z a-z 0-9 . _ + @ : -``.
    """
    if not _PART.fullmatch(text):
        raise ConfigError(
            f"{what} {text!r}: use 1 to 128 letters, digits or . _ + @ : - and begin with a letter or a digit"
        )
    return text


@dataclass(frozen=True, slots=True)
class Keys:
    """Builds keys below ``prefix`` (no slash at its end)."""

    prefix: str = DEFAULT_PREFIX

    def apps(self) -> str:
        """Prefix of all app documents and of what is below them."""
        return f"{self.prefix}/apps/"

    def app(self, app: str) -> str:
        return f"{self.prefix}/apps/{check_part('app', app)}"

    def product(self, product: str) -> str:
        return f"{self.prefix}/products/{check_part('product id', product)}"

    def packages(self, app: str) -> str:
        return f"{self.app(app)}/packages/"

    def package(self, app: str, version: str) -> str:
        return self.packages(app) + check_part("version", version)

    def channels(self, app: str) -> str:
        return f"{self.app(app)}/channels/"

    def channel(self, app: str, channel: str) -> str:
        return self.channels(app) + check_part("channel", channel)

    def groups(self, app: str) -> str:
        return f"{self.app(app)}/groups/"

    def group(self, app: str, group: str) -> str:
        return self.groups(app) + check_part("group", group)

    def target(self, app: str, group: str) -> str:
        """What the group's instances shall run; watched by every sidekick of the group."""
        return f"{self.group(app, group)}/target"

    def rollout(self, app: str, group: str) -> str:
        return f"{self.group(app, group)}/rollout"

    def grants(self, app: str, group: str) -> str:
        return f"{self.group(app, group)}/grants/"

    def grant(self, app: str, group: str, instance: str) -> str:
        return self.grants(app, group) + check_part("instance", instance)

    def held(self, app: str, group: str) -> str:
        """Prefix of those who wait for the service's word, in order of their create revisions."""
        return f"{self.group(app, group)}/held/"

    def held_one(self, app: str, group: str, instance: str) -> str:
        return self.held(app, group) + check_part("instance", instance)

    def instances(self, app: str) -> str:
        return f"{self.prefix}/instances/{check_part('app', app)}/"

    def instance(self, app: str, instance: str) -> str:
        return self.instances(app) + check_part("instance", instance)

    def presences(self, app: str) -> str:
        return f"{self.prefix}/presence/{check_part('app', app)}/"

    def presence(self, app: str, group: str, instance: str) -> str:
        return f"{self.presences(app)}{check_part('group', group)}/{check_part('instance', instance)}"

    def summons(self, app: str, instance: str) -> str:
        return f"{self.prefix}/summons/{check_part('app', app)}/{check_part('instance', instance)}"

    def turns(self, scope: str) -> str:
        """Prefix of one scope's queue and slots."""
        return f"{self.prefix}/turns/{check_part('scope', scope)}/"

    def queue(self, scope: str) -> str:
        return f"{self.turns(scope)}queue/"

    def waiter(self, scope: str, instance: str) -> str:
        return self.queue(scope) + check_part("instance", instance)

    def gate(self, scope: str, instance: str) -> str:
        """What an instance's first write to the queue goes through: once closed it refuses the write for ever."""
        return f"{self.prefix}/gates/{check_part('scope', scope)}/{check_part('instance', instance)}"

    def slots(self, scope: str) -> str:
        return f"{self.turns(scope)}slot/"

    def slot(self, scope: str, number: int) -> str:
        return f"{self.slots(scope)}{number}"

    def server(self, service: str, server_id: str) -> str:
        """The stamp of a server's entry in the balancer; ``service`` is the balancer's name for the app's pool."""
        return f"{self.prefix}/servers/{check_part('service', service)}/{check_part('server id', server_id)}"

    def poisons(self, app: str) -> str:
        return f"{self.prefix}/poison/{check_part('app', app)}/"

    def poison(self, app: str, version: str) -> str:
        return self.poisons(app) + check_part("version", version)

    def command(self, app: str, instance: str) -> str:
        return f"{self.prefix}/commands/{check_part('app', app)}/{check_part('instance', instance)}"

    def activity(self, app: str) -> str:
        return f"{self.prefix}/activity/{check_part('app', app)}/"

    def users(self) -> str:
        return f"{self.prefix}/users/"

    def user(self, name: str) -> str:
        return self.users() + check_part("user", name)

    def audit_days(self) -> str:
        """Prefix of the days that have entries in the audit log."""
        return f"{self.prefix}/audit/days/"

    def audit_entries(self, day: str) -> str:
        """Prefix of one day's entries in the audit log; ``day`` is ``YYYY-MM-DD``."""
        return f"{self.prefix}/audit/entries/{check_part('day', day)}/"
