"""A group whose keys a test writes as sidekicks and the service do, for its history."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from outrider.etcd.seam import Cluster, Delete, Put
from outrider.model.activity import Activity, activity_key
from outrider.model.documents import Contender, Document, Presence, Target, encode
from outrider.model.history import LocalStep, LocalSteps, Step, milliseconds, pack
from outrider.model.keys import Keys, group_scope
from outrider.service.history.stories import History
from tests.support.wall_clock import NOON

APP, GROUP = "shop", "beta"


class Instances:
    """Writes what the instances of a group would write.

    Args:
        machine: The clock of an instance's machine.
    """

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        machine: Callable[[str], datetime] = lambda name: NOON,
        group: str = GROUP,
        app: str = APP,
    ) -> None:
        self.cluster, self.keys, self.machine, self.group, self.app = cluster, keys, machine, group, app

    def put(self, key: str, document: Document) -> int:
        return self.cluster.txn((), (Put(key=key, value=encode(document)),)).revision

    def delete(self, key: str) -> int:
        return self.cluster.txn((), (Delete(key=key),)).revision

    def target(self, version: str) -> int:
        return self.put(self.keys.target(self.app, self.group), Target(version=version, sha256="0" * 64))

    def is_in(self, instance: str, state: str, version: str = "1.0.0", **more: Any) -> int:
        """Its presence says that it is in ``state``."""
        fields: dict[str, Any] = {"wanted": "2.0.0", "process": f"{instance}-1", "since": self.machine(instance)} | more
        presence = Presence(instance=instance, app=self.app, group=self.group, state=state, version=version, **fields)
        return self.put(self.keys.presence(self.app, self.group, instance), presence)

    def leaves(self, instance: str) -> int:
        return self.delete(self.keys.presence(self.app, self.group, instance))

    def slot_key(self, instance: str, number: int = 0) -> str:
        return self.keys.slot(group_scope(self.app, self.group), number, instance)

    def takes_turn(self, instance: str, number: int = 0) -> int:
        us = Contender(app=self.app, group=self.group, instance=instance)
        slot = us.slot(release="2.0.0", since=self.machine(instance), update="u" * 32)
        return self.put(self.slot_key(instance, number), slot)

    def ends_turn(self, instance: str, number: int = 0) -> int:
        return self.delete(self.slot_key(instance, number))

    def event(self, kind: str, text: str, revision: int, instance: str = "", **more: Any) -> int:
        """The activity recorder has written an event of ``revision``."""
        event = Activity(at=NOON, severity="info", kind=kind, app=self.app, instance=instance, text=text, **more)
        return self.put(activity_key(self.keys, event, revision), event)

    def tells(
        self, instance: str, steps: list[LocalStep], *, update: str = "ab12cd34", outcome: str = "committed"
    ) -> int:
        """Its sidekick tells its local steps."""
        told = LocalSteps(
            app=self.app,
            group=self.group,
            instance=instance,
            update=update,
            version_before="1.0.0",
            version="2.0.0",
            outcome=outcome,
            packed=pack(steps),
        )
        return self.put(self.keys.steps(self.app, self.group, instance), told)

    def stay(
        self,
        number: int,
        state: str,
        instance: str,
        *,
        after_s: float = 0.0,
        took_s: float = 0.0,
        seen: int = 0,
        **more: Any,
    ) -> LocalStep:
        """A local step that began ``after_s`` seconds after the machine's present time."""
        began = self.machine(instance) + timedelta(seconds=after_s)
        return LocalStep(
            number=number, state=state, began=milliseconds(began), took_ms=round(took_s * 1000), seen=seen, **more
        )

    def history(self) -> History:
        """As it is stored now."""
        return History(self.cluster.list(self.keys.history(self.app, self.group)).entries, self.app, self.group)

    def told(self) -> list[tuple[int, str, str, str]]:
        """Revision, kind, instance and state (version of a target, text of a gap) of each step, as they are stored."""
        return [
            (one.revision, one.kind, one.instance, one.state or (one.version if one.kind == "target" else one.text))
            for one in self.steps()
        ]

    def steps(self) -> list[Step]:
        """All that are stored, in the order in which they came."""
        history = self.history()
        contents = [history.content(chunk) for chunk in history.chunks]
        return [step for content in contents if content is not None for step in content.steps]
