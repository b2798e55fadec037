# ruff: noqa: RUF009 - setting() makes dataclass fields, ruff only knows field() itself
"""What an operator can set: one frozen dataclass per TOML section, each default and its help in one place.

The sections that all share are here; a driver's own section is in its module. Read by ``config/load.py``; the table in
``docs/use/configuration.md`` is made from all of them. The unit of a number is in its name (``_s`` seconds, ``_bytes``
bytes). Nothing reads the environment after loading.
"""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from outrider.config.analysis import AnalysisSettings
from outrider.config.rules import Rule as Rule
from outrider.config.rules import Secret as Secret
from outrider.config.rules import computed as computed
from outrider.config.rules import required as required
from outrider.config.rules import setting as setting

T = TypeVar("T")

NAME = r"[A-Za-z0-9][A-Za-z0-9._+@:-]{0,127}"
"""What may be a part of an etcd key; the same rule as ``cluster.keys.check_part``."""
INSTANCE_NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
HTTP_URL = r"https?://[^\s/?#]+(/[^\s?#]*)?"


def host_name() -> str:
    """This machine's name, in lower case."""
    return socket.gethostname().lower()


def state_root() -> Path:
    """Where instances have their folders when ``instance.state_dir`` is not set: the units use the same place."""
    return Path("/var/lib/outrider")


NAME_WORDS = "1 to 128 letters, digits or . _ + @ : - that begin with a letter or a digit"
INSTANCE_WORDS = "1 to 63 lower-case letters, digits or . _ - that begin with a letter or a digit"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSettings:
    """[instance]: who this is, and how it is updated."""

    id: str = computed(
        host_name,
        "Name of this instance, unique in its app. Default: the host name in lower case.",
        pattern=INSTANCE_NAME,
        wanted=INSTANCE_WORDS,
    )
    app: str = required("App that runs here: its UUID or name at the update service.", pattern=NAME, wanted=NAME_WORDS)
    group: str = required("Group whose channel and policy this instance follows.", pattern=NAME, wanted=NAME_WORDS)
    strategy: Literal["start-first", "stop-first"] = setting(
        "start-first", "Start the new version beside the old one, or stop the old one first (one port, a database)."
    )
    state_dir: Path = computed(
        state_root,
        "Folder for the journal, payloads and workloads; an absolute path, one per instance. "
        "Default: the folder called like instance.id in /var/lib/outrider.",
    )
    # which names there are is in the tables of drivers, which lie above this module: ``load.type_of`` adds them
    runtime: str = setting("process", "What runs the versions.")
    balancer: str = setting("traefik", "Which load balancer sends the traffic.")
    allow_downgrade: bool = setting(
        True,
        "Whether the update service may send this instance back to an older version. False is this machine's veto,"
        " also against `rollout undo`.",
    )
    drain_at_shutdown: bool = setting(
        False,
        "Take the instance out of the balancer when its machine shuts down; needs the unit outrider-shutdown@ as well.",
    )
    shutdown_wait_s: float = setting(
        30.0,
        "How long a machine that shuts down waits for a turn; then its instance leaves the balancer without one.",
        least=0,
    )
    alias: str = setting("", "A second name for people, shown by the update service.")
    labels: Mapping[str, str] = computed(
        dict,
        'Where and what this instance is, such as { site = "a", rack = "3" }: a group\'s waves, canaries and budgets '
        "choose by it.",
    )
    reserve_bytes: int = setting(
        16 * 1024**2,
        "Room on state_dir's disk that is kept for journal and outbox: no download takes it, nor what is unpacked. "
        "A sixteenth of a small disk at most; 0 keeps none.",
        least=0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    """[etcd]: where the fleet's shared state is kept."""

    endpoints: tuple[str, ...] = setting(
        ("127.0.0.1:2379",),
        "Nodes as HOST:PORT, tried in turn. https://HOST:PORT asks over TLS; http:// and a slash at the end are taken.",
        wanted="HOST:PORT",
        empty=False,
    )
    prefix: str = setting(
        "/outrider/v1",
        "Prefix of all keys, the same for the whole fleet.",
        pattern=r"(/[A-Za-z0-9._-]+)+",
        wanted="a path such as /outrider/v1, without a slash at its end",
        empty=False,
    )
    ca_file: Path | None = setting(
        None,
        "PEM file of the authority that signed etcd's certificate; turns TLS on. "
        "Without it https:// endpoints need a certificate of an authority that this machine knows.",
    )
    cert_file: Path | None = setting(None, "PEM file of our client certificate.")
    key_file: Path | None = setting(None, "PEM file of the client certificate's key.")
    user: str = setting("", "etcd user, when etcd has users.")
    password_file: Path | None = setting(
        None, "File that holds the user's password; a line break at its end is cut. Read again at each sign-in."
    )
    password: Secret = setting(Secret(), "The user's password itself; password_file is the better place.")
    timeout_s: float = setting(3.0, "Longest time for one call, over all endpoints together.", above=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """[service]: the update service (Omaha)."""

    kind: Literal["outrider", "omaha"] = setting(
        "outrider",
        "Whose update service it is: outrider's own, whose releases and their digests are in etcd, or another Omaha"
        " server, such as Nebraska.",
    )
    allow_unverified: bool = setting(
        False,
        "With kind omaha: run what a server says over plain http, unsigned. Whoever reaches the network between them"
        " can then run any program on this machine.",
    )
    allow_plain_identity: bool = setting(
        False,
        "With kind outrider: send the proof of which instance checks in also over plain http to another machine."
        " Whoever reads it on the way can check in as this instance until the sidekick starts again.",
    )
    urls: tuple[str, ...] = setting(
        ("http://127.0.0.1:8000",),
        "Addresses of the update service, tried in turn.",
        pattern=HTTP_URL,
        wanted="http://HOST[:PORT] or https://HOST[:PORT]",
        empty=False,
    )
    ca_file: Path | None = setting(
        None,
        "PEM file of the authorities for the certificates of the update service and of payload servers. Default: those"
        " of this machine.",
    )
    cert_file: Path | None = setting(
        None, "PEM file with this machine's certificate and its key, for a service that asks for one (--tls-client-ca)."
    )
    poll_interval_s: float = setting(
        3600.0,
        "With kind outrider: time between checks when nothing was announced through etcd; jitter is added.",
        least=1,
    )
    foreign_poll_interval_s: float = setting(
        300.0, "With kind omaha: time between checks, for nobody announces anything; jitter is added.", least=1
    )
    timeout_s: float = setting(10.0, "Longest time for one request.", above=0)
    retry_min_s: float = setting(5.0, "First wait after a failed request; it doubles from there.", above=0)
    retry_max_s: float = setting(600.0, "Longest wait between two tries.", above=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockSettings:
    """[lock]: how many instances may swap at once."""

    scope: str = setting(
        "",
        "Name of a queue that instances of several groups share. Default: the group has one of its own.",
        pattern=NAME,
        wanted=NAME_WORDS,
    )
    slots: int = setting(1, "Instances that may swap at the same time, when the group's target doesn't say.", least=1)
    alarm_after_s: float = setting(
        3600.0, "Time in the queue after which an alarm is logged; again each time that it has passed.", above=0
    )
    ttl_s: float = setting(30.0, "Lease lifetime: the longest until a dead sidekick's turn shows as dirty.", least=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSettings:
    """[workload]: what every runtime needs to know about the app."""

    host: str = setting(
        "127.0.0.1",
        "Address the app listens on, and where the balancer finds it.",
        pattern=r"[^\s/]+",
        wanted="a host name or an address",
        empty=False,
    )
    ports: str = setting(
        "",
        'Ports to use: "" for any free one, "8085" for always this one, "8085-8086" for the first free one of these.',
        pattern=r"[0-9]{1,5}(-[0-9]{1,5})?",
        wanted='"", "PORT" or "FIRST-LAST"',
    )
    env: Mapping[str, str] = computed(dict, "Variables to add to the app's environment; PORT and HOST are always set.")
    unit: str = setting(
        "",
        "systemd unit that the app is moved to, out of the sidekick's, so that systemctl kill spares it; active, with"
        " Delegate=yes, and of the sidekick's user. For the runtimes process and command. The units that come along set"
        " it to outrider-apps@NAME.service.",
        pattern=r"[A-Za-z0-9:_.\\@-]+\.service",
        wanted="the name of a unit that ends with .service",
    )
    start_timeout_s: float = setting(
        60.0, "Time in which a version must be started; a minute more when it has to be prepared again.", above=0
    )
    stop_grace_s: float = setting(30.0, "Time between SIGTERM and SIGKILL.", least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerSettings:
    """[balancer]: what the load balancer calls this app and this instance; without effect when there is none."""

    service: str = setting(
        "",
        "Name of the app's service in the load balancer. Needed when there is one.",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]*",
        wanted="letters, digits or . _ -",
    )
    server_id: str = setting(
        "",
        "Name of this instance's server entry. Default: instance.id.",
        pattern=INSTANCE_NAME,
        wanted=INSTANCE_WORDS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """[probe]: how an instance shows that it is healthy."""

    kind: Literal["http", "tcp", "command", "healthcheck"] = setting(
        "http",
        "What a probe is: an HTTP request, a TCP connection, a command that exits with 0, or what the runtime itself"
        " has found (docker: the image's HEALTHCHECK).",
    )
    path: str = setting(
        "/health", "Path of the request.", pattern=r"/\S*", wanted="a path that begins with /", empty=False
    )
    scheme: Literal["http", "https"] = setting("http", "Protocol of the request.")
    host: str = setting(
        "",
        "Host header of the request, and over https the name in the certificate. Default: workload.host with the port.",
        pattern=r"[^\s/?#@]+",
        wanted="a host name, with a port if the app needs one",
    )
    headers: Mapping[str, str] = computed(dict, "Header fields to add to the request.")
    statuses: tuple[str, ...] = setting(
        ("200-299",),
        "Status codes that are healthy, each a number or a range.",
        pattern=r"[1-5][0-9]{2}(-[1-5][0-9]{2})?",
        wanted="a status code such as 204, or a range such as 200-299",
        empty=False,
    )
    verify: bool = setting(True, "Whether the certificate of an https app is checked.")
    ca_file: Path | None = setting(
        None, "PEM file of the authorities for the app's certificate. Default: those of this machine."
    )
    command: tuple[str, ...] = setting(
        (),
        "Program and arguments, run on this machine. {url}, {host} and {port} are replaced. "
        "Needed when probe.kind is command.",
    )
    interval_s: float = setting(1.0, "Time from one probe to the next.", above=0)
    timeout_s: float = setting(5.0, "Longest time for one answer.", above=0)
    successes: int = setting(3, "Healthy answers in a row that prove a new version.", least=1)
    failures: int = setting(3, "Bad answers in a row while soaking that block the release.", least=1)
    deadline_s: float = setting(60.0, "Time in which a new version must be proved.", above=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainSettings:
    """[drain]: how long the old version may finish its requests."""

    wait_s: float = setting(5.0, "Time the old version keeps running once no new request reaches it.", least=0)
    confirm_timeout_s: float = setting(
        15.0, "Longest wait for the balancer's own word on what it sends where.", least=0
    )
    max_s: float = setting(
        30.0, "Longest time for all of draining; then the old version is stopped regardless.", above=0
    )
    inflight_path: str = setting(
        "",
        "Path of the app that answers the number of requests under way; at 0 the wait ends early.",
        pattern=r"/\S*",
        wanted="a path that begins with /",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakSettings:
    """[soak]: watching the new version under traffic before the swap counts."""

    duration_s: float = setting(
        20.0,
        "Time for which the new version must stay healthy under traffic; 0 for none. Never shorter than probe.failures "
        "answers may take: else a version that hangs would pass.",
        least=0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadSettings:
    """[download]: fetching payloads."""

    deadline_s: float = setting(
        600.0, "Time in which a payload must be on disk; what is there is kept and resumed.", above=0
    )
    max_bytes: int = setting(4 * 1024**3, "Largest payload that is taken.", least=1)
    timeout_s: float = setting(30.0, "Longest silence of a payload server.", above=0)
    verify_timeout_s: float = setting(
        600.0, "Time in which a payload must be checked (size and SHA-256) and prepared (unpacked).", above=0
    )
    keep_versions: int = setting(
        3, "Versions whose payload stays on disk; what runs and what ran before it always stay.", least=2
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustSettings:
    """[trust]: whose signatures a release must have before this machine runs it."""

    keys: tuple[str, ...] = setting(
        (),
        "Files with public keys: Ed25519 in PEM, as `outrider key create` writes them, or those of minisign or"
        " cosign. Default: signatures are not asked for. Needs the extra trust.",
        pattern=r"/.+",
        wanted="the whole path of a public key's file, beginning with /",
    )
    threshold: int = setting(1, "How many of these keys must have signed a release.", least=1)
    folder: Path | None = setting(
        None,
        "Folder with envelopes (*.json) and signatures of minisign (*.minisig) besides those in etcd: for an update"
        " service of another make.",
    )
    allow_unbound_minisign: bool = setting(
        False,
        "Also minisign signatures count whose trusted comment names no app and version: they prove the payload's bytes"
        " alone, so an old payload, or that of another app with the same key, can be served as any version.",
    )
    allow_unbound_cosign: bool = setting(
        False,
        "Also signatures of cosign count whose annotations name no app and version: they prove the image's digest"
        " alone, so an old image, or that of another app with the same key, can be served as any version.",
    )

    @property
    def is_on(self) -> bool:
        """Releases must be signed."""
        return bool(self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """[log]: what is written to stdout."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "Least severe level that is written.")
    format: Literal["auto", "json", "text"] = setting(
        "auto",
        "auto is text on a terminal, an entry of the journal for a unit of systemd, and JSON lines elsewhere.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """[metrics]: what Prometheus may read of this process; of several instances, in the first file."""

    listen: str = setting(
        "",
        "Where GET /metrics is answered: HOST:PORT of this machine alone (127.0.0.1, [::1], localhost), or unix:/PATH. "
        "Default: nowhere.",
    )
    textfile: Path | None = setting(
        None, "File for node_exporter's textfile collector; its name ends with .prom. Default: none."
    )
    textfile_interval_s: float = setting(15.0, "Time from one writing of metrics.textfile to the next.", above=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, by section.

    Attributes:
        drivers: The sections that belong to one driver each, also those of drivers that aren't chosen.
    """

    instance: InstanceSettings
    etcd: EtcdSettings = field(default_factory=EtcdSettings)
    service: ServiceSettings = field(default_factory=ServiceSettings)
    lock: LockSettings = field(default_factory=LockSettings)
    workload: WorkloadSettings = field(default_factory=WorkloadSettings)
    balancer: BalancerSettings = field(default_factory=BalancerSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    drain: DrainSettings = field(default_factory=DrainSettings)
    soak: SoakSettings = field(default_factory=SoakSettings)
    analysis: AnalysisSettings = field(default_factory=AnalysisSettings)
    download: DownloadSettings = field(default_factory=DownloadSettings)
    trust: TrustSettings = field(default_factory=TrustSettings)
    log: LogSettings = field(default_factory=LogSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    drivers: Mapping[str, Any] = field(default_factory=dict)

    def section(self, name: str) -> Any:
        """The settings of ``[name]``, whether shared or a driver's."""
        return self.drivers[name] if name in self.drivers else getattr(self, name)

    def of(self, kind: type[T]) -> T:
        """A driver's settings by their class; the defaults when nothing was loaded for it."""
        return next((one for one in self.drivers.values() if isinstance(one, kind)), None) or kind()


def port_range(ports: str) -> tuple[int, int] | None:
    """First and last port of ``workload.ports``; None for "any free one".

    Raises:
        ValueError: not a port or a range, outside 1 to 65535, or backwards; the text says which.
    """
    if not ports:
        return None
    if not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?", ports):
        raise ValueError('write "", "PORT" or "FIRST-LAST"')
    first, _, last = ports.partition("-")
    low, high = int(first), int(last or first)
    if not (1 <= low <= 65535 and 1 <= high <= 65535):
        raise ValueError("ports are 1 to 65535")
    if high < low:
        raise ValueError(f"{high} is below {low}")
    return low, high


def unit_of(key: str) -> str:
    """The unit that a setting's name carries, ``s`` or ``bytes``; empty when it has none."""
    last = key.rpartition("_")[2]
    return last if last in {"s", "bytes"} else ""
