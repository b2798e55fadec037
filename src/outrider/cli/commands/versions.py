"""``outrider versions``: which machine runs which outrider."""

from collections import Counter
from collections.abc import Sequence

import click
import msgspec

from outrider import __version__
from outrider.cli.options import etcd_options, is_named, json_option, open_cluster, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import ServiceClient
from outrider.core.errors import DriverError, Unknown
from outrider.etcd.seam import EtcdAddress, Unreachable
from outrider.model.keys import Keys
from outrider.service.rollouts.versions import Runner, read_versions
from outrider.service.store.context import StoreContext
from outrider.service.store.store import utc_now

HEADER = ("MACHINE", "OUTRIDER", "KIND", "NAME")


@click.command()
@click.argument("app", required=False)
@service_options
@etcd_options
@json_option
def versions(app: str | None, service: ServiceClient, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Show which machine runs which outrider: the living sidekicks, of APP or of all apps, and balancer agents.

    It is read from etcd; where no etcd is named, or none answers, from the update service.
    """
    found = _read(app, service, etcd, prefix)
    if as_json:
        echo_json([msgspec.to_builtins(one) for one in found])
        return
    echo_table(HEADER, [(one.machine or "?", one.outrider or "older", one.kind, one.name) for one in found])
    machines = {(one.machine, one.outrider or "older") for one in found}
    counted = Counter(version for _, version in machines)
    told = ", ".join(f"{count} with {version}" for version, count in sorted(counted.items()))
    click.echo("")
    click.echo(f"machines: {told or 'none'}; this command is {__version__}")


def _read(app: str | None, service: ServiceClient, etcd: EtcdAddress, prefix: str) -> Sequence[Runner]:
    """From etcd; from the service when only that is named, or no node of etcd answers.

    Raises:
        Unknown: neither answers.
    """
    if not is_named("etcd") and is_named("server"):
        return _from_service(app, service)
    cluster = open_cluster(etcd)
    try:
        return read_versions(StoreContext(cluster=cluster, keys=Keys(prefix.rstrip("/")), now=utc_now), app)
    except Unreachable as error:
        away = error
    finally:
        cluster.close()
    try:
        found = _from_service(app, service)
    except DriverError as error:
        raise Unknown(f"{away}; and {error}; check --etcd (OUTRIDER_ETCD) and --server") from error
    click.echo(f"note: {away}; asked the update service {service.server} instead", err=True)
    return found


def _from_service(app: str | None, service: ServiceClient) -> Sequence[Runner]:
    return msgspec.convert(service.get("versions", app=app)["runners"], type=list[Runner])
