"""``outrider release``: releases that are blocked.

Asked from the update service. Where etcd is named and no service is, they are read and unblocked in etcd itself: an app
that a foreign Omaha server serves has no other place.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click

from outrider.cli import addressing
from outrider.cli.commands.lock import operator
from outrider.cli.main import Group
from outrider.cli.options import etcd_options, is_named, json_option, open_cluster, service_options
from outrider.cli.output import confirm, echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.errors import ConfigError, NotFound
from outrider.etcd.seam import Cluster, EtcdAddress
from outrider.model.documents import Block

HEADER = ("Version", "Instance", "When", "Why")
app_option = addressing.app_option("App of the release.")


@click.group(cls=Group)
def release() -> None:
    """Blocked releases. An instance proved each bad; no instance gets it until an operator unblocks it."""


class Blocks(Protocol):
    """Where blocked releases are."""

    def list(self, app: str) -> list[Json]:
        """The blocks of an app."""
        ...

    def remove(self, app: str, key: str) -> Json:
        """Unblock a release by the key of its block; what is left to say of it is in ``notes``."""
        ...


@contextmanager
def blocks_of(service: ServiceClient, etcd: EtcdAddress, prefix: str) -> Iterator[Blocks]:
    """The update service, or etcd itself where only that is named."""
    if is_named("server") or not is_named("etcd"):
        yield _OfService(service)
        return
    cluster = open_cluster(etcd)
    try:
        yield _InEtcd(cluster, prefix.rstrip("/"))
    finally:
        cluster.close()


class _OfService:
    def __init__(self, service: ServiceClient) -> None:
        self._service = service

    def list(self, app: str) -> list[Json]:
        return self._service.get_all("apps", app, "blocks")

    def remove(self, app: str, key: str) -> Json:
        return self._service.delete("apps", app, "blocks", key)


class _InEtcd:
    def __init__(self, cluster: Cluster, prefix: str) -> None:
        from outrider.service.store.request import Principal, RequestContext
        from outrider.service.store.store import open_stores

        request = RequestContext(
            principal=Principal(name=f"({operator()})", role="admin"),
            did="outrider release",
            request_id=uuid.uuid4().hex,
        )
        self._fleet = open_stores(cluster, prefix).on_behalf_of(request).fleet

    def list(self, app: str) -> list[Json]:
        return [_shown(block) for block in self._fleet.blocks(app, known_to_sidekicks=True)]

    def remove(self, app: str, key: str) -> Json:
        return _shown(self._fleet.unblock(app, key, known_to_sidekicks=True))


def _shown(block: Block) -> Json:
    from outrider.service.api.models import BlockShown

    shown: Json = BlockShown.model_validate(block).model_dump(mode="json")
    return shown


@release.command("list")
@app_option
@service_options
@etcd_options
@json_option
def list_releases(app_id: str, service: ServiceClient, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """List the releases that are blocked.

    Where etcd is named and the update service isn't, they are read in etcd: a foreign Omaha server knows none of them.
    """
    with blocks_of(service, etcd, prefix) as blocks:
        blocked = blocks.list(app_id)
    if as_json:
        echo_json(blocked)
    else:
        echo_table(HEADER, [(one["label"], one["instance"], one["at"], one["why"]) for one in blocked])


@release.command()
@app_option
@click.option("--version", required=True, help="Version to unblock, or a whole release as `release list` shows it.")
@click.option("--environment", type=click.IntRange(min=0), help="Number of the release's environment; 0: none.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@service_options
@etcd_options
@json_option
def unblock(
    app_id: str,
    version: str,
    environment: int | None,
    yes: bool,
    service: ServiceClient,
    etcd: EtcdAddress,
    prefix: str,
    as_json: bool,
) -> None:
    """Unblock a release. Instances may install it again at once.

    Where etcd is named and the update service isn't, it is unblocked in etcd, as for an app that a foreign Omaha server
    serves.
    """
    with blocks_of(service, etcd, prefix) as blocks:
        blocked = chosen(blocks.list(app_id), version, environment)
        if not blocked:
            raise NotFound(f"app {app_id}: release {version!r} isn't blocked")
        labels = sorted({one["label"] for one in blocked})
        if len(labels) > 1:
            raise ConfigError(f"--version {version}: {', '.join(labels)} are blocked; say which, or give --environment")
        label = labels[0]
        confirm(f"{label} was blocked by {blocked[0]['instance']} ({blocked[0]['why']}). Unblock it?", yes=yes)
        unblocked = [blocks.remove(app_id, key) for key in dict.fromkeys(one["key"] for one in blocked)]
    for note in (note for one in unblocked for note in one.get("notes", ())):
        click.echo(f"note: {note}", err=True)
    if as_json:
        echo_json(unblocked)
    else:
        click.echo(f"{label} of {app_id} unblocked; instances may install it again")


def chosen(blocked: list[Json], version: str, environment: int | None) -> list[Json]:
    """The blocks of a release, by its label, its key, or its version and the number of its environment."""
    exact = [one for one in blocked if version in (one["label"], one["key"])]
    if exact and environment is None:
        return exact
    of_version = [one for one in blocked if one["version"] == version or one["label"].startswith(f"{version} with ")]
    if environment is None:
        return of_version
    with_it = f"{version} with environment {environment}" if environment else version
    return [one for one in of_version if one["label"] == with_it or one["label"].startswith(f"{with_it},")]
