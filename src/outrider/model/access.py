"""Who may read and write which keys, as one table: what `outrider database roles` makes etcd's roles of.

A *family* is a form of key, such as ``presence/{app}/{group}/{instance}``. Each family has a row; a key without one
fails ``tests/security/test_access_of_keys.py``. The roles:

- *sidekick*: writes its own keys, and reads what its group says. Some families hold what the instances of a group, or
  of an app, decide together: blocks, proofs, tasks, the counts of an analysis. These it writes as a whole.
- *agent*: a balancer agent of one service.
- *service*: the update service, and whoever works on etcd as an operator does. It writes everything below the prefix.
- *status*: ``outrider status`` and ``why`` on etcd itself; reads what holds no secret.
- *backup*: reads everything below the prefix.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from outrider.model.documents import Contender
from outrider.model.keys import Keys

Access = Literal["read", "readwrite"]


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """One key, or all keys that begin with it, and what a role may do there."""

    key: str
    prefix: bool
    access: Access


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidekick:
    """A sidekick, as far as its role needs it.

    Attributes:
        us: The instance, and where it takes turns.
        slots: How many turns its scope may have: it gets its own key of each.
        service, server_id: Of the balancer; empty: there is none.
    """

    us: Contender
    slots: int
    service: str = ""
    server_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A balancer agent: its service and its name."""

    service: str
    name: str


SidekickRanges = Callable[[Keys, Sidekick], Sequence[Range]]
AgentRanges = Callable[[Keys, Agent], Sequence[Range]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One form of key.

    Attributes:
        form: Below the prefix; ``{name}`` stands for one part, ``**`` at the end for any number of them.
        secret: It holds secrets, or digests of them: not for the role *status*.
    """

    form: str
    sidekick: SidekickRanges = lambda keys, who: ()
    agent: AgentRanges = lambda keys, who: ()
    secret: bool = False

    def matches(self, below: str) -> bool:
        """Whether ``below``, a key without the prefix, is of this form."""
        forms, parts = self.form.split("/"), below.split("/")
        if forms[-1] == "**":
            forms.pop()
            parts = parts[: len(forms)] if len(parts) > len(forms) and parts[-1] else []
        return len(forms) == len(parts) and all(
            form == part or (part != "" and form.startswith("{")) for form, part in zip(forms, parts, strict=True)
        )


def _read(key: str, *, prefix: bool = False) -> Range:
    return Range(key, prefix, "read")


def _write(key: str, *, prefix: bool = False) -> Range:
    return Range(key, prefix, "readwrite")


def _below(key: str, *, write: bool = False) -> Range:
    return Range(key, True, "readwrite" if write else "read")


def _turns(keys: Keys, who: Sidekick) -> Sequence[Range]:
    us = who.us
    budgets = [keys.budget(us.scope, label, value) for label, value in us.labels.items()]
    return (
        _below(keys.turns(us.scope)),
        _write(keys.waiter(us.scope, us.member)),
        _write(keys.ticket(us.scope, us.member)),
        *(_write(keys.slot(us.scope, number, us.member)) for number in range(who.slots)),
        *(_write(f"{budget}{number}/{us.member}") for budget in budgets for number in range(who.slots)),
    )


def _own_scope(keys: Keys, who: Sidekick) -> Sequence[Range]:
    return () if who.us.shared_scope else _turns(keys, who)


def _shared_scope(keys: Keys, who: Sidekick) -> Sequence[Range]:
    """Who shares a queue with other groups reads their targets and presences, too: their budgets count there."""
    if not who.us.shared_scope:
        return ()
    return (*_turns(keys, who), _below(keys.apps()), _below(keys.all_presences()))


def _servers(keys: Keys, who: Sidekick) -> Sequence[Range]:
    if not who.service:
        return ()
    return (_below(keys.servers(who.service)), _write(keys.server(who.service, who.server_id)))


def _entries(keys: Keys, who: Sidekick) -> Sequence[Range]:
    return (_below(f"{keys.server(who.service, who.server_id)}/", write=True),) if who.service else ()


FAMILIES: tuple[Family, ...] = (
    Family(
        form="cluster/epoch",
        sidekick=lambda k, w: (_read(k.epoch()),),
        agent=lambda k, w: (_read(k.epoch()),),
    ),
    Family(form="cluster/confirmed"),
    Family(form="cluster/users-existed", secret=True),
    Family(form="products/{product}"),
    Family(form="apps/{app}"),
    Family(form="apps/{app}/packages/{version}", sidekick=lambda k, w: (_below(k.packages(w.us.app)),)),
    Family(form="apps/{app}/signatures/{version}", sidekick=lambda k, w: (_below(k.all_signatures(w.us.app)),)),
    Family(form="apps/{app}/key-lists", sidekick=lambda k, w: (_read(k.key_lists(w.us.app)),)),
    Family(
        form="apps/{app}/releases/{release}/proved", sidekick=lambda k, w: (_below(k.proofs(w.us.app), write=True),)
    ),
    Family(form="apps/{app}/channels/{channel}"),
    Family(form="apps/{app}/groups/{group}"),
    Family(form="apps/{app}/groups/{group}/target", sidekick=lambda k, w: (_read(k.target(w.us.app, w.us.group)),)),
    Family(form="apps/{app}/groups/{group}/rollout"),
    Family(form="apps/{app}/groups/{group}/served"),
    Family(form="apps/{app}/groups/{group}/brake", sidekick=lambda k, w: (_read(k.brake(w.us.app, w.us.group)),)),
    Family(
        form="apps/{app}/groups/{group}/grants/{instance}",
        sidekick=lambda k, w: (_write(k.grant(w.us.app, w.us.group, w.us.instance)),),
    ),
    Family(form="apps/{app}/groups/{group}/deferrals/{instance}"),
    Family(form="apps/{app}/groups/{group}/unproved"),
    Family(form="unresolved/{app}/{version}"),
    Family(form="client-tokens/{app}/{token}", secret=True),
    Family(
        form="environments/{app}/{group}/{number}",
        sidekick=lambda k, w: (_below(k.environments(w.us.app, w.us.group)),),
        secret=True,
    ),
    Family(form="frames/{app}/{group}"),
    Family(form="hawk-nonces/{user}/{nonce}", secret=True),
    Family(form="analysis/{app}/{group}", sidekick=lambda k, w: (_write(k.analysis(w.us.app, w.us.group)),)),
    Family(form="instances/{app}/{instance}"),
    Family(
        form="presence/{app}/{group}/{instance}",
        sidekick=lambda k, w: (
            _below(k.presences(w.us.app)),
            _write(k.presence(w.us.app, w.us.group, w.us.instance)),
        ),
    ),
    Family(
        form="strangers/{app}/{instance}/{process}",
        sidekick=lambda k, w: (
            _below(k.strangers(w.us.app)),
            _below(k.strangers_of(w.us.app, w.us.instance), write=True),
        ),
    ),
    Family(form="gone/{app}/{instance}", sidekick=lambda k, w: (_write(k.gone(w.us.app, w.us.instance)),)),
    Family(form="admissions/{app}/{instance}", sidekick=lambda k, w: (_write(k.admission(w.us.app, w.us.instance)),)),
    Family(
        form="running/{app}/{group}/{instance}/{release}",
        sidekick=lambda k, w: (
            _below(k.running(w.us.app)),
            _below(k.running_of(w.us.app, w.us.group, w.us.instance), write=True),
        ),
    ),
    Family(
        form="tasks/{app}/{group}/{digest}/{task}",
        sidekick=lambda k, w: (
            _below(k.tasks(w.us.app, w.us.group), write=True),
            _below(k.tasks(w.us.app, ""), write=True),
        ),
    ),
    Family(
        form="oldest/{app}/{group}",
        sidekick=lambda k, w: (_write(k.oldest(w.us.app, w.us.group)), _write(k.oldest(w.us.app, ""))),
    ),
    Family(form="wakeups/{app}/{instance}", sidekick=lambda k, w: (_read(k.wakeup(w.us.app, w.us.instance)),)),
    Family(form="commands/{app}/{instance}", sidekick=lambda k, w: (_write(k.command(w.us.app, w.us.instance)),)),
    Family(form="crashes/{app}/{instance}", sidekick=lambda k, w: (_write(k.crash(w.us.app, w.us.instance)),)),
    Family(form="turns/{app}/{group}/queue/{instance}", sidekick=_own_scope),
    Family(form="turns/{app}/{group}/slots/{n}/{instance}", sidekick=_own_scope),
    Family(form="turns/{app}/{group}/budgets/{label}/slots/{n}/{instance}", sidekick=_own_scope),
    Family(form="tickets/turns/{app}/{group}/{instance}", sidekick=_own_scope),
    Family(form="shared-turns/{scope}/queue/{app}/{instance}", sidekick=_shared_scope),
    Family(form="shared-turns/{scope}/slots/{n}/{app}/{instance}", sidekick=_shared_scope),
    Family(form="shared-turns/{scope}/budgets/{label}/slots/{n}/{app}/{instance}", sidekick=_shared_scope),
    Family(form="tickets/shared-turns/{scope}/{app}/{instance}", sidekick=_shared_scope),
    Family(form="blocks/{app}/{release}", sidekick=lambda k, w: (_below(k.blocks(w.us.app), write=True),)),
    Family(
        form="verdicts/{app}/{instance}/{release}",
        sidekick=lambda k, w: (_below(k.verdicts_of(w.us.app, w.us.instance), write=True),),
    ),
    Family(
        form="servers/{service}/{server}",
        sidekick=_servers,
        agent=lambda k, w: (_below(k.servers(w.service)),),
    ),
    Family(
        form="servers/{service}/{server}/entry", sidekick=_entries, agent=lambda k, w: (_below(k.servers(w.service)),)
    ),
    Family(
        form="agents/{service}/{agent}",
        sidekick=lambda k, w: (_below(k.agents(w.service)),) if w.service else (),
        agent=lambda k, w: (_write(k.agent(w.service, w.name)),),
    ),
    Family(
        form="applied/{service}/{agent}",
        sidekick=lambda k, w: (_below(k.applied_by(w.service)),) if w.service else (),
        agent=lambda k, w: (_write(k.applied(w.service, w.name)),),
    ),
    Family(form="activity/{app}/{record}"),
    Family(form="activity-seen"),
    Family(form="history/{app}/{group}/{chunk}"),
    Family(form="history-seen"),
    Family(
        form="steps/{app}/{group}/{instance}",
        sidekick=lambda k, w: (_write(k.steps(w.us.app, w.us.group, w.us.instance)),),
    ),
    Family(form="users/{user}", secret=True),
    Family(form="sessions/{digest}", secret=True),
    Family(form="page-links/{digest}", secret=True),
    Family(form="webhooks/{webhook}", secret=True),
    Family(form="webhook-outbox/**", secret=True),
    Family(form="webhook-senders/**", secret=True),
    Family(form="audit/days/{day}", secret=True),
    Family(form="audit/heads/{chain}", secret=True),
    Family(form="audit/entries/{day}/**", secret=True),
    Family(form="payloads/{sha256}"),
    Family(form="restoring"),
    Family(form="ready"),
)


def family_of(below: str) -> Family | None:
    """The family of a key without the prefix; None: it has no row."""
    return next((family for family in FAMILIES if family.matches(below)), None)


def sidekick_ranges(keys: Keys, who: Sidekick) -> tuple[Range, ...]:
    """All that a sidekick's role permits below the prefix."""
    return _joined(one for family in FAMILIES for one in family.sidekick(keys, who))


def agent_ranges(keys: Keys, who: Agent) -> tuple[Range, ...]:
    """All that a balancer agent's role permits."""
    return _joined(one for family in FAMILIES for one in family.agent(keys, who))


def service_ranges(keys: Keys) -> tuple[Range, ...]:
    """All that the update service's role permits below the prefix."""
    return (_below(f"{keys.prefix}/", write=True),)


def backup_ranges(keys: Keys) -> tuple[Range, ...]:
    """All that a backup's role permits."""
    return (_below(f"{keys.prefix}/"),)


def status_ranges(keys: Keys) -> tuple[Range, ...]:
    """All that the role for reading permits: the top folders in which nothing is secret."""
    tops = {family.form.split("/")[0] for family in FAMILIES if family.secret}
    mixed = {"cluster"}
    assert all(family.secret for family in FAMILIES if family.form.split("/")[0] in tops - mixed), "a folder is both"
    ranges = [_read(keys.epoch())]
    for family in FAMILIES:
        top, slash, _ = family.form.partition("/")
        if top not in tops:
            ranges.append(_below(f"{keys.prefix}/{top}/") if slash else _read(f"{keys.prefix}/{top}"))
    return _joined(ranges)


def _joined(ranges: "Iterator[Range] | Sequence[Range]") -> tuple[Range, ...]:
    """Each range once; reading is a part of writing."""
    found = set(ranges)
    return tuple(
        sorted(
            one for one in found if one.access == "readwrite" or Range(one.key, one.prefix, "readwrite") not in found
        )
    )
