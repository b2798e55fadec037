"""What to know of an instance whose journal is lost: whatever runs here is what should run."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from loguru import logger

from outrider.core.sidekick.memory import NO_PAYLOAD, Installed, Memory, Release
from outrider.runtimes import Workload


def adopted(memory: Memory, found: Collection[Workload], payload: Callable[[str], Path | None]) -> Memory:
    """``memory`` of a sidekick without a journal, with the workload that it finds running.

    Of several the oldest counts: a swap was under way, and whether the younger one had proved itself isn't known. The
    addresses of the others may stand in the balancer's entry, and are ours.

    Args:
        found: What runs, as ``Runtime.running`` says.
        payload: The payload on disk with this SHA-256, None when there is none.
    """
    if not found:
        return memory
    oldest, *others = sorted(found, key=lambda one: (one.order, one.workload_id))
    path = payload(oldest.sha256) if oldest.sha256 else None
    release = Release(
        version=oldest.version,
        urls=(),
        sha256=oldest.sha256 or NO_PAYLOAD,
        size_bytes=path.stat().st_size if path is not None else 0,
        kind=oldest.kind,
    )
    logger.bind(workload=oldest.workload_id, version=oldest.version, handle=oldest.handle).warning(
        "no journal: the workload that runs is kept"
    )
    return replace(
        memory,
        running=Installed(release=release, workload_id=oldest.workload_id, url=oldest.url),
        down=True,  # until it has proved itself
        former_urls=tuple(one.url for one in others),
    )
