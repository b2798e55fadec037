"""A task of a release as a document in etcd: its claim, its state and its result."""

from datetime import datetime
from typing import Literal

from outrider.core.release import ReleaseId
from outrider.core.tasks import TaskKind
from outrider.model.documents import Document

TaskState = Literal["due", "running", "done", "failed", "unknown"]
"""``due``: the update service has seen that it must run now, and no instance has claimed it. ``unknown``: its runner
has ended, and nobody knows how far the task came.
"""
KEPT_OUTPUT = 8 * 1024
"""Characters of what it printed that are kept: the end of it."""


class Task(Document, frozen=True, kw_only=True):
    """``tasks/{app}/{group}/{payload digest}/{task}``, without a lease.

    Who creates the key of a ``pre`` task is the one who runs it. The key of any other is created by the update service,
    as due, and whoever makes it running runs it.

    Attributes:
        group: Of the instance that runs it; of the group for which it is due.
        release: Label of the release that it was claimed for; ``key`` is that release as a part of keys.
        claim: Made anew by each claim: what its runner knows it by.
        process: Of the runner's sidekick, as its presence has it.
        code: Exit code; below 0 the number of the signal; None: it didn't come to that.
        why: How it ended, for a person; who says so, when a person did.
        output: The end of what it printed.
        repeatable: It is run again when nobody knows how it ended.
        environment, environment_digest, generation: Of that release.
    """

    app: str
    group: str
    name: str
    kind: TaskKind
    command: tuple[str, ...]
    version: str
    release: str
    key: str
    sha256: str
    state: TaskState
    instance: str
    process: str
    claim: str
    limit_s: float
    started: datetime
    ended: datetime | None = None
    code: int | None = None
    why: str = ""
    output: str = ""
    repeatable: bool = False
    environment: int = 0
    environment_digest: str = ""
    generation: int = 0

    @property
    def release_id(self) -> ReleaseId:
        """The release that it was claimed for, or is due for."""
        return ReleaseId(
            version=self.version,
            sha256=self.sha256,
            environment=self.environment,
            environment_digest=self.environment_digest,
            generation=self.generation,
        )

    @property
    def words(self) -> str:
        """For a person: what is, and what to do about it."""
        place = f"{self.app} {self.group} {self.version} {self.name}"
        match self.state:
            case "due":
                why = f": {self.why}" if self.why else ""
                return f"task {self.name} of {self.version} is due, and no instance has claimed it{why}"
            case "running":
                return f"task {self.name} of {self.version} runs on {self.instance} since {self.started:%H:%M:%S} UTC"
            case "done":
                return f"task {self.name} of {self.version} is done"
            case "failed":
                failed = f"task {self.name} of {self.version} failed on {self.instance or 'no instance'}: {self.why}"
                if self.kind == "pre":
                    return failed
                return f"{failed}; `outrider task retry` runs it again, `done` ends it, with {place}"
            case _:
                return (
                    f"task {self.name} of {self.version}: {self.why}; look what it has done, then `outrider task done`,"
                    f" `failed` or `retry` with {place}"
                )
