"""Check-ins that change nothing, answered from the read model: no transaction, no thread, no round trip.

The same code judges them (``checkins.py``), over the copy instead of etcd. Its answer counts only when it wrote nothing
and depends on no other instance. Everything else is decided by a transaction: a check-in with news, a possible grant or
its end, a change of the waiting list, an unknown instance.
"""

from dataclasses import dataclass, replace

from outrider.core.errors import OutriderError
from outrider.core.omaha import OmahaRequest, OmahaResponse, answer_app
from outrider.core.rollout.policy import Defer, Rule
from outrider.core.versions import NOTHING
from outrider.model.documents import Group
from outrider.service.rollouts.checkins import Caller, Checkin, Checkins, key_part
from outrider.service.rollouts.touches import Touches
from outrider.service.store.context import StoreContext
from outrider.service.store.glance import Glance
from outrider.service.store.group_lock import Leases, NeedsGroupLock
from outrider.service.store.read_model import ModelReader, ReadModel

CATCH_UP_S = 0.2
"""How long the copy may take to reach what the client has seen; then etcd is read instead."""
ALONE: frozenset[Rule] = frozenset(
    {
        "no-release",
        "current",
        "paused",
        "off",
        "blocked",
        "version",
        "pin",
        "prefix",
        "rollout",
        "approval",
        "architecture",
        "percent",
        "freezes",
        "deny-windows",
        "windows",
    }
)
"""The rules that look at no other instance. They rank before those that do."""


@dataclass(frozen=True, slots=True)
class Later:
    """The copy must be at ``revision`` first."""

    revision: int


class QuickCheckins:
    """Answers from the read model, or not at all."""

    def __init__(self, checkins: Checkins, model: ReadModel, touches: Touches | None = None) -> None:
        """``touches``: takes the rows whose only news is that they were seen."""
        self._checkins, self._model, self._touches = checkins, model, touches
        self._context: StoreContext | None = None

    async def answer(self, request: OmahaRequest, caller: Caller) -> OmahaResponse | None:
        """Answer one request; None: a transaction must decide."""
        waited_for = 0
        while isinstance(found := self.at_once(request, caller), Later):
            if found.revision <= waited_for or not await self._model.reached(found.revision, CATCH_UP_S):
                return None
            waited_for = found.revision
        return found

    def at_once(self, request: OmahaRequest, caller: Caller) -> OmahaResponse | Later | None:
        """As ``answer``, without waiting."""
        model = self._model
        if request.copies or not model.is_confirmed or not model.knows_epoch(request.seen_epoch):
            return None
        if model.revision < request.seen_revision:
            return Later(request.seen_revision)
        with model.reading() as reader:
            # once more, at the revision that is read now: a restore may have come between
            if not model.is_confirmed or model.revision < request.seen_revision:
                return None
            return self._answer(request, caller, reader)

    def _is_new(self, context: StoreContext, app: str, group: str, instance: str) -> bool:
        """Nobody knows the instance, and it will have a row: judging it here would be for nothing."""
        keys, model = context.keys, self._model
        if any(map(model.entry, (keys.instance(app, instance), keys.gone(app, instance)))):
            return False
        entry = model.entry(keys.group(app, group))
        try:
            found = None if entry is None else model.decode(Group, entry.key, entry.value)
        except OutriderError:
            return True
        return found is not None and not found.requires_identity

    def _context_of(self, reader: ModelReader) -> StoreContext:
        if self._context is None or self._context.cluster is not reader:
            self._context = replace(self._checkins.context, cluster=reader, decode=self._model.decode)
        return self._context

    def _answer(self, request: OmahaRequest, caller: Caller, reader: ModelReader) -> OmahaResponse | Later | None:
        answers, verdicts, seen = [], [], []
        context = self._context_of(reader)
        leases = Leases(reader, has_group_lock=False)
        for app in request.apps:
            app_id, group_id = key_part("app", app.app_key), key_part("group", app.track)
            instance_id = key_part("instance", app.machine_id.strip().removeprefix("{").removesuffix("}"))
            if app_id is None or group_id is None or instance_id is None or app.version == NOTHING:
                return None
            checkin = Checkin(
                context=context,
                request=request,
                app=app,
                app_id=app_id,
                group_id=group_id,
                instance_id=instance_id,
                caller=caller,
                room=None,
                history=self._checkins.history,
                alone=True,
            )
            if self._is_new(context, app_id, group_id, instance_id):
                return None
            glance, lists = Glance(self._model, reader), reader.lists
            try:
                outcome = checkin.book(glance, leases)
            except (NeedsGroupLock, OutriderError):
                outcome = "no app"
            unseen = self._model.written if reader.lists != lists else self._model.unseen(glance.seen)
            if unseen > self._model.revision:
                return Later(unseen)  # of this process's own: it would be answered from before it
            if isinstance(outcome, str) or glance.has_writes:
                return None
            verdict = outcome.verdict
            if not isinstance(verdict, Defer) or verdict.by not in ALONE:
                return None
            if outcome.touched is not None:
                seen.append((glance.entry(context.keys.instance(app_id, instance_id)), outcome.touched))
            answers.append(answer_app(app, outcome.check))
            verdicts.append((app_id, group_id, verdict))
        if seen and (self._touches is None or not self._touches.take(seen)):
            return None
        for told in verdicts:
            self._checkins.on_verdict(*told)
        return OmahaResponse(apps=tuple(answers))
