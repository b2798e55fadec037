"""What is wrong between settings that are each right by themselves, or with one in a way that its rule can't say."""

import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

from outrider.balancers.drivers import BALANCERS
from outrider.config.analysis import analysis_problems
from outrider.config.drivers import Problem
from outrider.config.sections import (
    EtcdSettings,
    MetricsSettings,
    ProbeSettings,
    Rule,
    ServiceSettings,
    Settings,
    TrustSettings,
    port_range,
)
from outrider.core.addresses import http_problem, parse_endpoints
from outrider.core.errors import ConfigError
from outrider.core.labels import check_labels
from outrider.metrics import listen_problem
from outrider.runtimes.drivers import RUNTIMES
from outrider.trust.keys import EXTRA, is_available, load_public_keys

_RESERVED = frozenset({"PORT", "HOST"})
_FIELD_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_OWN_FIELDS = {
    "host": "set probe.host instead",
    "connection": "is set by outrider itself",
    "content-length": "is set by outrider itself",
    "transfer-encoding": "is set by outrider itself",
}
"""Header fields in lower case that probe.headers can't set -> why."""
_REPORT_HEALTH = frozenset({"docker", "dpkg"})
"""Runtimes that say whether a workload is well."""


def contradictions(settings: Settings) -> Iterator[Problem]:
    """What is wrong between settings, or with one beyond its type: the key to blame and the problem."""
    etcd, drain, probe = settings.etcd, settings.drain, settings.probe
    yield from _host_name_problem(settings)
    yield from _state_dir_problem(settings)
    yield from _label_problem(settings)
    yield from _tls_problems(etcd)
    if etcd.password and etcd.password_file:
        yield "etcd.password_file", "etcd.password is set too; keep one of them"
    if etcd.user and not (etcd.password or etcd.password_file):
        yield "etcd.user", "needs etcd.password_file"
    if (etcd.password or etcd.password_file) and not etcd.user:
        yield "etcd.password_file" if etcd.password_file else "etcd.password", "needs etcd.user"
    for url in settings.service.urls:
        if problem := http_problem(url):
            yield "service.urls", f"{url!r}: {problem}"
    yield from _service_problems(settings.service)
    yield from _trust_problems(settings.trust)
    yield from _metrics_problems(settings.metrics)
    if settings.service.allow_unverified and settings.service.kind == "outrider":
        yield (
            "service.allow_unverified",
            "has no effect, for service.kind is outrider, whose payloads are compared with etcd; remove it",
        )
    if settings.service.retry_max_s < settings.service.retry_min_s:
        yield "service.retry_max_s", f"is below service.retry_min_s ({settings.service.retry_min_s:g})"
    yield from _workload_problems(settings)
    yield from RUNTIMES.load(settings.instance.runtime).problems(settings)
    yield from BALANCERS.load(settings.instance.balancer).problems(settings)
    yield from _probe_problems(probe)
    yield from analysis_problems(settings.analysis, settings.balancer.service)
    if probe.kind == "healthcheck" and settings.instance.runtime not in _REPORT_HEALTH:
        yield (
            "probe.kind",
            f"healthcheck needs a runtime that reports it ({', '.join(sorted(_REPORT_HEALTH))}), and"
            f" instance.runtime is {settings.instance.runtime}; choose http, tcp or command",
        )
    if (probe.successes - 1) * probe.interval_s >= probe.deadline_s:
        yield (
            "probe.deadline_s",
            (f"{probe.successes} answers at {probe.interval_s:g} s each can't come within {probe.deadline_s:g} s"),
        )
    if drain.wait_s > drain.max_s:
        yield "drain.max_s", f"is below drain.wait_s ({drain.wait_s:g})"


def _host_name_problem(settings: Settings) -> Iterator[Problem]:
    """The default of ``instance.id`` is the host name, which no rule was applied to."""
    rule: Rule = next(each for each in fields(settings.instance) if each.name == "id").metadata["rule"]
    if not re.fullmatch(rule.pattern, settings.instance.id):
        yield "instance.id", f"the host name {settings.instance.id!r} can't be used; set it: {rule.wanted}"


def _state_dir_problem(settings: Settings) -> Iterator[Problem]:
    """A file where the folder, or one above it, must be."""
    folder = settings.instance.state_dir
    for each in (folder, *folder.parents):
        if each.exists() and not each.is_dir():
            yield "instance.state_dir", f"{each} is not a folder; name a folder of this instance's own"


def _label_problem(settings: Settings) -> Iterator[Problem]:
    """A label that can't be used."""
    try:
        check_labels(settings.instance.labels)
    except ConfigError as error:
        yield "instance.labels", str(error)


def _tls_problems(etcd: EtcdSettings) -> Iterator[Problem]:
    """Endpoints and certificates that can't work, or not together: what would end a sidekick at its start."""
    try:
        _, tls = parse_endpoints(etcd.endpoints, tls=bool(etcd.ca_file or etcd.cert_file))
    except ValueError as problem:
        yield "etcd.endpoints", str(problem)
        return
    for key, path in (("ca_file", etcd.ca_file), ("cert_file", etcd.cert_file), ("key_file", etcd.key_file)):
        if path is not None and not path.is_file():
            yield f"etcd.{key}", f"{path}: no such file"
    if etcd.cert_file and not etcd.key_file:
        yield "etcd.cert_file", "needs etcd.key_file beside it"
    if etcd.key_file and not etcd.cert_file:
        yield "etcd.key_file", "needs etcd.cert_file beside it"
    if etcd.cert_file and not etcd.ca_file and not any(each.lower().startswith("https") for each in etcd.endpoints):
        yield "etcd.cert_file", "needs etcd.ca_file, which turns TLS on"
    if tls and etcd.ca_file:
        yield from _unusable("etcd.ca_file", etcd.ca_file, lambda: _context().load_verify_locations(etcd.ca_file))
    if tls and etcd.cert_file and etcd.key_file:
        pair = (etcd.cert_file, etcd.key_file)
        yield from _unusable("etcd.cert_file", etcd.cert_file, lambda: _context().load_cert_chain(*pair))


def _service_problems(service: ServiceSettings) -> Iterator[Problem]:
    """Certificates that can't be used."""
    for key, path in (("ca_file", service.ca_file), ("cert_file", service.cert_file)):
        if path is not None and not path.is_file():
            yield f"service.{key}", f"{path}: no such file"
    if service.ca_file is not None and service.ca_file.is_file():
        ca_file = service.ca_file
        yield from _unusable("service.ca_file", ca_file, lambda: _context().load_verify_locations(ca_file))
    if service.cert_file is not None and service.cert_file.is_file():
        cert_file = service.cert_file
        yield from _unusable("service.cert_file", cert_file, lambda: _context().load_cert_chain(cert_file), "its key")


def _trust_problems(trust: TrustSettings) -> Iterator[Problem]:
    """Keys that can't be used: found here, and not when a release waits for them."""
    if trust.keys and not is_available():
        yield "trust.keys", EXTRA
        return
    if not trust.keys and trust.threshold != 1:
        yield "trust.threshold", "has no effect without trust.keys"
    if not trust.keys and trust.folder is not None:
        yield "trust.folder", "has no effect without trust.keys"
    if not trust.keys and trust.allow_unbound_minisign:
        yield "trust.allow_unbound_minisign", "has no effect without trust.keys"
    if not trust.keys and trust.allow_unbound_cosign:
        yield "trust.allow_unbound_cosign", "has no effect without trust.keys"
    if trust.keys and trust.threshold > len(trust.keys):
        yield "trust.threshold", f"{trust.threshold} signatures can't come from {len(trust.keys)} keys"
    if trust.keys:
        try:
            load_public_keys(Path(path) for path in trust.keys)
        except ConfigError as error:
            yield "trust.keys", str(error)


def _metrics_problems(metrics: MetricsSettings) -> Iterator[Problem]:
    """Where nobody could listen, or nobody would look."""
    if metrics.listen and (problem := listen_problem(metrics.listen)):
        yield "metrics.listen", f"{metrics.listen!r}: {problem}"
    if metrics.textfile is not None and metrics.textfile.suffix != ".prom":
        yield "metrics.textfile", f"{metrics.textfile}: node_exporter reads files whose names end with .prom"
    if metrics.textfile is not None and not metrics.textfile.is_absolute():
        yield "metrics.textfile", f"{metrics.textfile} is relative; write the whole path, beginning with /"


def _context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _unusable(key: str, path: Path, load: Callable[[], object], other: str = "etcd.key_file") -> Iterator[Problem]:
    try:
        load()
    except ssl.SSLError as error:
        reason = {
            "KEY_VALUES_MISMATCH": f"does not belong to {other}",
            "NO_CERTIFICATE_OR_CRL_FOUND": "is not a PEM file of certificates",
            "NO_START_LINE": "is not a PEM file of certificates",
        }.get(error.reason or "", f"it, or {other}, is not a PEM file ({error.reason or 'unreadable'})")
        yield key, f"{path}: {reason}"
    except (OSError, ValueError) as error:
        yield key, f"{path}: can't be read: {getattr(error, 'strerror', None) or error}"


def _probe_problems(probe: ProbeSettings) -> Iterator[Problem]:
    if probe.kind == "command" and not (probe.command and probe.command[0]):
        yield "probe.command", 'missing; for example ["pg_isready", "--host={host}", "--port={port}"]'
    if probe.kind != "command" and probe.command:
        yield "probe.command", f"has no effect, for probe.kind is {probe.kind}; set that to command, or remove this"
    for name, text in probe.headers.items():
        if not re.fullmatch(_FIELD_NAME, name):
            yield "probe.headers", f"{name!r}: not the name of a header field"
        elif name.lower() in _OWN_FIELDS:
            yield "probe.headers", f"{name}: {_OWN_FIELDS[name.lower()]}"
        if not text.isprintable() or text != text.strip() or not text.isascii():
            yield "probe.headers", f"{name}: its text must be printable ASCII without blanks around it"
    for each in probe.statuses:
        first, _, last = each.partition("-")
        if last and last < first:
            yield "probe.statuses", f"{each!r}: {last} is below {first}"
    if probe.ca_file is not None and not probe.ca_file.is_file():
        yield "probe.ca_file", f"{probe.ca_file}: no such file"
    if probe.ca_file is not None and probe.scheme != "https":
        yield "probe.ca_file", "needs probe.scheme = https"
    if probe.ca_file is not None and not probe.verify:
        yield "probe.ca_file", "has no effect, for probe.verify is false; remove one of them"


def _workload_problems(settings: Settings) -> Iterator[Problem]:
    workload = settings.workload
    for name in workload.env:
        if not name or "=" in name or "\0" in name + workload.env[name]:
            yield "workload.env", f"{name!r}: not the name of a variable"
        if name in _RESERVED or name.startswith("OUTRIDER_"):
            yield "workload.env", f"{name}: is set by outrider itself"
    if workload.host in ("0.0.0.0", "::", "*"):  # noqa: S104 - refused here, not used
        yield "workload.host", f"{workload.host!r} is no address that a balancer can send to; name this machine's"
    try:
        ports = port_range(workload.ports)
    except ValueError as problem:
        yield "workload.ports", f"{workload.ports!r}: {problem}"
        return
    if settings.instance.strategy == "start-first" and ports is not None and ports[0] == ports[1]:
        yield (
            "workload.ports",
            (
                f"start-first runs two versions at once, and {workload.ports!r} is one port; "
                "give a range, or set instance.strategy to stop-first"
            ),
        )
