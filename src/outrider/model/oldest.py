"""The oldest version that may still run in a group, as a document in etcd: what a ``contract`` task leaves behind."""

from datetime import datetime

from outrider.model.documents import Document


def unreadable(key: str) -> str:
    """Why nothing begins to run where the document at ``key`` can't be read: nobody knows what is too old."""
    return (
        f"{key} in etcd can't be read, so nobody knows which versions are too old to run there; if older versions may"
        " run again, `outrider task lift` removes it"
    )


class Oldest(Document, frozen=True, kw_only=True):
    """``oldest/{app}/{group}``, without a lease: nothing older than ``version`` may start, join or be wanted.

    The transaction that claims a ``contract`` task writes it, and compares that nothing older runs.

    Attributes:
        group: For which it holds; empty: for every group of the app.
        task, instance: Whose claim made it.
    """

    app: str
    group: str
    version: str
    task: str
    instance: str
    since: datetime

    def refusal(self, version: str) -> str:
        """Why ``version``, which is older, may not run."""
        where = f"group {self.group}" if self.group else f"app {self.app}"
        return (
            f"{version} is older than {self.version}, the oldest version that may run in {where}: task {self.task}"
            f" of {self.version} has taken away what older ones need (since {self.since:%Y-%m-%d %H:%M} UTC)"
        )
