"""``outrider database``: what the update service keeps in etcd, as a whole."""

import uuid
from typing import TYPE_CHECKING

import click

from outrider.cli.common import Group, echo_json, etcd_options, json_option, open_cluster
from outrider.cli.lock import operator
from outrider.cluster.seam import EtcdAddress

if TYPE_CHECKING:
    from outrider.service.acting import Act
    from outrider.service.nouns import Place


@click.group(cls=Group)
def database() -> None:
    """What the update service keeps in etcd, as a whole."""


@database.command()
@click.option("--name", default="admin", show_default=True, help="The first admin's name.")
@click.option("--again", is_flag=True, help="There are users and no admin's token is left: give NAME a new one.")
@etcd_options
@json_option
def init(name: str, again: bool, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Make the first user, an admin, and print the token this once.

    Works on etcd itself: whoever may write there may do everything. From then on the service asks everybody for a token
    and answers other machines, too.
    """
    from outrider.service.acting import acting
    from outrider.service.store import open_store

    cluster = open_cluster(etcd)
    try:
        store = open_store(cluster, prefix.rstrip("/"))
        with acting(_operators_act(store.place)):
            made = store.users.create(name, "admin") if again else store.users.begin(name)
    finally:
        cluster.close()
    if as_json:
        echo_json({"name": made.user.name, "role": made.user.role, "token": made.token})
        return
    click.echo(f"{made.user.name} is {made.user.role}; keep the token, it is not shown again:", err=True)
    click.echo(made.token)


def _operators_act(place: "Place") -> "Act":
    """For the audit log: whoever types this, on etcd itself."""
    from outrider.service.acting import Act, Actor
    from outrider.service.audit import AuditLog

    actor = Actor(name=f"({operator()})", role="admin")
    did = click.get_current_context().command_path
    return Act(actor=actor, did=did, request_id=uuid.uuid4().hex, log=AuditLog(place=place))
