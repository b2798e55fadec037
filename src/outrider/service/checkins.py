"""An instance checks in: its row is brought up to date, its events are booked, its question is answered.

Events are facts, not requests: they are always acknowledged, a repeat changes nothing, and none is ever thrown away
because the row was written a moment ago. Statuses bear the names that CoreUpdate and Nebraska use.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import assert_never
from urllib.parse import quote

import msgspec
from loguru import logger

from outrider.cluster.documents import App, Group, Happening, Instance, Package, Poison, Target
from outrider.cluster.keys import check_part
from outrider.core.errors import ConfigError
from outrider.core.omaha import (
    AppAnswer,
    AppRequest,
    NoUpdate,
    Offer,
    OfferedPackage,
    OmahaEvent,
    OmahaRequest,
    OmahaResponse,
    UpdateCheck,
    answer_app,
)
from outrider.core.policy import Grant, Hold, Situation, Verdict, decide
from outrider.service.changes import Change, apply
from outrider.service.nouns import Place, absent_app

QUIET = timedelta(seconds=30)
"""A row of which nothing but ``last_seen`` changed is written this often at most."""
MAX_HISTORY = 50
MAX_WORD = 128
"""Characters kept of what a client says of itself; the endpoint asks nobody who they are."""

NOISE = frozenset({"1:0"})
"""updatectl's ``watch`` sends it with every poll, and means nothing by it."""
RUNNING = "3:2"
STATUS = {
    "13:1": "downloading",
    "14:1": "downloaded",
    "800:1": "installed",
    "3:1": "complete",
    RUNNING: "complete",
    "3:0": "error",
}
UNDER_WAY = frozenset({"update-granted", "downloading", "downloaded", "installed", "on-hold"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, and by which address of ours.

    Attributes:
        address: The client's IP address; empty when unknown.
        base_url: Where the client reaches this service, without a slash at the end; stored payloads are served there.
    """

    address: str
    base_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkins:
    """Answers Omaha requests; every app of a request is answered, whatever the others are."""

    place: Place

    def answer(self, request: OmahaRequest, caller: Caller) -> OmahaResponse:
        """Answer one request.

        Raises:
            Unknown: etcd gives no answer; the whole request may be repeated.
        """
        return OmahaResponse(apps=tuple(self._answer_app(request, app, caller) for app in request.apps))

    def _answer_app(self, request: OmahaRequest, app: AppRequest, caller: Caller) -> AppAnswer:
        app_id = _key_part("app", app.app_key)
        if app_id is None or self.place.get(App, self.place.keys.app(app_id)) is None:
            logger.bind(app=app.app_id[:MAX_WORD], address=caller.address).warning("check-in for an unknown app")
            reason = absent_app(app.app_id[:MAX_WORD])
            return answer_app(app, NoUpdate(reason=reason), status="error-unknownApplication")
        group_id = _key_part("group", app.track)
        group = None if group_id is None else self.place.get(Group, self.place.keys.group(app_id, group_id))
        if group is None:
            logger.bind(app=app_id, group=app.track[:MAX_WORD], address=caller.address).warning(
                "check-in for an unknown group"
            )
            return answer_app(app, NoUpdate(reason=f"app {app_id} has no group {app.track[:MAX_WORD]!r}"))
        instance_id = _key_part("instance", app.machine_id.strip().removeprefix("{").removesuffix("}"))
        if instance_id is None:
            return answer_app(app, NoUpdate(reason=f"machineid {app.machine_id[:MAX_WORD]!r} can't name an instance"))
        check = apply(self.place.cluster, lambda change: self._book(change, request, app, group, instance_id, caller))
        return answer_app(app, check)

    def _book(
        self,
        change: Change,
        request: OmahaRequest,
        app: AppRequest,
        group: Group,
        instance_id: str,
        caller: Caller,
    ) -> UpdateCheck | None:
        keys, now = self.place.keys, self.place.now()
        key = keys.instance(group.app, instance_id)
        old = change.read(Instance, key)
        if old is None:
            change.require_only_existing(App, keys.app(group.app), absent_app(group.app))
        row = old or Instance(app=group.app, id=instance_id, group=group.id, version="", first_seen=now, last_seen=now)
        ran_before = row.version
        row = _described(row, app, group, caller)
        for event in app.events:
            line = Happening(
                at=now,
                version=_word(app.version),
                event=event.code,
                error_code=event.error_code,
                request_id=_word(request.request_id),
            )
            row = _with_event(row, event, line, ran_before)
        check: UpdateCheck | None = None
        if app.update_check:
            verdict, package = self._judge(change, group, app.version)
            row = _with_verdict(row, verdict)
            check = _answered(verdict, package, group.app, caller)
        if old is None or row != old or now - old.last_seen >= QUIET:
            change.put(key, msgspec.structs.replace(row, last_seen=now))
        return check

    def _judge(self, change: Change, group: Group, running: str) -> tuple[Verdict, Package | None]:
        """Decide by documents that the transaction compares: a grant never races a pause, a move or a mark."""
        keys = self.place.keys
        target = change.read(Target, keys.target(group.app, group.id))
        wanted = None if target is None else target.version
        poison = None if wanted is None else change.read(Poison, keys.poison(group.app, wanted))
        verdict = decide(
            Situation(
                running=running,
                wanted=wanted,
                channel=group.channel,
                paused=group.paused if target is None else target.paused,
                poisoned=None if poison is None else poison.why,
            )
        )
        if isinstance(verdict, Hold):
            return verdict, None
        package = change.read(Package, keys.package(group.app, verdict.version))
        if package is None:
            return Hold(reason=f"{verdict.version} has no package", pending=True), None
        return verdict, package


def _described(row: Instance, app: AppRequest, group: Group, caller: Caller) -> Instance:
    """What the client says of itself; an empty word never overwrites an earlier one."""
    return msgspec.structs.replace(
        row,
        group=group.id,
        version=_word(app.version) or row.version,
        alias=_word(app.alias) or row.alias,
        oem=_word(app.oem) or row.oem,
        address=caller.address or row.address,
    )


def _with_event(row: Instance, event: OmahaEvent, line: Happening, ran_before: str) -> Instance:
    if event.code in NOISE or _is_repeat(row.history, line):
        return row
    row = msgspec.structs.replace(row, history=(*row.history, line)[-MAX_HISTORY:])
    status = STATUS.get(event.code)
    if status is None or (event.code == RUNNING and not _arrived(row, line.version, ran_before)):
        return row
    return msgspec.structs.replace(
        row,
        status=status,
        granted_version=None if status in ("complete", "error") else row.granted_version,
        error_code=event.error_code if status == "error" else 0,
    )


def _arrived(row: Instance, version: str, ran_before: str) -> bool:
    """Every check says 3:2 of what runs: that ends an update only when it says so of another version than before."""
    return row.status in ("undefined", "complete") or version == row.granted_version or version != ran_before


def _is_repeat(history: tuple[Happening, ...], line: Happening) -> bool:
    """A report sent twice keeps its request id; old clients send none, so there the same line twice running counts."""
    newest = history[-1] if history else None
    if newest is not None and _facts(newest) == _facts(line) and (line.event == RUNNING or not line.request_id):
        return True
    if not line.request_id:
        return False
    return any(known.request_id == line.request_id and _facts(known) == _facts(line) for known in history)


def _facts(line: Happening) -> tuple[str, str, int]:
    return line.event, line.version, line.error_code


def _with_verdict(row: Instance, verdict: Verdict) -> Instance:
    match verdict:
        case Grant(version=version):
            return msgspec.structs.replace(row, status="update-granted", granted_version=version)
        case Hold(pending=True):
            # An error stays to be seen: it is the reason behind most of what holds an instance back.
            status = row.status if row.status == "error" else "on-hold"
            return msgspec.structs.replace(row, status=status, granted_version=None)
        case Hold():
            # Clients that never report 3:2 finish here: they ask again with what they were granted.
            if row.status in UNDER_WAY:
                return msgspec.structs.replace(row, status="complete", granted_version=None)
            return row
        case _:
            assert_never(verdict)


def _answered(verdict: Verdict, package: Package | None, app_id: str, caller: Caller) -> UpdateCheck:
    if isinstance(verdict, Hold):
        return NoUpdate(reason=verdict.reason)
    assert package is not None, "a grant comes with its package"
    return Offer(
        version=package.version,
        codebases=(codebase_of(package, app_id, caller.base_url),),
        packages=(
            OfferedPackage(name=package.name, size_bytes=package.size_bytes, sha1=package.sha1, sha256=package.sha256),
        ),
    )


def codebase_of(package: Package, app_id: str, base_url: str) -> str:
    """The folder of a package's payload, with the slash at its end."""
    if package.url is not None:
        return package.url.removesuffix(package.name)
    return f"{base_url}/packages/{quote(app_id, safe='@:+')}/{quote(package.version, safe='+')}/"


def _key_part(what: str, text: str) -> str | None:
    try:
        return check_part(what, text)
    except ConfigError:
        return None


def _word(text: str) -> str:
    return "".join(letter for letter in text[:MAX_WORD] if letter.isprintable())
