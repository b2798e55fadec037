"""HAProxy: slots of a ``server-template``, changed through the runtime API.

A free slot is in maintenance. A server gets one: address, weight, then ``state ready``. A server that no entry names
any more is put to ``drain``, keeps its sessions (``scur``, and ``qcur``, those in its queue), and is put to maintenance
when it has none. That is HAProxy's own, synchronous: after ``drain`` no new session goes there.

A reload starts from the configuration, in which every slot is disabled. So the servers' state is written to a file
after every change (``show servers state``), and HAProxy reads it when it starts (``load-server-state-from-file
global``). Measured on 2.6.12: address, port, weight, ready and drain come back, without one failed request.

After a reload the process before goes on with the sessions that it has, and the new one counts none of them. As long as
it lives, servers that drained then count one open request more.
"""

import ipaddress
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from loguru import logger

from outrider.balancers.agent.claim import started
from outrider.balancers.agent.driver import AgentServer, Away, CannotFollow, Report, read_text, replace_file

TIMEOUT_S = 3.0
NAMES_FOR_S = 30.0
"""For how long the IP address of a name is used."""
_MAINTENANCE = 0x01 | 0x02 | 0x20  # forced, inherited, by DNS: doc/management.txt, srv_admin_state
_DRAIN = 0x08 | 0x10
_DONE = re.compile(r"|.*\b(changed from|no need to change)\b.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One line of ``show servers state``.

    Attributes:
        address: ``host:port``; IPv6 in brackets.
        state: ``ready``, ``drain`` or ``maint``.
        open: Sessions, and requests in the queue.
    """

    name: str
    address: str
    weight: int
    state: str
    open: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HaproxyState:
    """What HAProxy does with one backend.

    Attributes:
        is_saved: The file with the servers' state says the same.
        lingering: Addresses that drained when HAProxy was reloaded, whose process before still finishes its sessions.
    """

    backend: str
    slots: tuple[Slot, ...]
    version: str = ""
    is_saved: bool = True
    lingering: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """Lines of the runtime API, one after the other."""

    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Write the file with the servers' state."""

    def __str__(self) -> str:
        return "show servers state > file"


Command = Say | Save
MAX_WEIGHT = 256
"""HAProxy's own limit."""
FINER = 16


def plan(servers: tuple[AgentServer, ...], state: HaproxyState) -> tuple[Command, ...]:
    """Servers come in, then others drain, then those without a session are put away, then the state is saved.

    Raises:
        CannotFollow: there are more servers than slots.
    """
    wanted = {server.address: server for server in servers}
    times = finer(servers)
    at: dict[str, Slot] = {}
    spare: list[Slot] = []
    commands: list[Command] = []
    for slot in sorted(state.slots, key=lambda one: (one.state == "maint", one.state == "drain", one.name)):
        if slot.state == "maint":
            spare.append(slot)
        elif slot.address in wanted and slot.address not in at:
            at[slot.address] = slot
        elif slot.state == "drain" and not slot.open:
            commands.append(_say(state, slot, "state maint"))
            spare.append(slot)
    for address, server in wanted.items():
        found = at.get(address)
        if found is None:
            if not spare:
                raise CannotFollow(
                    f"HAProxy's backend {state.backend} has {len(state.slots)} slots, and all are taken: raise the"
                    " number in its `server-template`, and reload HAProxy"
                )
            # the one that had this address before, if it is there
            free = next((one for one in spare if one.address == address), spare[0])
            spare.remove(free)
            commands.append(
                _say(
                    state,
                    free,
                    f"addr {server.host} port {server.port}",
                    f"weight {server.weight * times}",
                    "state ready",
                )
            )
            continue
        if found.weight != server.weight * times:
            commands.append(_say(state, found, f"weight {server.weight * times}"))
        if found.state != "ready":
            commands.append(_say(state, found, "state ready"))
    for slot in state.slots:
        if slot.state == "ready" and at.get(slot.address) is not slot:
            commands.append(_say(state, slot, "state drain"))
    if commands or not state.is_saved:
        commands.append(Save())
    return tuple(commands)


def finer(servers: tuple[AgentServer, ...]) -> int:
    """How many of HAProxy's weights are one of ours.

    ``slowstart`` goes up by whole weights, so a server of weight 1 would have its full share from the first request on
    (measured on 2.6.12).
    """
    return min(FINER, MAX_WEIGHT // max((server.weight for server in servers), default=1))


def report(servers: tuple[AgentServer, ...], state: HaproxyState) -> Report:
    """Where it sends, in the entries' own words for the addresses."""
    urls = {server.address: server.url for server in servers}

    def url(address: str) -> str:
        return urls.get(address) or f"http://{address}"

    draining: dict[str, int | None] = {url(slot.address): slot.open for slot in state.slots if slot.state == "drain"}
    for address in state.lingering:
        if url(address) not in urls.values():
            draining[url(address)] = (draining.get(url(address)) or 0) + 1
    return Report(
        serving=frozenset(url(slot.address) for slot in state.slots if slot.state == "ready"),
        draining=draining,
        version=state.version,
    )


def _say(state: HaproxyState, slot: Slot, *words: str) -> Say:
    return Say(lines=tuple(f"set server {state.backend}/{slot.name} {each}" for each in words))


class HaproxyDriver:
    """One backend of one HAProxy."""

    def __init__(self, *, socket_path: Path, backend: str, state_file: Path) -> None:
        """Nothing is contacted.

        Args:
            socket_path: ``stats socket PATH level admin``.
            state_file: ``server-state-file``; written here, read by HAProxy.
        """
        self.name = "haproxy"
        self._socket, self._backend, self._file = socket_path, backend, state_file
        self._process: tuple[int, str] | None = None
        self._drained: frozenset[str] = frozenset()
        self._lingering: dict[tuple[int, str], frozenset[str]] = {}
        self._names: dict[str, tuple[str, float]] = {}
        self._urls: dict[str, str] = {}

    def look(self) -> HaproxyState:
        """Ask for the servers' state and sessions; see ``AgentDriver.look``."""
        info = dict(line.partition(": ")[::2] for line in self._ask("show info").splitlines())
        if info.get("Stopping", "0") != "0":
            raise Away("HAProxy is being reloaded, and its former process answers")
        dump = self._ask("show servers state")
        stats = _table(self._ask(f"show stat {self._backend} 4 -1"), ",")
        if not stats:
            raise CannotFollow(f"HAProxy has no backend {self._backend}, or it has no `server-template`")
        open_at = {row["svname"]: int(row["scur"] or 0) + int(row["qcur"] or 0) for row in stats}
        slots = slots_in(dump, self._backend, open_at)
        is_reloaded = self._follow(
            info.get("Pid", ""), frozenset(slot.address for slot in slots if slot.state == "drain")
        )
        saved = slots_in(read_text(self._file), self._backend, {})
        if is_reloaded and has_forgotten(saved, slots):
            logger.bind(backend=self._backend, state_file=str(self._file)).warning(
                "HAProxy was reloaded and began without its servers: it needs server-state-file and"
                " load-server-state-from-file"
            )
        return HaproxyState(
            backend=self._backend,
            slots=slots,
            version=info.get("Version", ""),
            is_saved=_without_counts(saved) == _without_counts(slots),
            lingering=frozenset().union(*self._lingering.values()),
        )

    def plan(self, servers: tuple[AgentServer, ...], state: HaproxyState) -> tuple[Command, ...]:
        """See the function ``plan``. The runtime API takes IP addresses only."""
        return plan(tuple(self._by_ip(server) for server in servers), state)

    def report(self, servers: tuple[AgentServer, ...], state: HaproxyState) -> Report:
        """See the function ``report``."""
        told = report(tuple(self._by_ip(server) for server in servers), state)
        return Report(
            serving=frozenset(self._urls.get(url, url) for url in told.serving),
            draining={self._urls.get(url, url): count for url, count in told.draining.items()},
            version=told.version,
        )

    def perform(self, command: Command) -> None:
        """See ``AgentDriver.perform``."""
        match command:
            case Say():
                for line in command.lines:
                    answer = self._ask(line).strip()
                    if not _DONE.fullmatch(answer):
                        raise CannotFollow(f"HAProxy: {line}: {answer}")
            case Save():
                replace_file(self._file, self._ask("show servers state"))

    def _by_ip(self, server: AgentServer) -> AgentServer:
        """The server with the IP address of its host.

        Raises:
            CannotFollow: nobody knows the name.
        """
        if _is_ip(server.host):
            return server
        ip, until = self._names.get(server.host, ("", 0.0))
        if time.monotonic() >= until:
            try:
                ip = str(socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0][4][0])
            except OSError as error:
                if not ip:
                    raise CannotFollow(
                        f"server {server.id}: no IP address for {server.host}: {error.strerror}"
                    ) from error
            self._names[server.host] = (ip, time.monotonic() + NAMES_FOR_S)
        scheme = server.url.partition(":")[0]
        found = replace(server, url=f"{scheme}://{f'[{ip}]' if ':' in ip else ip}:{server.port}")
        self._urls[found.url] = self._urls[f"http://{found.address}"] = server.url
        return found

    def _follow(self, pid: str, draining: frozenset[str]) -> bool:
        """Notice a reload: what drained in the process before is served to its end there, and counted by nobody.

        Returns:
            Whether this is another process than at the look before.
        """
        number = int(pid) if pid.isdigit() else 0
        process = (number, started(number))
        is_reloaded = self._process is not None and self._process != process
        if self._process is not None and is_reloaded and self._process[1]:
            self._lingering[self._process] = self._drained
        self._lingering = {
            before: addresses for before, addresses in self._lingering.items() if started(before[0]) == before[1]
        }
        self._process, self._drained = process, draining
        return is_reloaded

    def _ask(self, line: str) -> str:
        """One line of the runtime API, and its answer."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line_to:
                line_to.settimeout(TIMEOUT_S)
                line_to.connect(str(self._socket))
                line_to.sendall(f"{line}\n".encode())
                answer = bytearray()
                while piece := line_to.recv(65536):
                    answer += piece
        except PermissionError as error:
            raise CannotFollow(
                f"HAProxy's socket {self._socket}: permission denied; let the agent's user write to it (`stats socket"
                " PATH mode 660 group GROUP level admin`)"
            ) from error
        except OSError as error:
            raise Away(f"HAProxy doesn't answer at {self._socket}: {error.strerror or error}") from error
        text = answer.decode(errors="replace")
        if text.lstrip().startswith("Permission denied"):
            raise CannotFollow(
                f"HAProxy's socket {self._socket} has no level admin: write `stats socket PATH ... level admin` into"
                " HAProxy's configuration"
            )
        if text.lstrip().startswith(("Can't find", "Unknown command")):
            raise CannotFollow(f"HAProxy: {line}: {text.strip().splitlines()[0]}")
        return text


def has_forgotten(saved: tuple[Slot, ...], slots: tuple[Slot, ...]) -> bool:
    """Whether an HAProxy that has just started serves nobody, although the file says that somebody served."""
    return any(slot.state == "ready" for slot in saved) and not any(slot.state == "ready" for slot in slots)


def slots_in(dump: str, backend: str, open_at: Mapping[str, int]) -> tuple[Slot, ...]:
    """The slots of ``backend`` in what ``show servers state`` printed."""
    lines = dump.splitlines()
    if not lines or lines[0].strip() != "1":  # the format's version
        return ()
    slots = []
    for row in _table("\n".join(lines[1:]), " "):
        if row.get("be_name") != backend:
            continue
        admin, host = int(row["srv_admin_state"]), row["srv_addr"]
        slots.append(
            Slot(
                name=row["srv_name"],
                address=f"[{host}]:{row['srv_port']}" if ":" in host else f"{host}:{row['srv_port']}",
                weight=int(row["srv_uweight"]),
                state="maint" if admin & _MAINTENANCE else "drain" if admin & _DRAIN else "ready",
                open=open_at.get(row["srv_name"], 0),
            )
        )
    return tuple(slots)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _without_counts(slots: tuple[Slot, ...]) -> list[tuple[str, str, int, str]]:
    return sorted((slot.name, slot.address, slot.weight, slot.state) for slot in slots)


def _table(text: str, separator: str) -> list[dict[str, str]]:
    """Rows by the names in the first line, which begins with ``# ``."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or not lines[0].startswith("# "):
        return []
    names = lines[0].removeprefix("# ").split(separator)
    return [dict(zip(names, line.split(separator), strict=False)) for line in lines[1:]]
