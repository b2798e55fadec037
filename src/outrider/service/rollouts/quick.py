"""Check-ins that change nothing, answered from the read model: no transaction, no thread, no round trip.

The same code judges them (``checkins.py``), over the copy instead of etcd. Its answer counts only when it wrote nothing
and depends on no other instance. Everything else is decided by a transaction: a check-in with news, one that may get or
end a grant, one that joins or leaves the waiting list, one that nobody knows.
"""

from dataclasses import replace

from outrider.core.errors import OutriderError
from outrider.core.omaha import OmahaRequest, OmahaResponse, answer_app
from outrider.core.rollout.policy import Defer, Rule
from outrider.core.versions import NOTHING
from outrider.service.rollouts.checkins import Caller, Checkin, Checkins, key_part
from outrider.service.store.changes import Change
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


class QuickCheckins:
    """Answers from the read model, or not at all."""

    def __init__(self, checkins: Checkins, model: ReadModel) -> None:
        self._checkins, self._model = checkins, model

    async def answer(self, request: OmahaRequest, caller: Caller) -> OmahaResponse | None:
        """Answer one request; None: a transaction must decide."""
        model = self._model
        if not model.is_confirmed or not model.knows_epoch(request.seen_epoch):
            return None
        least = max(request.seen_revision, model.written)
        if model.revision < least and not await model.reached(least, CATCH_UP_S):
            return None
        with model.reading() as reader:
            # once more, at the revision that is read now: a restore may have come between
            if not model.is_confirmed or model.revision < least:
                return None
            return self._answer(request, caller, reader)

    def _answer(self, request: OmahaRequest, caller: Caller, reader: ModelReader) -> OmahaResponse | None:
        if request.copies:
            return None
        answers, verdicts = [], []
        context = replace(self._checkins.context, cluster=reader)
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
            change = Change(reader, self._model.decode)
            try:
                outcome = checkin.book(change, Leases(reader, has_group_lock=False))
            except (NeedsGroupLock, OutriderError):
                return None
            if isinstance(outcome, str) or change.has_writes:
                return None
            verdict = outcome.verdict
            if not isinstance(verdict, Defer) or verdict.by not in ALONE:
                return None
            answers.append(answer_app(app, outcome.check))
            verdicts.append((app_id, group_id, verdict))
        for told in verdicts:
            self._checkins.on_verdict(*told)
        return OmahaResponse(apps=tuple(answers))
