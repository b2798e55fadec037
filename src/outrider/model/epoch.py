"""The epoch of an etcd: how a process notices that etcd was set back to an older state (P8, P12).

The update service writes a new token every minute, and keeps the last ones with it. Whoever has seen a token that is no
longer among them knows that etcd was restored, whatever its revisions are by now.
"""

from collections import deque
from datetime import datetime

from outrider.model.documents import Document

KEPT_TOKENS = 100
RENEWED_S = 60.0


class Epoch(Document, frozen=True, kw_only=True):
    """``cluster/epoch``.

    Attributes:
        token: Random, renewed every minute.
        earlier: The tokens before it, the newest last; at most ``KEPT_TOKENS``.
    """

    token: str
    earlier: tuple[str, ...] = ()
    at: datetime

    def followed_by(self, token: str, at: datetime) -> "Epoch":
        """The next one."""
        return Epoch(token=token, earlier=(*self.earlier, self.token)[-KEPT_TOKENS:], at=at)


class SeenEpochs:
    """What one process has seen of the epoch. For one thread at a time."""

    def __init__(self) -> None:
        self._tokens: deque[str] = deque(maxlen=KEPT_TOKENS)
        self._revision = 0

    def knows(self, token: str) -> bool:
        """Whether this token was seen, and etcd wasn't restored since."""
        return token in self._tokens

    @property
    def newest(self) -> str:
        """The last token; empty when none was seen."""
        return self._tokens[-1] if self._tokens else ""

    def saw(self, epoch: Epoch | None, revision: int) -> str:
        """Note what is stored at ``revision`` (None: nothing), and say why etcd must have been restored.

        Returns:
            The reason in words; empty when what is stored follows what was seen before.
        """
        chain = () if epoch is None else (*epoch.earlier, epoch.token)
        why = ""
        if revision < self._revision:
            why = f"its revision went back from {self._revision} to {revision}"
        elif self._tokens and self._tokens[-1] not in chain:
            why = "its epoch doesn't follow the one that was seen before"
        self._revision = revision
        if why:
            self._tokens.clear()
        self._tokens.extend(token for token in chain if token not in self._tokens)
        return why
