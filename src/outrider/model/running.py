"""What may still run where, as a document in etcd."""

from datetime import datetime

from outrider.core.release import ReleaseId
from outrider.model.documents import Document


class Running(Document, frozen=True, kw_only=True):
    """``running/{app}/{group}/{instance}/{release}``, without a lease: this release may run on this instance.

    Attributes:
        since: When it was committed, or its first start began.
    """

    app: str
    group: str
    instance: str
    version: str
    sha256: str
    environment: int = 0
    environment_digest: str = ""
    generation: int = 0
    since: datetime

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
