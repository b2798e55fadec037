"""The process that holds a port is named, and a table of the kernel's is read as the kernel writes it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from outrider.core.errors import DriverError
from outrider.runtimes.process.holders import holder_of
from outrider.runtimes.process.ports import free_port
from tests.support.waiting import eventually

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def listener(address: str, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    made = socket.socket(family)
    made.bind((address, 0))
    made.listen()
    return made


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_fixed_port_names_the_process_that_holds_it(host: str) -> None:
    with listener("127.0.0.1") as busy:
        port = busy.getsockname()[1]

        with pytest.raises(DriverError) as caught:
            free_port(host, str(port))

    named = f"no free port on {host} in {port}: port {port} is in use by pid {os.getpid()} ("
    assert str(caught.value).startswith(named)


def test_the_command_of_another_process_is_shown() -> None:
    script = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{script}; time.sleep(600)", "worker"], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    port = int(other.stdout.readline())

    found = holder_of("127.0.0.1", port)

    other.kill()
    other.communicate()
    assert found.startswith(f"pid {other.pid} ({sys.executable} -c import socket")
    assert eventually(lambda: holder_of("127.0.0.1", port) == "")


def listeners_in_a_row(count: int) -> list[socket.socket]:
    """Listeners of this process on adjacent ports: what another process holds may be given back at any time."""
    while True:
        row = [listener("127.0.0.1")]
        try:
            for port in range(row[0].getsockname()[1] + 1, row[0].getsockname()[1] + count):
                row.append(socket.create_server(("127.0.0.1", port)))
        except (OSError, OverflowError):  # somebody's, or the last port there is
            for each in row:
                each.close()
        else:
            return row


def test_a_range_names_the_first_and_counts_the_rest() -> None:
    busy = listeners_in_a_row(5)
    first = busy[0].getsockname()[1]

    with pytest.raises(DriverError) as caught:
        free_port("127.0.0.1", f"{first}-{first + 4}")

    for each in busy:
        each.close()
    assert 3 == str(caught.value).count("is in use by")
    assert str(caught.value).endswith("; 2 more")


def test_a_listener_on_all_addresses_of_the_other_family_is_found() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as busy:
        assert f"pid {os.getpid()} " in holder_of("127.0.0.1", busy.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "port", "state", "host", "is_named"),
    [
        ("0100007F", "1F95", "0A", "127.0.0.1", True),
        ("0100007F", "1F95", "0A", "0.0.0.0", True),
        ("0100007F", "1F95", "0A", "127.0.0.2", False),
        ("00000000", "1F95", "0A", "127.0.0.2", True),
        ("0100007F", "1F95", "01", "127.0.0.1", False),
        ("0100007F", "1F96", "0A", "127.0.0.1", False),
    ],
)
def test_only_a_listener_on_that_address_holds_the_port(
    tmp_path: Path, address: str, port: str, state: str, host: str, is_named: bool
) -> None:
    """The process is another user's, so that user is named."""
    (tmp_path / "self/net").mkdir(parents=True)
    line = f"   0: {address}:{port} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  4711 0 99 1 0 0\n"
    (tmp_path / "self/net/tcp").write_text(HEAD + line)

    found = holder_of(host, 8085, tmp_path)

    assert ("a process of user 4711 that this user may not look at" if is_named else "") == found


def test_who_does_not_count_as_a_holder_is_asked_only_when_somebody_listens() -> None:
    """What an app has left behind is no other process that took its port."""
    with listener("127.0.0.1") as busy:
        port = busy.getsockname()[1]

        assert "" == holder_of("127.0.0.1", port, besides=lambda: [os.getpid()])
        assert holder_of("127.0.0.1", port, besides=list).startswith(f"pid {os.getpid()} ")

    def nobody() -> list[int]:
        raise AssertionError("asked")

    assert "" == holder_of("127.0.0.1", port, besides=nobody)
