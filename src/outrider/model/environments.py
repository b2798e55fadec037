"""The environments of a group in etcd: numbered, and never changed once they are written."""

from datetime import datetime

import msgspec

from outrider.core.environment import Environment
from outrider.model.documents import Document


class GroupEnvironment(Document, frozen=True, kw_only=True):
    """``environments/{app}/{group}/{number}``.

    Secrets stand here as they are: whoever may read these keys may read them. Nobody else is told.

    Attributes:
        number: Within the group; never given twice.
        salt: Of the digest, random.
        digest: Of everything that the app is started with, 64 lower-case hex digits.
        by, why: Who made it, and what for.
    """

    number: int
    variables: dict[str, str] = msgspec.field(default_factory=dict)
    secrets: dict[str, str] = msgspec.field(default_factory=dict)
    references: dict[str, str] = msgspec.field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    salt: str
    digest: str
    by: str = ""
    why: str = ""
    at: datetime

    @property
    def environment(self) -> Environment:
        """What it says."""
        return Environment(
            variables=self.variables,
            secrets=self.secrets,
            references=self.references,
            arguments=self.arguments,
        )

    @property
    def is_whole(self) -> bool:
        """It is what was written: its digest holds."""
        return self.environment.digest(self.salt) == self.digest
