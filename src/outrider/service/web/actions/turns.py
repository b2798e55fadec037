"""Releasing a turn that a sidekick left behind."""

from collections.abc import Mapping, Sequence

from outrider.core.errors import Conflict, NotFound
from outrider.model.keys import group_scope
from outrider.service.rollouts.explain import count, describe_turn
from outrider.service.store.context import app_id_of
from outrider.service.store.request import Edit
from outrider.service.web.actions.rollout import API_GROUP, OF_GROUP, overview_of
from outrider.service.web.site import Action, Doing, Effect, Visit
from outrider.turns.turns import free_turn, read_scope


def _number(names: Mapping[str, str]) -> int:
    text = names["slot"]
    if not text.isdecimal() or len(text) > 6:
        raise NotFound(f"turn {text!r}: there is none")
    return int(text)


def _effect(visit: Visit, form: Mapping[str, str]) -> Effect:
    overview, number = overview_of(visit), _number(visit.names)
    scope = next((one for one in overview.scopes if not one.shared), None)
    turn = None if scope is None else next((one for one in scope.turns if one.number == number), None)
    if scope is None or turn is None or turn.state != "dirty":
        return Effect(instances=0, lines=(), refused="this turn isn't left behind any more")
    following = f"; {scope.queue[0]} swaps next" if scope.queue else ""
    lines = (
        describe_turn(scope, turn),
        f"{turn.instance} loses its turn: first make sure that it serves, or that you can do without it",
        f"{count(len(scope.queue), 'instance')} in the queue{following}",
    )
    return Effect(instances=1, lines=lines)


def _do(doing: Doing) -> Sequence[str]:
    app, group, number = app_id_of(doing.names["app"]), doing.names["group"], _number(doing.names)
    context = doing.store.context
    seen = read_scope(context.cluster, context.keys, group_scope(app, group))
    stored = seen.slots.get(number)
    if stored is None or stored.slot.member in seen.queue:
        raise Conflict(f"turn {number + 1} of group {group} isn't left behind any more; nothing was done")
    by = doing.asked.speaker("") or doing.asked.principal.name
    free_turn(context.cluster, context.keys, group_scope(app, group), seen, number, who=by, at=context.now())
    # the record of who did it, which is kept longer than the activity that `free_turn` leaves
    edit = Edit(key=f"{context.keys.group(app, group)}/turn/{number}", before=stored.entry.value, after=None)
    doing.ours.stores.audit_log.record(doing.asked, edit)
    return (f"turn {number + 1} of group {group} is free",)


RELEASE = Action(
    path=f"{OF_GROUP}/turns/{{slot}}/release",
    operation=f"POST {API_GROUP}/turns/{{slot}}/release",
    title="Release a turn of {app}/{group}",
    button="Release",
    back=OF_GROUP,
    effect=_effect,
    do=_do,
    danger=True,
)
ACTIONS = (RELEASE,)
