"""Who checks in: an instance that proves itself, or anybody (P13).

A sidekick proves itself with the secret of its process. The secret's digest is in its presence, which nobody else may
write. A client without a sidekick proves itself with a token in its address. Each proof holds for one app and group,
and for one instance, or with a group's token for those that no sidekick ever spoke for.

An unproved check-in of an instance that was ever proved changes nothing, whatever the group asks for: it gets "no
update", and a note. The note is one small document for each group, written now and then: a stranger can't flood it.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from outrider.core.client_tokens import ClientToken
from outrider.core.errors import Throttled
from outrider.model.documents import Group, Instance, Presence
from outrider.model.identity import StoredToken, UnprovedCheckin, UnprovedCheckins
from outrider.service.store.changes import Change
from outrider.service.store.context import StoreContext

HEADER = "X-Outrider-Identity"
"""Carries the secret of a sidekick's process. It is never logged."""
NOTED_AFTER = timedelta(seconds=30)
"""The least time between two notes of a group."""
TOLD_AFTER = timedelta(hours=1)
"""The least time between two lines about it in the activity log."""
MAX_KNOWN, MAX_OTHERS = 20, 5
"""Names that a note holds."""
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a request brings as proof.

    Attributes:
        secret: Of a sidekick's process; empty: none.
        token: Of a client without a sidekick; None: none.
    """

    secret: str = field(default="", repr=False)
    token: ClientToken | None = None

    @property
    def digest(self) -> str:
        """Tells claims apart without giving them away; empty without one."""
        text = self.secret or (self.token.text if self.token is not None else "")
        return hashlib.sha256(text.encode()).hexdigest() if text else ""


NO_CLAIM = Claim()


def read_claim(header: str, token: ClientToken | None = None) -> Claim:
    """What the header says; anything that can't be a secret is none."""
    return Claim(secret=header if _SECRET.fullmatch(header) else "", token=token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a check-in is worth.

    Attributes:
        proved: It is the instance that it says it is.
        by_sidekick: The secret in its presence proved that.
        refusal: Why it changes nothing; empty: it goes on.
        is_protected: It is refused because the instance is known by its proofs.
    """

    proved: bool
    by_sidekick: bool = False
    refusal: str = ""
    is_protected: bool = False


def known_presence(change: Change, key: str) -> Presence | None:
    """The presence at ``key``, as exactly as a verdict needs it: no check-in is called unproved by an older one.

    It comes with the other keys of a check-in, in one linearizable read.
    """
    return change.read_or_none(Presence, key)


def proves(presence: Presence | None, secret: str) -> bool:
    """Whether the presence is of the process that has this secret."""
    if presence is None or not secret or not has_proof(presence):
        return False
    return hmac.compare_digest(presence.secret_sha256, hashlib.sha256(secret.encode()).hexdigest())


def has_proof(presence: Presence | None) -> bool:
    """A sidekick that proves itself lives."""
    return presence is not None and _DIGEST.fullmatch(presence.secret_sha256) is not None


def standing_of(
    context: StoreContext, change: Change, claim: Claim, group: Group, instance: str, row: Instance | None
) -> Standing:
    """Judge a check-in.

    Args:
        change: Where the group is read already; gets the mark that the group has a sidekick.
        row: Of the instance; None: it never checked in.

    Raises:
        Throttled: a sidekick of that name lives in another group, where nothing was proved.
    """
    keys, app = context.keys, group.app
    presence = known_presence(change, keys.presence(app, group.id, instance))
    elsewhere = row is not None and row.group != group.id and _lives(change, keys.presence(app, row.group, instance))
    if proves(presence, claim.secret):
        if elsewhere:
            assert row is not None, "it lives elsewhere by its row"
            raise Throttled(
                f"instance {instance} is a living sidekick of group {row.group}, too: give each machine an instance.id"
                " of its own; if that one has ended, its presence ends with its lease",
                retry_after_s=10.0,
            )
        _mark(change, context, group)
        return Standing(proved=True, by_sidekick=True)
    if has_proof(presence):
        _mark(change, context, group)
    by_sidekick = has_proof(presence) or elsewhere
    token = claim.token
    if token is not None and not by_sidekick and _is_given(context, change, token, app, group.id, instance, row):
        return Standing(proved=True)
    if by_sidekick or (row is not None and row.proved):
        return Standing(proved=False, refusal=_words(group, claim, instance, known=True), is_protected=True)
    if group.requires_identity:
        return Standing(proved=False, refusal=_words(group, claim, instance, known=False))
    return Standing(proved=False)


def _lives(change: Change, key: str) -> bool:
    return has_proof(known_presence(change, key))


def _mark(change: Change, context: StoreContext, group: Group) -> None:
    """From now on the group has had a sidekick that proves itself."""
    if not group.had_sidekick:
        change.put(context.keys.group(group.app, group.id), msgspec.structs.replace(group, had_sidekick=True))


def _is_given(
    context: StoreContext,
    change: Change,
    token: ClientToken,
    app: str,
    group: str,
    instance: str,
    row: Instance | None,
) -> bool:
    """Whether a token that was given out, and not taken back, proves the check-in."""
    stored = change.read_or_none(StoredToken, context.keys.client_token(app, token.id))
    given = hashlib.sha256(token.text.encode()).hexdigest()
    if stored is None or not hmac.compare_digest(stored.token_sha256.encode(), given.encode()):
        return False
    if not stored.instance and row is not None and row.had_sidekick and row.proved:
        return False  # whoever has the token of all clients is none of the group's sidekicks
    return stored.is_for(app, group, instance)


def _words(group: Group, claim: Claim, instance: str, *, known: bool) -> str:
    if claim.token is not None:
        why = f"its client token {claim.token} is revoked, or for another app, group or instance"
    elif claim.secret:
        why = f"its secret is not that of the sidekick that is {instance} in etcd"
    else:
        why = "it brought no proof of who it is"
    what = f"{instance} was proved before" if known else f"group {group.id} asks for one"
    return (
        f"unproved check-in: {why}, and {what}; a sidekick sends its proof over https or on its own machine"
        " (service.allow_plain_identity), another client needs `outrider client-token create`"
    )


def note_unproved(context: StoreContext, change: Change, group: Group, one: UnprovedCheckin, *, known: bool) -> None:
    """Remember an unproved check-in, unless one of the group was noted a moment ago.

    Args:
        known: It is in the name of an instance that proves itself: the first of each is noted at once.
    """
    key, now = context.keys.unproved(group.app, group.id), one.last
    old = change.read_or_none(UnprovedCheckins, key)
    if old is None:
        old = UnprovedCheckins(group=group.id, at=now, told_at=now)
    else:
        is_first = known and len(old.known) < MAX_KNOWN and all(each.instance != one.instance for each in old.known)
        if now - old.at < NOTED_AFTER and not is_first:
            return
    listed = old.known if known else old.others
    most = MAX_KNOWN if known else MAX_OTHERS
    before = next((each for each in listed if each.instance == one.instance), None)
    rest = tuple(each for each in listed if each is not before)
    newest = one if before is None else msgspec.structs.replace(one, count=before.count + 1)
    listed = (*rest, newest)[-most:]
    new = msgspec.structs.replace(old, at=now, told_at=_told(old.told_at, now))
    change.put(
        key, msgspec.structs.replace(new, known=listed) if known else msgspec.structs.replace(new, others=listed)
    )


def _told(before: datetime, now: datetime) -> datetime:
    return now if now - before >= TOLD_AFTER else before
