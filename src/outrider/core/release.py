"""Which release: a version, the environment it runs with, and a generation that a rolling restart counts up.

Two releases of one version are as different as two versions: one may be blocked while the other is fine. What is
compared is therefore the release. Its text for people (``label``) is unique within a group, because no number of an
environment and no generation is ever given twice there; its text for keys (``key``) is unique within an app. Neither is
ever taken apart again: whoever needs a part of a release has the value.
"""

import hashlib
import re
from dataclasses import dataclass

from outrider.core.errors import ConfigError

MAX_NUMBER = 10**9
"""Environments and generations of one group."""
_MAX_KEY = 128
"""Characters of a part of a key."""
_WIRE = re.compile(
    r"(?P<version>[^;\n]{0,200})"
    r";environment=(?P<environment>[0-9]{1,9});environment-digest=(?P<environment_digest>[0-9a-f]{64}|)"
    r";generation=(?P<generation>[0-9]{1,9});digest=(?P<sha256>[0-9a-f]{64}|)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseId:
    """One release of a group.

    Attributes:
        sha256: Of the payload, 64 lower-case hex digits; empty when it isn't known.
        environment: Number of the group's environment; 0: it has none.
        environment_digest: Of that environment, 64 lower-case hex digits; empty without one.
        generation: Of the rolling restart that made it; 0: none did.
    """

    version: str
    sha256: str = ""
    environment: int = 0
    environment_digest: str = ""
    generation: int = 0

    @property
    def is_plain(self) -> bool:
        """It is a version and nothing else, as all releases are of which foreign clients and servers know."""
        return not self.environment and not self.generation

    @property
    def label(self) -> str:
        """For people, and for what is compared within a group: ``2.4.0 with environment 7, generation 3``."""
        environment = f" with environment {self.environment}" if self.environment else ""
        generation = f", generation {self.generation}" if self.generation else ""
        return f"{self.version}{environment}{generation}"

    def key(self, group: str) -> str:
        """As a part of an etcd key: the version of a plain release.

        Any other belongs to its group: the environment that is number 7 elsewhere is another one.
        """
        if self.is_plain:
            return self.version
        text = f"{self.version}:env{self.environment}.{self.environment_digest[:8]}:gen{self.generation}:{group}"
        if len(text) <= _MAX_KEY:
            return text
        return f"{self.version[:48]}:{hashlib.sha256(text.encode()).hexdigest()}"

    def as_word(self) -> str:
        """For the wire; ``release_of`` reads it."""
        return (
            f"{self.version};environment={self.environment};environment-digest={self.environment_digest}"
            f";generation={self.generation};digest={self.sha256}"
        )


def release_of(word: str) -> ReleaseId:
    """Read what ``ReleaseId.as_word`` wrote.

    Raises:
        ConfigError: it is something else.
    """
    found = _WIRE.fullmatch(word)
    if found is None:
        raise ConfigError(
            f"release {word[:100]!r}: not"
            " VERSION;environment=NUMBER;environment-digest=DIGEST;generation=NUMBER;digest=DIGEST"
        )
    return ReleaseId(
        version=found["version"],
        sha256=found["sha256"],
        environment=int(found["environment"]),
        environment_digest=found["environment_digest"],
        generation=int(found["generation"]),
    )
