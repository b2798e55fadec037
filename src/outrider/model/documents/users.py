"""Users of the service's API."""

from datetime import datetime
from typing import Literal

from outrider.model.documents.base import Document

Role = Literal["viewer", "approver", "operator", "admin"]


class User(Document, frozen=True, kw_only=True):
    """``users/{name}``: a user of the service's API.

    Attributes:
        token_sha256: Of the token, 64 lower-case hex digits. A plain, fast hash is enough, because nobody can try
            2**256 tokens; passwords, which people choose, would need a slow one.
        token_end: The token's last four characters, for a person who wonders which one it is.
        apps: The role holds for these apps alone, by their ids; empty: for all.
        hawk_key: A second key, by which CoreUpdate's clients sign (Hawk). It must be readable: who checks a signature
            needs the key itself. Empty: the user has none.
        created: When the user was made; ``token_created`` when the present token was.
    """

    name: str
    role: Role
    token_sha256: str
    token_end: str
    apps: tuple[str, ...] = ()
    hawk_key: str = ""
    created: datetime
    token_created: datetime

    @property
    def has_hawk_key(self) -> bool:
        """It may sign requests to CoreUpdate's API."""
        return bool(self.hawk_key)
