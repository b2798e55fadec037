"""``outrider watch``: run a program for every update."""

import shutil
import sys
import uuid
from contextlib import ExitStack

import click

from outrider.cli.options import open_cluster, optional_etcd_options, service_options
from outrider.cli.rest_client import ServiceClient
from outrider.core import versions
from outrider.core.errors import ConfigError
from outrider.etcd.seam import EtcdAddress

INTERVAL_S = 1.0
"""updatectl's own."""
INTERVAL_WITH_ETCD_S = 300.0
"""A fallback in case the watch on etcd misses a change."""


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--app-id", required=True, help="Application to watch.")
@click.option("--group-id", required=True, help="Group to follow.")
@click.option("--version", default=versions.NOTHING, show_default=True, help="Version that runs now; 0.0.0 for none.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), help="Seconds between checks. Default: 1, or 300 with --etcd."
)
@click.option("--client-id", help="Name of this instance. Default: a new random name at each start.")
@click.option(
    "--timeout",
    "time_limit",
    type=click.FloatRange(min=0.1),
    help="Longest run time of the program in seconds; then it is ended.",
)
@click.argument("program", metavar="PROGRAM [ARGUMENT]...", nargs=-1, required=True, type=click.UNPROCESSED)
@optional_etcd_options
@service_options
def watch(
    app_id: str,
    group_id: str,
    version: str,
    interval: float | None,
    client_id: str | None,
    time_limit: float | None,
    program: tuple[str, ...],
    etcd: EtcdAddress | None,
    prefix: str,
    service: ServiceClient,
) -> None:
    """Run PROGRAM for every update, and report its result.

    It finds the update in UPDATE_SERVICE_VERSION, _OLD_VERSION, _APP_ID, _URL, _SHA256, _SIZE and _PACKAGE. Exit code
    0 means that the version runs now; after any other it is run again, later and later. With --etcd nothing is
    polled: the service's word arrives at once.
    """
    from outrider.cli.signals import stopped_by_signals
    from outrider.clients import Watcher, WatchSettings
    from outrider.clients.wake import Announced
    from outrider.core.omaha import app_key
    from outrider.etcd.seen import SeenRevision
    from outrider.model.keys import Keys
    from outrider.omaha_client import Upstream

    versions.parse(version)
    if shutil.which(program[0]) is None:
        raise ConfigError(f"program {program[0]!r} doesn't exist or isn't executable")
    instance = client_id or str(uuid.uuid4())
    seen = SeenRevision()
    upstream = Upstream(
        urls=(service.omaha_url,), app_id=app_id, group=group_id, instance=instance, verify=service.verify, seen=seen
    )
    settings = WatchSettings(
        app_id=app_id,
        version=version,
        interval_s=interval or (INTERVAL_S if etcd is None else INTERVAL_WITH_ETCD_S),
        program=program,
        time_limit_s=time_limit,
    )
    watcher = Watcher(upstream, settings, lambda line: click.echo(line, file=sys.stderr))
    with ExitStack() as open_things:
        open_things.enter_context(stopped_by_signals(watcher.stop))
        if etcd is not None:
            cluster = open_cluster(etcd)
            open_things.callback(cluster.close)
            announced = Announced(
                cluster,
                Keys(prefix.rstrip("/")),
                app=app_key(app_id),
                group=group_id,
                instance=instance,
                wake=watcher.wake,
                seen=seen,
            )
            open_things.callback(announced.close)
        watcher.run()
