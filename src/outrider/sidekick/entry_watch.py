"""What stands in the balancer's entry is watched all the time, whoever writes it (P12).

What it means is the chart's business: it puts the entry right when the instance serves and nothing is under way.
"""

from collections.abc import Mapping

from outrider.balancers import Entry
from outrider.core.sidekick.events import BalancerChanged
from outrider.etcd.seam import Cluster
from outrider.etcd.seam import Entry as StoredKey
from outrider.etcd.subject import Subject
from outrider.sidekick.workers.worker import Post, now


class EntryWatch:
    """Tells of every change of one server's entry."""

    def __init__(self, cluster: Cluster, entry: Entry, post: Post) -> None:
        self._cluster, self._entry, self._post = cluster, entry, post
        self._subject: Subject | None = None
        self._seen = 0

    def start(self) -> None:
        """Begin; nothing happens where the balancer has no entry."""
        if self._entry.watched:
            self._subject = Subject(
                self._cluster, self._entry.watched, self.tell, exact=not self._entry.watched.endswith("/")
            )

    def look_again(self) -> None:
        """etcd was restored: read the entry anew."""
        if self._subject is not None:
            self._subject.begin_again()

    def close(self) -> None:
        if self._subject is not None:
            self._subject.close()

    def tell(self, entries: Mapping[str, StoredKey], revision: int) -> None:
        """Post what was seen. The first look after a start counts whatever was known before, as one after a restore."""
        restored = not self._seen or revision < self._seen
        self._seen = revision
        self._post(BalancerChanged(at=now(), url=self._entry.url_in(entries), revision=revision, restored=restored))
