"""``outrider doctor``: a live system against the list in docs/use/security.md."""

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import click

from outrider import __version__
from outrider.cli.options import etcd_options, json_option, open_cluster
from outrider.cli.output import echo_json
from outrider.core import versions
from outrider.core.errors import ConfigError, DriverError
from outrider.etcd.seam import Cluster, EtcdAddress, PermissionDenied
from outrider.model.balancer_agents import Agent, Applied
from outrider.model.damage import readable
from outrider.model.documents import Crash, Presence
from outrider.model.epoch import Epoch
from outrider.model.keys import Keys

if TYPE_CHECKING:
    from outrider.etcd.health import NodeHealth

Severity = Literal["error", "warning", "info"]
CLOCK_S = 5.0
"""A clock that is ahead by more is reported: times in documents are compared by people and by limits of minutes."""
EPOCH_S = 180.0
"""The service renews the epoch every minute; three times missed, no service runs, or its clock is behind."""
QUOTA_BYTES = 2 * 1024**3
"""etcd's own default of --quota-backend-bytes; etcd 3.5 does not say what it is set to."""
FULL = 0.6
KEPT_REVISIONS = 100_000
"""A compacted etcd has forgotten that long ago."""


MOST_NAMED = 5
KNOWN_BUGS: tuple[tuple[str, str], ...] = (
    ("0.1.0", "does not say its version: it may run a payload that etcd doesn't name, and check in unproved"),
)
"""Version in which it was mended, and what was wrong before; the newest first. One that isn't said is the oldest."""
_UPGRADE = "upgrade outrider on these machines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that should be otherwise. ``advice``: what to type, or to set."""

    severity: Severity
    text: str
    advice: str = ""

    @property
    def line(self) -> str:
        return f"{self.severity}: {self.text}" + (f"; {self.advice}" if self.advice else "")


def is_local(host: str) -> bool:
    """Whether packets to ``host`` stay on this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def of_way(etcd: EtcdAddress, asks_for_users: bool) -> Iterator[Finding]:
    """How etcd is reached, and by whom."""
    away = [one.host for one in etcd.endpoints if not is_local(one.host)]
    if away and not (etcd.tls or etcd.ca_file):
        yield Finding(
            severity="error",
            text=f"etcd at {', '.join(away)} is asked without TLS: whoever is on the way reads and writes everything",
            advice="start etcd with --cert-file and --key-file, and name https:// endpoints ([etcd], --etcd)",
        )
    if not asks_for_users:
        yield Finding(
            severity="error" if away else "warning",
            text="etcd asks for no users: whoever reaches it ends turns, blocks releases and moves traffic",
            advice="`outrider database roles --create ...`, then `etcdctl auth enable`",
        )


def of_nodes(nodes: Sequence["NodeHealth"]) -> Iterator[Finding]:
    """etcd's versions with known bugs, alarms, and size."""
    from outrider.etcd.health import LOSES_CHANGES, loses_changes

    for node in nodes:
        if node.problem:
            yield Finding(severity="error", text=f"etcd {node.name}: {node.problem}", advice="look at its log")
            continue
        version = ".".join(map(str, node.version))
        if loses_changes(node.version):
            yield Finding(severity="error", text=f"etcd {node.name} is {version}: {LOSES_CHANGES}")
        for alarm in node.alarms:
            advice = "`etcdctl compact`, `etcdctl defrag`, then `etcdctl alarm disarm`" if alarm == "NOSPACE" else ""
            yield Finding(severity="error", text=f"etcd {node.name} has the alarm {alarm}", advice=advice)
        if node.size_bytes > FULL * QUOTA_BYTES:
            yield Finding(
                severity="warning",
                text=f"etcd {node.name}: its database has {node.size_bytes // 1024**2} MiB; 2048 is the default quota",
                advice="`etcdctl defrag`, or a larger --quota-backend-bytes",
            )
    if len(nodes) == 2:
        yield Finding(
            severity="warning", text="two nodes of etcd stop when either does", advice="name one, three or five"
        )


def of_users(users: int, existed: bool) -> Iterator[Finding]:
    """Who may ask the update service."""
    if not users:
        text = "there were users and none is left" if existed else "there are no users: the API answers the Unix socket"
        yield Finding(
            severity="error" if existed else "warning",
            text=text + ("" if existed else " alone, and the audit log has no names"),
            advice="`outrider database init`",
        )


def of_clocks(epoch: Epoch | None, presences: Sequence[Presence], now: datetime) -> Iterator[Finding]:
    """Clocks of the service and of the sidekicks, against this machine's."""
    if epoch is None:
        yield Finding(severity="warning", text="no update service has run yet", advice="`outrider serve`")
    elif (ahead_s := (epoch.at - now).total_seconds()) > CLOCK_S:
        yield Finding(
            severity="error", text=f"the update service's clock is {ahead_s:.0f} s ahead of this one", advice="run NTP"
        )
    elif -ahead_s > EPOCH_S:
        yield Finding(
            severity="error",
            text=f"the update service has not renewed the epoch for {-ahead_s:.0f} s: none runs, or its clock lags",
            advice="look at its log",
        )
    for one in presences:
        ahead_s = (one.since - now).total_seconds()
        if ahead_s > CLOCK_S:
            yield Finding(
                severity="error",
                text=f"{one.app}/{one.instance}: the clock of its machine is {ahead_s:.0f} s ahead of this one",
                advice="run NTP there",
            )


def of_sidekicks(presences: Sequence[Presence]) -> Iterator[Finding]:
    """What the sidekicks themselves say."""
    for one in presences:
        where = f"{one.app}/{one.instance}"
        if "payloads are not verified" in one.notice:
            yield Finding(
                severity="error",
                text=f"{where} runs whatever its update service sends over plain http ({one.notice})",
                advice="https addresses in service.urls, and without service.allow_unverified",
            )
        elif "permission denied" in one.notice:
            yield Finding(severity="error", text=f"{where}: {one.notice}")


def of_beginnings(crashes: Sequence[Crash]) -> Iterator[Finding]:
    """Instances whose sidekick can't begin."""
    for one in crashes:
        if one.cannot_begin:
            yield Finding(
                severity="error",
                text=f"{one.app}/{one.instance}: machine cannot begin: {one.what}",
                advice="start what it names on that machine; its sidekick tries again by itself",
            )


def of_programs(presences: Sequence[Presence], ours: str = __version__) -> Iterator[Finding]:
    """Sidekicks of versions with known bugs, one line for each version."""
    by_version: dict[str, list[str]] = {}
    for one in presences:
        by_version.setdefault(one.outrider, []).append(f"{one.app}/{one.instance}")
    for version, names in sorted(by_version.items()):
        who = f"{', '.join(sorted(names)[:MOST_NAMED])}{' and others' if len(names) > MOST_NAMED else ''}"
        if bug := known_bug(version):
            yield Finding(severity="error", text=f"outrider {version or '(unknown)'} {bug}: {who}", advice=_UPGRADE)
        elif _is_older(version, ours):
            yield Finding(
                severity="info", text=f"outrider {version} is older than this command ({ours}): {who}", advice=_UPGRADE
            )


def known_bug(version: str) -> str:
    """What is known to be wrong with a version of outrider, in words after its name; empty: nothing."""
    try:
        return next((bug for fixed, bug in KNOWN_BUGS if not version or versions.is_newer(fixed, version)), "")
    except ConfigError:
        return "is no version of outrider's"


def _is_older(version: str, ours: str) -> bool:
    try:
        return versions.is_newer(ours, version)
    except ConfigError:
        return False


def of_agents(agents: Sequence[Agent], living: frozenset[tuple[str, str]]) -> Iterator[Finding]:
    """Agents that nobody hears of: every drain waits for them."""
    for one in agents:
        if (one.service, one.name) not in living:
            yield Finding(
                severity="warning",
                text=f"balancer agent {one.name} of {one.service} is away: each drain waits for its deadline",
                advice=f"start it, or `outrider balancer-agent remove {one.service} {one.name}`",
            )


def of_signatures(unsigned: Sequence[str], signed: int) -> Iterator[Finding]:
    """Packages in channels without a signature."""
    for name in unsigned:
        yield Finding(
            severity="warning" if signed else "info",
            text=f"{name} is in a channel and is not signed",
            advice="`outrider package sign`, and [trust] on the machines",
        )


@click.command()
@etcd_options
@json_option
@click.pass_context
def doctor(context: click.Context, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Check the running system against the list in docs/use/security.md.

    One line for each finding, with what to type. Reads etcd, as any user that may (outrider-status sees most). Exits 1
    when there is an error.
    """
    found = sorted(
        _examine(etcd, Keys(prefix.rstrip("/"))), key=lambda one: ("error", "warning", "info").index(one.severity)
    )
    if as_json:
        echo_json([{"severity": one.severity, "text": one.text, "advice": one.advice} for one in found])
    else:
        for one in found:
            click.echo(one.line)
        if not found:
            click.echo("nothing found")
    context.exit(1 if any(one.severity == "error" for one in found) else 0)


def _examine(etcd: EtcdAddress, keys: Keys) -> list[Finding]:
    from outrider.etcd.health import keeps_all_history, node_health
    from outrider.etcd.users import EtcdUsers

    users = EtcdUsers(etcd)
    cluster = open_cluster(etcd)
    try:
        asks = users.are_asked_for()
        found = [*of_way(etcd, asks), *of_nodes(node_health(etcd))]
        if keeps_all_history(etcd, keys.epoch(), revisions=KEPT_REVISIONS):
            found.append(
                Finding(
                    severity="warning",
                    text=f"etcd keeps more than {KEPT_REVISIONS} revisions: nothing compacts it, and it grows forever",
                    advice="start etcd with --auto-compaction-mode=periodic --auto-compaction-retention=1h",
                )
            )
        for examine in (_users, _fleet, _agents, _packages, _stored):
            try:
                found += examine(cluster, keys)
            except PermissionDenied as no:
                found.append(Finding(severity="info", text=f"not looked at: {no}"))
        return found
    finally:
        users.close()
        cluster.close()


def _users(cluster: Cluster, keys: Keys) -> list[Finding]:
    return list(of_users(len(cluster.list(keys.users()).entries), cluster.get(keys.users_existed()) is not None))


def _fleet(cluster: Cluster, keys: Keys) -> list[Finding]:
    epochs = [one for _, one in readable(Epoch, cluster.list(keys.epoch(), exact=True).entries)]
    presences = [one for _, one in readable(Presence, cluster.list(keys.all_presences()).entries)]
    clocks = of_clocks(epochs[0] if epochs else None, presences, datetime.now(UTC))
    crashes = [one for _, one in readable(Crash, cluster.list(keys.all_crashes()).entries)]
    return [*clocks, *of_sidekicks(presences), *of_beginnings(crashes), *of_programs(presences)]


def _agents(cluster: Cluster, keys: Keys) -> list[Finding]:
    agents = [one for _, one in readable(Agent, cluster.list(keys.all_agents()).entries)]
    living = {
        (one.service, one.name)
        for service in {agent.service for agent in agents}
        for _, one in readable(Applied, cluster.list(keys.applied_by(service)).entries)
    }
    return list(of_agents(agents, frozenset(living)))


def _packages(cluster: Cluster, keys: Keys) -> list[Finding]:
    """By their keys alone, and the versions of the targets: what is rolled out now."""
    from outrider.model.documents import Target

    entries = cluster.list(keys.apps()).entries
    signed = {entry.key for entry in entries if "/signatures/" in entry.key}
    targets = [entry for entry in entries if entry.key.endswith("/target")]
    rolled_out = {
        (entry.key.removeprefix(keys.apps()).partition("/")[0], target.version)
        for entry, target in readable(Target, targets)
        if target.version is not None
    }
    unsigned = sorted(f"{app} {version}" for app, version in rolled_out if keys.signatures(app, version) not in signed)
    return list(of_signatures(unsigned, len(signed)))


def _stored(cluster: Cluster, keys: Keys) -> list[Finding]:
    """What keeps the service from serving the fleet."""
    from outrider.service.operations.readiness import unready
    from outrider.service.store.store import open_stores

    context = open_stores(cluster, keys.prefix).context
    try:
        return [Finding(severity="error", text=text) for text in unready(context)]
    except DriverError as error:
        return [Finding(severity="error", text=str(error))]
