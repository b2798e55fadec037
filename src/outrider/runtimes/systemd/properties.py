"""systemd's directives as they are written in unit files, turned into the typed properties that D-Bus wants.

A transient unit has no file, so what ``systemctl`` would parse is parsed here. A directive that isn't in the table is
refused when the settings are loaded.

Source: systemd.exec(5), systemd.resource-control(5), systemd.time(7); ``src/core/dbus-execute.c`` and
``src/core/dbus-cgroup.c`` of systemd 252.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Value = tuple[str, Any]
"""A D-Bus signature, and a value of that type."""
Converter = Callable[[str], Value]

INFINITY = 2**64 - 1
MS_REC = 16384
_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""In the order of their numbers: linux/capability.h."""
_SECONDS = {
    "us": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3, "": 1, "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "minute": 60, "minutes": 60, "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
}  # fmt: skip


def _text(text: str) -> Value:
    return "s", text


def _words(text: str) -> Value:
    return "as", text.split()


def _yes(text: str) -> Value:
    lower = text.lower()
    if lower in ("yes", "true", "on", "1", "y", "t"):
        return "b", True
    if lower in ("no", "false", "off", "0", "n", "f"):
        return "b", False
    raise ValueError(f"{text!r} is neither yes nor no")


def _number(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def _signed(text: str) -> Value:
    return "i", _number(text)


def _count(text: str) -> Value:
    if text == "infinity":
        return "t", INFINITY
    if (number := _number(text)) < 0:
        raise ValueError(f"{text!r} is below 0")
    return "t", number


def _bytes(text: str) -> Value:
    if text == "infinity":
        return "t", INFINITY
    found = re.fullmatch(r"([0-9]+)([KMGTP]?)", text)
    if found is None:
        raise ValueError(f"{text!r} is no size; write bytes, or 512M, or infinity")
    return "t", int(found[1]) * 1024 ** " KMGTP".index(found[2] or " ")


def _percent(text: str) -> Value:
    found = re.fullmatch(r"([0-9]+)%", text)
    if found is None:
        raise ValueError(f"{text!r} is no share; write 150% for one processor and a half")
    return "t", int(found[1]) * 10_000


def _time(text: str) -> Value:
    if text == "infinity":
        return "t", INFINITY
    total, rest = 0.0, text.strip()
    while rest:
        found = re.match(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", rest)
        if found is None or found[2] not in _SECONDS:
            raise ValueError(f"{text!r} is no time; write seconds, or 1min 30s")
        total, rest = total + float(found[1]) * _SECONDS[found[2]], rest[found.end() :]
    return "t", round(total * 1_000_000)


def _mode(text: str) -> Value:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError(f"{text!r} is no mode; write 0027")
    return "u", int(text, 8)


def _capabilities(text: str) -> Value:
    inverted, names = text.startswith("~"), text.lstrip("~").split()
    mask = 0
    for name in names:
        short = name.upper().removeprefix("CAP_")
        if short not in _CAPABILITIES:
            raise ValueError(f"{name!r} is no capability; write CAP_NET_BIND_SERVICE")
        mask |= 1 << _CAPABILITIES.index(short)
    return "t", ~mask & ((1 << len(_CAPABILITIES)) - 1) if inverted else mask


def _filter(text: str) -> Value:
    return "(bas)", (not text.startswith("~"), text.lstrip("~").split())


def _binds(text: str) -> Value:
    found = []
    for word in text.split():
        source, _, place = word.partition(":")
        place = place.partition(":")[0] or source.lstrip("-")
        found.append((source.lstrip("-"), place, source.startswith("-"), MS_REC))
    return "a(ssbt)", found


def _files(text: str) -> Value:
    return "a(sb)", [(word.lstrip("-"), word.startswith("-")) for word in text.split()]


def _pairs(text: str) -> Value:
    return "a(ss)", [(word.partition(":")[0], word.partition(":")[2]) for word in text.split()]


_KINDS: Mapping[Converter, tuple[str, ...]] = {
    _yes: (
        "CPUAccounting", "IOAccounting", "IPAccounting", "LockPersonality", "MemoryAccounting",
        "MemoryDenyWriteExecute", "NoNewPrivileges", "PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateNetwork",
        "PrivateTmp", "PrivateUsers", "ProtectClock", "ProtectControlGroups", "ProtectHostname", "ProtectKernelLogs",
        "ProtectKernelModules", "ProtectKernelTunables", "RemoveIPC", "RestrictRealtime", "RestrictSUIDSGID",
        "TasksAccounting",
    ),
    _text: (
        "AppArmorProfile", "DevicePolicy", "Group", "KeyringMode", "LogNamespace", "NotifyAccess", "OOMPolicy",
        "ProcSubset", "ProtectHome", "ProtectProc", "ProtectSystem", "StandardError", "StandardOutput",
        "SyslogIdentifier", "Type",
    ),
    _words: (
        "After", "CacheDirectory", "ConfigurationDirectory", "Documentation", "ExecPaths", "InaccessiblePaths",
        "LogsDirectory", "NoExecPaths", "PassEnvironment", "ReadOnlyPaths", "ReadWritePaths", "Requires",
        "RuntimeDirectory", "StateDirectory", "SupplementaryGroups", "SystemCallArchitectures", "UnsetEnvironment",
        "Wants",
    ),
    _signed: ("Nice", "OOMScoreAdjust"),
    _count: ("CPUWeight", "IOWeight", "LimitNOFILE", "LimitNPROC", "StartupCPUWeight", "TasksMax"),
    _bytes: (
        "LimitAS", "LimitCORE", "LimitDATA", "LimitFSIZE", "LimitMEMLOCK", "LimitSTACK", "MemoryHigh", "MemoryLow",
        "MemoryMax", "MemoryMin", "MemorySwapMax",
    ),
    _mode: ("UMask", "StateDirectoryMode", "RuntimeDirectoryMode", "CacheDirectoryMode", "LogsDirectoryMode"),
    _capabilities: ("AmbientCapabilities", "CapabilityBoundingSet"),
    _filter: ("RestrictAddressFamilies", "SystemCallFilter"),
    _binds: ("BindPaths", "BindReadOnlyPaths"),
    _pairs: ("LoadCredential", "TemporaryFileSystem"),
}  # fmt: skip
_RENAMED: Mapping[str, tuple[str, Converter]] = {
    "CPUQuota": ("CPUQuotaPerSecUSec", _percent),
    "EnvironmentFile": ("EnvironmentFiles", _files),
    "TimeoutStartSec": ("TimeoutStartUSec", _time),
    "WatchdogSec": ("WatchdogUSec", _time),
    "RuntimeMaxSec": ("RuntimeMaxUSec", _time),
}
"""Directives that D-Bus calls otherwise."""
_TABLE: Mapping[str, tuple[str, Converter]] = {
    **{name: (name, convert) for convert, names in _KINDS.items() for name in names},
    **_RENAMED,
}
OURS: Mapping[str, str] = {
    "ExecStart": "set systemd.command",
    "Environment": "set workload.env",
    "User": "set systemd.user",
    "DynamicUser": "set systemd.user",
    "Slice": "set systemd.slice",
    "TimeoutStopSec": "set workload.stop_grace_s",
    "KillMode": "outrider sets it, so that nothing of a version outlives its unit",
    "Restart": "outrider restarts what ends, and would compete with systemd",
    "RemainAfterExit": "outrider sets it",
    "WorkingDirectory": "outrider sets it to the unpacked payload",
}
"""Directives that are ours -> what to do instead."""

SANDBOX: Mapping[str, str] = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "LockPersonality": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectSystem": "strict",
    "RemoveIPC": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "UMask": "0027",
}
"""What ``systemd.sandbox`` stands for. MemoryDenyWriteExecute and SystemCallFilter would break runtimes that compile
while they run."""


def property_problems(directives: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with directives that an operator wrote, one line each."""
    for name, text in directives.items():
        if name in OURS:
            yield f"{name}: {OURS[name]}"
        elif name not in _TABLE:
            near = difflib.get_close_matches(name, _TABLE, n=1)
            hint = f"did you mean {near[0]}?" if near else "write a unit of your own, and name it in systemd.unit"
            yield f"{name}: not among the directives that can be set here; {hint}"
        else:
            try:
                _TABLE[name][1](text)
            except ValueError as problem:
                yield f"{name}: {problem}"


def properties_of(directives: Mapping[str, str]) -> list[tuple[str, Value]]:
    """The directives as properties, in order; they have no problem."""
    return [(_TABLE[name][0], _TABLE[name][1](text)) for name, text in directives.items()]
