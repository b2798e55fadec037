"""Where an offered release comes from: an update service's answer alone makes this machine run nothing (P13).

The answer comes over the network, perhaps over plain http, and whoever can change it names any version, digest and
environment that he likes. So the sidekick reads its group's target, in etcd, after each offer: what was offered must be
a release that the target lists, with the same digest and environment. The read is linearizable and comes later than the
answer, so an honest service is never behind it.

A foreign server writes nothing to etcd. Its answer is proved by https, or by a signature of the payload
(``sidekick/signatures.py``), or the operator says that nothing shall prove it.
"""

from collections.abc import Sequence
from typing import Protocol

from outrider.config.sections import Settings
from outrider.core.errors import DriverError
from outrider.core.release import ReleaseId
from outrider.etcd.seam import Cluster
from outrider.failpoints import failpoint
from outrider.model.damage import read_or_none
from outrider.model.documents import Target
from outrider.model.keys import Keys


class NotRecorded(DriverError):
    """What was offered isn't what it should be.

    Attributes:
        release: Label of the release whose permission is given up; empty: there is none.
    """

    kind = "not-recorded"

    def __init__(self, problem: str, *, release: str = "") -> None:
        """Name the ``problem`` in one line."""
        self.release = release
        super().__init__(problem)


class Provenance(Protocol):
    """Says whether an offered release may be fetched."""

    def check(self, offered: ReleaseId) -> None:
        """Return when it may.

        Args:
            offered: With the digest that the update service gave.

        Raises:
            NotRecorded: it may not; the text says what differs.
            Unknown: etcd gives no answer.
        """


class RecordedInEtcd:
    """Compares with the target of the group."""

    def __init__(self, cluster: Cluster, keys: Keys, *, app: str, group: str) -> None:
        self._cluster, self._group, self._key = cluster, group, keys.target(app, group)

    def check(self, offered: ReleaseId) -> None:
        """As ``Provenance``."""
        with failpoint("target.read"):
            entry = self._cluster.get(self._key)
        target = None if entry is None else read_or_none(Target, entry.key, entry.value)
        releases = () if target is None else target.releases
        if problem := difference(offered, releases):
            labels = [one.label for one in releases]
            given_up = offered.label if offered.label in labels else next(iter(labels), "")
            raise NotRecorded(
                f"{offered.label} refused: the update service offers {problem} for group {self._group} in etcd;"
                " something on the way to service.urls may be changing its answers (https proves them)",
                release=given_up,
            )


class ProvedByTransport:
    """Compares with nothing, for a foreign server records nothing: over https the answer itself is proved."""

    def __init__(self, urls: Sequence[str], *, allow_unverified: bool, are_signed: bool) -> None:
        """``are_signed``: every payload must have a signature, which is checked once it is here."""
        self._plain = [url for url in urls if not is_https(url)]
        self._counts = allow_unverified or are_signed

    def check(self, offered: ReleaseId) -> None:
        """As ``Provenance``."""
        if self._plain and not self._counts:
            raise NotRecorded(
                f"{offered.label} refused: {self._plain[0]} is plain http, so nothing proves what it offers; write an"
                " https address, let payloads be signed ([trust]), or set service.allow_unverified"
            )


def provenance_of(settings: Settings, cluster: Cluster, keys: Keys, *, app: str) -> Provenance:
    """What an offer of the update service must be proved by."""
    service = settings.service
    if service.kind == "outrider":
        return RecordedInEtcd(cluster, keys, app=app, group=settings.instance.group)
    return ProvedByTransport(service.urls, allow_unverified=service.allow_unverified, are_signed=settings.trust.is_on)


def difference(offered: ReleaseId, releases: Sequence[ReleaseId]) -> str:
    """What of ``offered`` is in none of ``releases``, as words between "offers" and "for group"; empty: it is there."""
    if offered in releases:
        return ""
    named = next((one for one in releases if one.label == offered.label), None)
    if named is None:
        known = " and ".join(one.label for one in releases)
        return f"a release that is not the target ({known})" if known else "it, and there is no target"
    if named.sha256 != offered.sha256:
        return f"a payload with SHA-256 {offered.sha256}, which is not the one recorded ({named.sha256})"
    return f"environment {offered.environment_digest or 'none'}, which is not the one recorded"


def is_https(url: str) -> bool:
    """Answers from there are proved by a certificate."""
    return url.lower().startswith("https:")
