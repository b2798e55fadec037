"""Which machine runs which outrider: what sidekicks and balancer agents say of themselves while they live."""

from dataclasses import dataclass
from typing import Literal

from outrider.model.balancer_agents import Applied
from outrider.model.documents import Presence
from outrider.service.store.context import StoreContext


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Runner:
    """A living process of outrider.

    Attributes:
        machine: Name of its host; empty: it doesn't say.
        outrider: Its version; empty: one too old to say so.
        name: ``app/group/instance`` of a sidekick, ``service/name`` of a balancer agent.
    """

    machine: str
    outrider: str
    kind: Literal["sidekick", "agent"]
    name: str


def read_versions(context: StoreContext, app: str | None = None) -> tuple[Runner, ...]:
    """All that live, by machine; with ``app`` its sidekicks alone.

    Raises:
        NotFound: there is no such app.
    """
    keys = context.keys
    prefix = keys.all_presences() if app is None else keys.presences(context.require_app(app))
    found = [
        Runner(
            machine=one.machine,
            outrider=one.outrider,
            kind="sidekick",
            name=f"{one.app}/{one.group}/{one.instance}",
        )
        for one in context.all_below(Presence, prefix)
    ]
    if app is None:
        found += [
            Runner(machine=one.machine, outrider=one.outrider, kind="agent", name=f"{one.service}/{one.name}")
            for one in context.all_below(Applied, keys.all_applied())
        ]
    return tuple(sorted(found))
