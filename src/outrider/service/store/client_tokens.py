"""Tokens of Omaha clients that have no sidekick: one proves an instance, or the instances of a group.

A token is shown once, when it is created; etcd has its SHA-256. A client sends it as the last part of its update
address, because these clients know no other place for it.
"""

import hashlib
import secrets
from dataclasses import dataclass

from outrider.core.client_tokens import PREFIX, is_token_id
from outrider.core.errors import Conflict, NotFound
from outrider.model.documents import App, Group
from outrider.model.identity import StoredToken
from outrider.model.keys import check_part
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import StoreContext, absent_app, app_id_of, checked_text

MAX_TOKENS = 10_000
"""Of an app: twice the instances that a group may have by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClientToken:
    """A stored token with its text, which nobody can read again."""

    stored: StoredToken
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTokens:
    """The tokens of all apps' clients."""

    context: StoreContext
    auditing: Auditing

    def list(self, app: str) -> tuple[StoredToken, ...]:
        """All tokens of an app, by id.

        Raises:
            NotFound: there is no such app.
        """
        app_id = self.context.require_app(app)
        return self.context.children(StoredToken, self.context.keys.client_tokens(app_id))

    def create(self, app: str, group: str, *, instance: str = "", note: str = "") -> NewClientToken:
        """Create a token for one instance of a group, or for all of its instances that have no sidekick.

        Raises:
            ConfigError: the instance can't be one.
            NotFound: there is no such app or group.
            Conflict: the app has too many.
        """
        app_id, keys = app_id_of(app), self.context.keys
        token_id = secrets.token_hex(6)
        token = f"{PREFIX}{token_id}_{secrets.token_urlsafe(32)}"

        def attempt(change: Change) -> NewClientToken:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            absent = f"app {app_id} has no group {group!r}; `group list` shows them"
            change.require_only_existing(Group, keys.group(app_id, group), absent)
            if len(change.list(keys.client_tokens(app_id)).entries) >= MAX_TOKENS:
                raise Conflict(f"app {app_id} has {MAX_TOKENS} client tokens already; delete those that nobody needs")
            stored = StoredToken(
                app=app_id,
                id=token_id,
                group=group,
                instance=check_part("instance", instance) if instance else "",
                token_sha256=hashlib.sha256(token.encode()).hexdigest(),
                token_end=token[-4:],
                note=checked_text("note", note),
                created=self.context.now(),
            )
            change.put(keys.client_token(app_id, token_id), stored)
            return NewClientToken(stored=stored, token=token)

        return apply(self.context.cluster, attempt, self.auditing)

    def delete(self, app: str, token_id: str) -> StoredToken:
        """Revoke a token: it proves nothing from the next check-in on.

        Raises:
            NotFound: there is no such app or token.
        """
        app_id, keys = app_id_of(app), self.context.keys
        absent = f"app {app_id} has no client token {token_id[:40]!r}; `client-token list` shows them"
        if not is_token_id(token_id):
            raise NotFound(absent)

        def attempt(change: Change) -> StoredToken:
            key = keys.client_token(app_id, token_id)
            old = change.require(StoredToken, key, absent)
            change.delete(key)
            return old

        return apply(self.context.cluster, attempt, self.auditing)
