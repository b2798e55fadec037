"""``outrider database roles``: etcd's users and roles for a fleet, each with the least that its work needs."""

import os
import secrets
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from outrider.cli.options import etcd_options, json_option
from outrider.cli.output import echo_json
from outrider.core.errors import ConfigError
from outrider.etcd.seam import EtcdAddress
from outrider.model.access import (
    Agent,
    Range,
    Sidekick,
    agent_ranges,
    backup_ranges,
    service_ranges,
    sidekick_ranges,
    status_ranges,
)
from outrider.model.keys import Keys

if TYPE_CHECKING:
    from outrider.config.sections import Settings

DEFAULT_SLOTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role, and the user that has it.

    Attributes:
        static: Keys of a balancer's route and pool, with their values: only read by the role, written once by an
            administrator or the service.
    """

    name: str
    user: str
    ranges: tuple[Range, ...]
    static: tuple[tuple[str, str], ...] = ()


def sidekick_role(settings: "Settings", keys: Keys, *, slots: int, user: str = "") -> Role:
    """The role of the sidekick with these settings."""
    from outrider.balancers.drivers import BALANCERS, BalancerContext
    from outrider.balancers.entry import EtcdEntry
    from outrider.etcd.client import connect
    from outrider.sidekick.assemble import contender, etcd_address

    us, instance, service = contender(settings), settings.instance, settings.balancer.service
    name = f"sidekick-{us.app}-{us.instance}"
    ranges: list[Range] = []
    static: list[tuple[str, str]] = []
    cluster = connect(etcd_address(settings.etcd))  # nothing is sent: the layout alone is wanted
    try:
        made = BALANCERS.load(instance.balancer).make(settings, BalancerContext(cluster=cluster, keys=keys))
        entry = made.entry
        if isinstance(entry, EtcdEntry):
            ranges.append(Range(entry.watched, entry.watched.endswith("/"), "readwrite"))
            static += entry.layout.static_keys().items()
            ranges += (Range(key, False, "read") for key, _ in static)
    finally:
        cluster.close()
    who = Sidekick(
        us=us,
        slots=max(slots, settings.lock.slots),
        service=service if made.entry.guard else "",
        server_id=settings.balancer.server_id or instance.id,
    )
    known = sidekick_ranges(keys, who)
    ranges = [one for one in ranges if one not in known and not _is_within(one, known)]
    return Role(name=name, user=user or name, ranges=(*known, *ranges), static=tuple(static))


def _is_within(one: Range, known: Sequence[Range]) -> bool:
    return any(
        (one.key == each.key if not each.prefix else one.key.startswith(each.key)) and each.access == "readwrite"
        for each in known
    )


@click.command()
@click.option(
    "--sidekick",
    "sidekicks",
    multiple=True,
    metavar="APP/GROUP/INSTANCE",
    help="A sidekick, with the settings of --config otherwise; repeatable.",
)
@click.option(
    "--config",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Settings of sidekicks, as for `sidekick run`; without --sidekick, those of the one that they name.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 1000),
    default=DEFAULT_SLOTS,
    show_default=True,
    help="Turns that a group may have at once, now or later: a sidekick gets its own key of each.",
)
@click.option("--agent", "agents", multiple=True, metavar="SERVICE/NAME", help="A balancer agent; repeatable.")
@click.option(
    "--balancer-keys",
    "roots",
    multiple=True,
    metavar="PREFIX",
    help="Where a balancer reads etcd, such as traefik: the service may write there, and a role is made that reads it.",
)
@click.option("--user", default="", help="One user for all the roles of --sidekick, for a process with several.")
@click.option("--create", is_flag=True, help="Make them in etcd, as an administrator of etcd (--etcd-user root).")
@click.option(
    "--password-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="With --create: folder for the password of each new user, one file each, for its owner alone.",
)
@click.option(
    "--no-password", is_flag=True, help="Users show client certificates whose common names are theirs, and no password."
)
@etcd_options
@json_option
def roles(
    sidekicks: tuple[str, ...],
    files: tuple[Path, ...],
    slots: int,
    agents: tuple[str, ...],
    roots: tuple[str, ...],
    user: str,
    create: bool,
    password_dir: Path | None,
    no_password: bool,
    etcd: EtcdAddress,
    prefix: str,
    as_json: bool,
) -> None:
    """Print the etcd users and roles that a fleet needs, as commands of etcdctl; --create makes them.

    Always: outrider-service, outrider-backup and outrider-status. A sidekick may write its own keys, and read what its
    group says. What exists is changed to what is printed; passwords stay. etcd asks for users after `etcdctl auth
    enable` only.
    """
    keys = Keys(prefix.rstrip("/"))
    wanted = _wanted(keys, sidekicks, files, slots, agents, roots, user)
    if create:
        if not no_password and password_dir is None:
            raise click.UsageError("--create needs --password-dir for the passwords of new users, or --no-password")
        _create(etcd, wanted, None if no_password else password_dir)
    elif as_json:
        echo_json([_shown(role) for role in wanted])
    else:
        for role in wanted:
            for line in commands(role, no_password=no_password):
                click.echo(line)


def _wanted(
    keys: Keys,
    sidekicks: tuple[str, ...],
    files: tuple[Path, ...],
    slots: int,
    agents: tuple[str, ...],
    roots: tuple[str, ...],
    user: str,
) -> list[Role]:
    made = [sidekick_role(one, keys, slots=slots, user=user) for one in _settings(sidekicks, files, keys.prefix)]
    static = {key: value for role in made for key, value in role.static}
    written = [Range(root, True, "readwrite") for root in roots]
    written += [Range(key, False, "readwrite") for key in sorted(static) if not key.startswith(roots or ("\0",))]
    found = [
        Role(
            name="outrider-service",
            user="outrider-service",
            ranges=(*service_ranges(keys), *written),
            static=tuple(sorted(static.items())),
        ),
        Role(name="outrider-backup", user="outrider-backup", ranges=backup_ranges(keys)),
        Role(name="outrider-status", user="outrider-status", ranges=status_ranges(keys)),
    ]
    for root in roots:
        # Traefik lists its root without a slash: a role for "traefik/" is refused (traefik 3.7)
        name = f"balancer-{root.strip('/').replace('/', '-')}"
        found.append(Role(name=name, user=name, ranges=(Range(root.rstrip("/"), True, "read"),)))
    for text in agents:
        service, slash, name = text.partition("/")
        if not (service and slash and name):
            raise ConfigError(f"--agent {text}: write SERVICE/NAME, the balancer's service and the agent's --name")
        found.append(
            Role(
                name=f"agent-{service}-{name}",
                user=f"agent-{service}-{name}",
                ranges=agent_ranges(keys, Agent(service=service, name=name)),
            )
        )
    return [*found, *made]


def _settings(addresses: tuple[str, ...], files: tuple[Path, ...], prefix: str) -> Iterator["Settings"]:
    from outrider.config.load import load_settings

    if not addresses and files:
        yield load_settings(files, overrides={"etcd.prefix": prefix}).settings
    for address in addresses:
        parts = address.split("/")
        if len(parts) != 3 or not all(parts):
            raise ConfigError(f"--sidekick {address}: write APP/GROUP/INSTANCE")
        app, group, instance = parts
        overrides: dict[str, object] = {
            "instance.app": app,
            "instance.group": group,
            "instance.id": instance,
            "instance.state_dir": "/var/lib/outrider/any",
            "etcd.prefix": prefix,
        }
        if not files:
            # what a sidekick has without more: Traefik, whose service is called like the app
            overrides |= {"balancer.service": app, "process.command": '["app"]'}
            overrides |= {"service.urls": '["https://localhost"]'}
        yield load_settings(files, overrides=overrides, folders=()).settings


def commands(role: Role, *, no_password: bool) -> Iterator[str]:
    """One role as commands of etcdctl, one a line."""
    yield f"etcdctl role add {shlex.quote(role.name)}"
    for one in role.ranges:
        whole = " --prefix=true" if one.prefix else ""
        yield f"etcdctl role grant-permission{whole} {shlex.quote(role.name)} {one.access} {shlex.quote(one.key)}"
    yield f"etcdctl user add {shlex.quote(role.user)}{' --no-password' if no_password else ''}"
    yield f"etcdctl user grant-role {shlex.quote(role.user)} {shlex.quote(role.name)}"
    if role.name == "outrider-service":
        for key, value in role.static:
            yield f"etcdctl put {shlex.quote(key)} {shlex.quote(value)}"


def _shown(role: Role) -> dict[str, object]:
    ranges = [{"key": one.key, "prefix": one.prefix, "access": one.access} for one in role.ranges]
    return {"role": role.name, "user": role.user, "permissions": ranges}


def _create(etcd: EtcdAddress, wanted: Sequence[Role], folder: Path | None) -> None:
    from outrider.etcd.client import connect
    from outrider.etcd.seam import CreatedAt, Put
    from outrider.etcd.users import EtcdUsers, Permission

    users = EtcdUsers(etcd)
    cluster = connect(etcd)
    try:
        for role in wanted:
            permissions = {Permission.of(one.key, one.access, prefix=one.prefix) for one in role.ranges}
            changed = users.make_role(role.name, permissions)
            password = None if folder is None else secrets.token_urlsafe(24)
            path = None if folder is None else folder / role.user
            if path is not None and password is not None and role.user not in users.users():
                _write_password(path, password)
            is_new = users.make_user(role.user, password)
            given = users.give_role(role.user, role.name)
            words = "made" if is_new else "changed" if changed or given else "as it was"
            click.echo(f"{role.user}: {words}" + (f"; password in {path}" if is_new and path is not None else ""))
        for key, value in {pair for role in wanted for pair in role.static}:
            cluster.txn((CreatedAt(key=key, revision=0),), (Put(key=key, value=value.encode()),))
        if not users.are_asked_for():
            click.echo(
                "warning: etcd asks for no users yet: `etcdctl user add root`, `etcdctl user grant-role root root`,"
                " `etcdctl auth enable`",
                err=True,
            )
    finally:
        users.close()
        cluster.close()


def _write_password(path: Path, password: str) -> None:
    """Before the user is made: a password that nobody has helps nobody."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(f"{password}\n")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
