"""Settings that were once elsewhere. The old places work for another release, with a warning that names the new one."""

from collections.abc import Mapping

MOVED: Mapping[str, str] = {
    "process.host": "workload.host",
    "process.ports": "workload.ports",
    "process.env": "workload.env",
    "process.stop_grace_s": "workload.stop_grace_s",
    "traefik.service": "balancer.service",
    "traefik.server_id": "balancer.server_id",
}
"""Old place -> new place; variables and flags follow (``OUTRIDER_PROCESS_HOST``)."""


def moved_line(source: str, old: str, new: str) -> str:
    """The warning: where it is written, and what to write instead."""
    section, _, key = new.partition(".")
    if source.startswith("OUTRIDER_"):
        return f"{source}: has moved; set OUTRIDER_{section.upper()}_{key.upper()} instead"
    return f"{source}: {old}: has moved; write {key} in [{section}]"
