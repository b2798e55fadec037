"""The two apps of a site, and what their instances are configured with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from outrider.model.keys import group_scope

GROUP, CHANNEL = "production", "stable"
HOST = "example.test"

Sections = dict[str, dict[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """An app, called in its balancer as in outrider.

    Attributes:
        health_s: How long its balancer may send to a machine that is lost: interval of the health check x failed
            checks + 1 s.
    """

    name: str
    balancer: str
    port: int
    health_s: float

    @property
    def scope(self) -> str:
        return group_scope(self.name, GROUP)


WEB = App(name="web", balancer="traefik", port=8000, health_s=1.0 * 1 + 1.0)
API = App(name="api", balancer="haproxy", port=8001, health_s=1.0 * 2 + 1.0)
APPS = (WEB, API)

SETTINGS: Sections = {
    "instance": {"runtime": "systemd", "drain_at_shutdown": True, "shutdown_wait_s": 60.0},
    "systemd": {"command": ["/usr/bin/python3", "server.py"]},
    # all share few cores: a slow moment is no reason to lose a lease
    "lock": {"ttl_s": 15.0},
    "probe": {"interval_s": 0.3, "timeout_s": 2.0, "successes": 3, "failures": 3, "deadline_s": 30.0},
    "drain": {"wait_s": 1.0, "max_s": 20.0, "inflight_path": "/inflight"},
    "soak": {"duration_s": 2.0},
    "workload": {"stop_grace_s": 5.0},
    "service": {"retry_min_s": 0.5, "retry_max_s": 5.0, "allow_plain_identity": True},
}
"""In more haste than an operator's."""


def configuration(app: App, *, host: str, endpoints: Sequence[str], service_url: str, traefik_url: str) -> str:
    """The file of an instance.

    Args:
        host: Where the balancers reach its machine.
    """
    sections: Sections = {
        "instance": {"app": app.name, "group": GROUP},
        "etcd": {"endpoints": list(endpoints)},
        "service": {"urls": [service_url]},
        "workload": {"host": host},
        "balancer": {"service": app.name},
    }
    if app is WEB:
        sections["traefik"] = {"api_urls": [traefik_url], "throttle_s": 0.1}
    else:
        sections["instance"]["balancer"] = "agent"
    for section, values in SETTINGS.items():
        sections[section] = {**sections.get(section, {}), **values}
    # what JSON writes of texts, numbers, truths and lists of them is TOML as well
    return "\n".join(
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        for section, values in sections.items()
    )
