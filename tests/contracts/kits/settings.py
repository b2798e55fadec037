"""Settings as they are loaded, with one driver's own."""

from pathlib import Path

from outrider.config.sections import BalancerSettings, InstanceSettings, Settings, WorkloadSettings

INSTANCE, SERVICE = "web-1", "hello"


def settings_with(name: str, own: object, state_dir: Path = Path("/nowhere")) -> Settings:
    """Of the instance ``web-1`` of the service ``hello``; ``own`` are those of the driver's section, None for none."""
    return Settings(
        instance=InstanceSettings(id=INSTANCE, app="hello", group="g", state_dir=state_dir),
        workload=WorkloadSettings(stop_grace_s=5),
        balancer=BalancerSettings(service=SERVICE, server_id=INSTANCE),
        drivers={} if own is None else {name: own},
    )
