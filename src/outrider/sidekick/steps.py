"""Tells the fleet, once, what states the last update went through: for the story of the rollout.

Nothing depends on it. It is written by a thread of its own when an update has ended, and again after a start, for the
process may have ended before; whoever records it knows the update. Under the sidekick's lease: what is gone leaves
nothing behind. With a lease that was lost it is gone, too, so it is told again under the next one.
"""

from collections.abc import Callable
from pathlib import Path

from loguru import logger

from outrider.core.chart.model import Chart
from outrider.core.errors import DriverError, OutriderError
from outrider.etcd.seam import Cluster, PermissionDenied, Put
from outrider.failpoints import failpoint, for_same_instance
from outrider.journal.journal import JournalError
from outrider.model.documents import encode
from outrider.model.history import LocalSteps
from outrider.model.keys import Keys
from outrider.pool import ElasticPool, Rounds
from outrider.story.lines import StoryError, read_last_update
from outrider.story.local import EARLIER, last_story, local_steps

RETRY_S = 2.0


class StepsWriter:
    """Tells from ``start`` until ``close``."""

    def __init__(
        self, cluster: Cluster, keys: Keys, chart: Chart, journal: Path, lease: Callable[[], int | None], *,
        app: str, group: str, instance: str, pool: ElasticPool | None = None,
    ) -> None:  # fmt: skip
        """``journal``: its file. ``lease``: the sidekick's, while it can be trusted. ``pool``: lends a thread."""
        self._cluster, self._chart, self._journal, self._lease = cluster, chart, journal, lease
        self._key, self._app, self._group = keys.steps(app, group, instance), app, group
        self._due = self._started = False
        self._told: tuple[str, int | None] = "", None
        self._rounds = Rounds(pool, for_same_instance(self._round), "steps")

    def start(self) -> None:
        """Begin; returns at once."""
        self._started = True
        self._rounds.ask()

    def ended(self) -> None:
        """An update has ended, and its journal is written."""
        self._due = True
        if self._started:
            self._rounds.ask()

    def lease_granted(self) -> None:
        """What was told under the lease before is gone."""
        if self._told[0]:
            self._due = True
        if self._started:
            self._rounds.ask()

    def close(self) -> None:
        """Stop; what isn't told by then is told after the next start."""
        self._rounds.close(10.0)

    def _round(self) -> float | None:
        if not self._due:
            return None
        self._due = False
        try:
            is_told = self._tell()
        except (JournalError, StoryError, PermissionDenied) as error:  # trying again can't help
            self._say(error)
            return None
        except DriverError as error:
            self._say(error)
            is_told = False
        if is_told:
            return None
        self._due = True
        return self._rounds.hold(RETRY_S)

    def _say(self, error: OutriderError) -> None:
        logger.bind(error_kind=error.kind, cause=str(error)).debug("steps of the last update not told")

    def _tell(self) -> bool:
        """False: there is no lease now."""
        lease = self._lease()
        if lease is None:
            return False
        told = self._newest()
        if told is None or (told.update, lease) == self._told:
            return True
        with failpoint("steps.write"):
            self._cluster.txn((), (Put(key=self._key, value=encode(told), lease=lease),))
        self._told = told.update, lease
        return True

    def _newest(self) -> LocalSteps | None:
        story = last_story(read_last_update(self._journal, earlier=EARLIER), self._chart)
        return None if story is None else local_steps(story, app=self._app, group=self._group)
