"""``outrider demo``: a complete fleet on one machine, in a minute."""

import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from outrider.core.errors import ConfigError

if TYPE_CHECKING:
    from outrider.demo.fleet import DemoFleet


@click.command()
@click.option("--keep", is_flag=True, help="Keep everything running until Ctrl-C, and print commands to try.")
@click.option(
    "--balancer",
    type=click.Choice(["traefik", "haproxy", "nginx", "caddy", "envoy"]),
    default="traefik",
    show_default=True,
    help="The balancer; HAProxy, nginx, Caddy and Envoy get a balancer agent.",
)
@click.option("--instances", type=click.IntRange(1, 9), default=3, show_default=True, help="Number of instances.")
@click.option(
    "--runtime",
    type=click.Choice(["process", "docker"]),
    default="process",
    show_default=True,
    help="What runs the versions. docker needs Docker, docker-registry and busybox-static.",
)
def demo(keep: bool, balancer: str, instances: int, runtime: str) -> None:
    """Roll a good and a bad release over real instances behind a real balancer, under load.

    Needs no root and, unless it is asked for, no Docker. Everything listens on free ports of 127.0.0.1 and is gone
    afterwards. Leaves with 0 only if no request failed, one instance swapped at a time, and the bad release was stopped
    at the first instance.
    """
    try:
        import outrider.service.application  # noqa: F401 - imported early, to report a missing extra at once
    except ModuleNotFoundError as error:
        raise ConfigError(f"the Python package {error.name} is missing; install outrider[demo]") from error
    from outrider.demo.docker_fleet import DockerFleet
    from outrider.demo.fleet import DemoFleet
    from outrider.demo.story import Demo, summary
    from outrider.demo.table import LiveTable

    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="outrider-demo-"))
    kind = DockerFleet if runtime == "docker" else DemoFleet
    fleet = kind(folder, [f"web-{letter}" for letter in "abcdefghi"[:instances]], balancer=balancer)
    demonstration = Demo(fleet, LiveTable())
    failed = True
    try:
        outcome = demonstration.run()
        for line in summary(outcome, time.monotonic() - began):
            click.echo(line)
        failed = bool(outcome.complaints())
        if keep:
            _linger(fleet)
    except KeyboardInterrupt:
        click.echo("\ninterrupted", err=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one must not leave half of it running
            signal.signal(number, signal.SIG_IGN)
        try:
            demonstration.end()
        finally:
            fleet.stop()
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


def _linger(fleet: "DemoFleet") -> None:
    """Print commands to try, and wait for Ctrl-C."""
    from outrider.demo.fleet import APP_ID, HOST

    page = f"Traefik's page   {fleet.traefik.api_url}/dashboard/\n" if fleet.balancer == "traefik" else ""
    click.echo(
        f"""
update service   {fleet.service_url}
{page}the app          curl -H 'Host: {HOST}' {fleet.web_url}{fleet.path}
logs             {fleet.folder}

  export OUTRIDER_SERVER={fleet.operators_url} OUTRIDER_ETCD={fleet.endpoint}
  outrider status {APP_ID}
  outrider why {APP_ID} {fleet.instances[0]}
  outrider lock show {APP_ID} production
  outrider balancer-agent list
  outrider release list --app-id={APP_ID}
  outrider instance rollback {APP_ID} {fleet.instances[0]}

Ctrl-C ends everything."""
    )
    threading.Event().wait()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
