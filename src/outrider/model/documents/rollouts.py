"""Rollouts: grants, deferrals, blocked and proved releases."""

from datetime import datetime

from outrider.core.release import ReleaseId
from outrider.core.rollout.rollout import Opened, Progress
from outrider.model.documents.base import Document


class Rollout(Document, frozen=True, kw_only=True):
    """``apps/{app}/groups/{group}/rollout``: how far the group is. Every grant and every result is written here, too.

    One of another version than the target's is over; the first who grants something writes the new one. The open
    grants are only counted here; each has its own key, which is made and deleted in a transaction that writes this.
    """

    progress: Progress


class OpenGrant(Document, frozen=True, kw_only=True, omit_defaults=True):
    """``apps/{app}/groups/{group}/grants/{instance}``, without a lease.

    The service writes and deletes it, together with the rollout that counts it; it ends one that is overdue. The
    sidekick writes it once: the transaction that takes a turn for the update compares it and sets ``begun``, so a
    grant ends either before the swap begins or not at all.

    Attributes:
        version: Label of the release.
        takes_turns: The instance is a sidekick that takes a turn against this grant. The grant of any other client
            can't be taken back, because nothing tells when its update begins.
        ends_after_s: So long after the service has first seen it, an update without a result is over; 0: of an older
            version of outrider, under a lease.
        begun: When it took its turn; None before.
        begin_before: From this time on no turn is taken for it; None: no limit.
        for_new_machine, wave, in_interval: What it counts for, as in ``rollout.Opened``.
        brake: etcd revision of the group's brake when the grant was made; 0 when there was none.
        running, runs, arch, prefix, rollback_allowed, rollback_forbidden: As the instance described itself.
    """

    version: str
    at: datetime
    takes_turns: bool = False
    ends_after_s: float = 0.0
    begun: datetime | None = None
    begin_before: datetime | None = None
    for_new_machine: bool = False
    wave: int = 0
    in_interval: bool = True
    brake: int = 0
    running: str = ""
    runs: str = ""
    arch: str = ""
    prefix: str = ""
    rollback_allowed: bool = False
    rollback_forbidden: bool = False

    def opened(self, instance: str) -> Opened:
        """What the rollout counts."""
        return Opened(
            instance=instance,
            version=self.version,
            at=self.at,
            for_new_machine=self.for_new_machine,
            wave=self.wave,
            in_interval=self.in_interval,
        )


class Brake(Document, frozen=True, kw_only=True):
    """``apps/{app}/groups/{group}/brake``: its revision counts, its content is for people.

    A grant names the revision under which it was made, and no turn is taken for it under another one.

    Attributes:
        verb: What was done: pause, halt, resume, undo, reject, override-end, group-pause, group-unpause or policy.
        by: The operator's name.
        after: The revision before, so that no two brakes are alike: each is written, and has a revision of its own.
    """

    verb: str
    by: str = ""
    at: datetime
    after: int = 0


class Deferral(Document, frozen=True, kw_only=True):
    """``apps/{app}/groups/{group}/deferrals/{instance}``: a deferred instance; the create revisions are the
    order.

    What the instance said of itself stands here as well, so that it can be judged without being asked.

    Attributes:
        runs: Label of the release that it runs; empty: it names a version only.
        is_new: It never ran anything.
        asked_at: When it asked last; written anew now and then.
        woken_at: When it was called and hasn't asked since; a place is kept for it for a while.
        calls: How often it was called since it asked last.
        proved: Its check-in was.
        takes_turns: It is a sidekick's.
    """

    running: str
    runs: str = ""
    arch: str = ""
    prefix: str = ""
    rollback_allowed: bool = False
    rollback_forbidden: bool = False
    is_new: bool = False
    since: datetime
    asked_at: datetime
    woken_at: datetime | None = None
    calls: int = 0
    proved: bool = False
    takes_turns: bool = False


class Block(Document, frozen=True, kw_only=True):
    """``blocks/{app}/{release}``: a release proved bad, until an operator unblocks it.

    Attributes:
        group: Whose release it is; empty for one without environment and generation, which is every group's.
        task: Key of the task whose failure blocks it, below the prefix; empty: it was no task.
        update: The update whose turn it was proved under (``Slot.update``); empty: under none.

    It counts with its writer's own copy alone (``verdicts/{app}/{instance}/{release}``): the same bytes, in a key that
    nobody but that instance, and the service, may write.
    """

    version: str
    sha256: str
    instance: str
    why: str
    at: datetime
    group: str = ""
    task: str = ""
    update: str = ""
    environment: int = 0
    environment_digest: str = ""
    generation: int = 0

    @property
    def release(self) -> ReleaseId:
        """Which release it is."""
        return ReleaseId(
            version=self.version,
            sha256=self.sha256,
            environment=self.environment,
            environment_digest=self.environment_digest,
            generation=self.generation,
        )

    @property
    def label(self) -> str:
        """The release for people."""
        return self.release.label

    @property
    def key(self) -> str:
        """The release as a part of the key."""
        return self.release.key(self.group)


class Proof(Document, frozen=True, kw_only=True):
    """``apps/{app}/releases/{release}/proved``: an instance has committed the release. The first one stays.

    Nothing that another instance meets blocks the release from then on; it counts as that instance's failure.
    """

    version: str
    sha256: str
    instance: str
    at: datetime
