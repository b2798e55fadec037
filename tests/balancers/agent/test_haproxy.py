"""HAProxy's driver: what it says to slots, from what HAProxy 2.6.12 printed."""

import socket
import threading
from pathlib import Path

import pytest

from outrider.balancers.agent.driver import AgentServer, CannotFollow
from outrider.balancers.agent.haproxy import (
    FINER,
    HaproxyDriver,
    HaproxyState,
    Save,
    Say,
    Slot,
    has_forgotten,
    plan,
    report,
    slots_in,
)

DUMP = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr \
srv_agent_addr srv_agent_port
3 hello 1 s1 127.0.0.1 0 5 100 100 10 1 0 0 8 0 0 0 - 9 - 0 0 - - 0
3 hello 2 s2 127.0.0.1 2 12 10 100 4 1 0 4 8 0 0 0 - 8085 - 0 0 - - 0
3 hello 3 s3 127.0.0.1 2 4 1 100 4 1 0 4 8 0 0 0 - 8086 - 0 0 - - 0
4 other 1 s1 ::1 2 0 1 100 4 1 0 4 8 0 0 0 - 80 - 0 0 - - 0

"""
"""Printed by 2.6.12: a disabled slot, one in drain, one that is ready; and another backend."""


def server(port: int, weight: int = 1, id: str = "web-1") -> AgentServer:
    return AgentServer(id=id, url=f"http://127.0.0.1:{port}", weight=weight)


def slot(name: str, port: int, state: str, *, weight: int = FINER, open: int = 0) -> Slot:
    return Slot(name=name, address=f"127.0.0.1:{port}", weight=weight, state=state, open=open)


def state(*slots: Slot, is_saved: bool = True, lingering: frozenset[str] = frozenset()) -> HaproxyState:
    return HaproxyState(backend="hello", slots=slots, version="2.6.12", is_saved=is_saved, lingering=lingering)


def said(*servers: AgentServer, to: HaproxyState) -> list[str]:
    return [str(command) for command in plan(servers, to)]


def test_what_haproxy_prints_is_read_as_slots() -> None:
    assert (
        slot("s1", 9, "maint", weight=100),
        slot("s2", 8085, "drain", weight=10, open=3),
        slot("s3", 8086, "ready", weight=1),
    ) == slots_in(DUMP, "hello", {"s2": 3})
    assert ("[::1]:80",) == tuple(one.address for one in slots_in(DUMP, "other", {}))


def test_a_socket_of_a_lower_level_is_refused_with_what_to_configure(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as asked:
                asked.recv(1000)
                asked.sendall(b"Permission denied\n\n")

        answering = threading.Thread(target=answer)
        answering.start()
        driver = HaproxyDriver(socket_path=path, backend="hello", state_file=tmp_path / "state")

        with pytest.raises(CannotFollow, match="has no level admin: write `stats socket PATH"):
            driver.perform(Say(lines=("set server hello/s1 state ready",)))
        answering.join()


def test_a_start_without_the_servers_of_the_file_is_noticed() -> None:
    saved = (slot("s1", 8085, "ready"), slot("s2", 9, "maint"))

    assert has_forgotten(saved, (slot("s1", 9, "maint"), slot("s2", 9, "maint")))
    assert not has_forgotten(saved, saved)
    assert not has_forgotten((), (slot("s1", 9, "maint"),)), "nobody served before"


def test_what_is_not_that_format_is_no_slot() -> None:
    assert () == slots_in("2" + DUMP[1:], "hello", {})
    assert () == slots_in("", "hello", {})


def test_a_swap_brings_the_new_address_in_before_the_old_one_drains() -> None:
    commands = plan((server(8086),), state(slot("s1", 8085, "ready"), slot("s2", 9, "maint")))

    assert (
        Say(
            lines=(
                "set server hello/s2 addr 127.0.0.1 port 8086",
                "set server hello/s2 weight 16",
                "set server hello/s2 state ready",
            )
        ),
        Say(lines=("set server hello/s1 state drain",)),
        Save(),
    ) == commands


def test_a_server_drains_while_it_has_sessions_and_is_put_away_when_it_has_none() -> None:
    ready = slot("s2", 8086, "ready")

    assert [] == said(server(8086), to=state(slot("s1", 8085, "drain", open=1), ready))
    assert ["set server hello/s1 state maint", "show servers state > file"] == said(
        server(8086), to=state(slot("s1", 8085, "drain"), ready)
    )


def test_an_address_that_comes_back_is_made_ready_where_it_drains() -> None:
    assert "set server hello/s1 state ready" in said(
        server(8085), to=state(slot("s1", 8085, "drain", open=1), slot("s2", 8086, "ready"))
    )


def test_a_changed_weight_is_said() -> None:
    assert ["set server hello/s1 weight 80", "show servers state > file"] == said(
        server(8085, weight=5), to=state(slot("s1", 8085, "ready"))
    )


def test_weights_are_finer_than_ours_as_far_as_haproxy_has_numbers_for_them() -> None:
    """Its slow start goes up by whole weights: of weight 1 there is no half."""
    plain, heavy, heaviest = server(8085), server(8086, weight=100, id="web-2"), server(8087, weight=256, id="web-3")
    slots = state(*(slot(f"s{port}", port, "ready", weight=7) for port in (8085, 8086, 8087)))

    def weights(*servers: AgentServer) -> list[int]:
        return [int(line.rpartition(" ")[2]) for line in said(*servers, to=slots) if "weight" in line]

    assert [16] == weights(plain)
    assert [2, 200] == weights(plain, heavy)
    assert [1, 100, 256] == weights(plain, heavy, heaviest)


def test_two_slots_with_one_address_become_one() -> None:
    assert ["set server hello/s2 state drain", "show servers state > file"] == said(
        server(8085), to=state(slot("s1", 8085, "ready"), slot("s2", 8085, "ready"))
    )


def test_what_is_as_it_must_be_needs_nothing_but_its_file() -> None:
    right = (slot("s1", 8085, "ready"), slot("s2", 9, "maint"))

    assert [] == said(server(8085), to=state(*right))
    assert ["show servers state > file"] == said(server(8085), to=state(*right, is_saved=False))


def test_a_slot_that_drained_to_its_end_is_room_and_one_with_sessions_is_not() -> None:
    full = (slot("s1", 8085, "ready"), slot("s2", 8084, "drain", open=1))

    with pytest.raises(CannotFollow, match="has 2 slots, and all are taken: raise the number"):
        plan((server(8086), server(8085, id="web-2")), state(*full))
    commands = said(server(8086), server(8085, id="web-2"), to=state(full[0], slot("s2", 8084, "drain")))

    assert commands[0] == "set server hello/s2 state maint"
    assert commands[1].startswith("set server hello/s2 addr 127.0.0.1 port 8086")


@pytest.mark.parametrize("wanted", [(), (8085,), (8086,), (8085, 8086), (8087, 8088)])
def test_following_the_plan_leaves_nothing_to_plan(wanted: tuple[int, ...]) -> None:
    """The plan is applied to slots as HAProxy would, until it is empty; what serves is then what was wanted."""
    slots = {
        one.name: one
        for one in (
            slot("s1", 8085, "ready"), slot("s2", 8084, "drain", open=2), slot("s3", 8086, "drain"),
            slot("s4", 9, "maint"), slot("s5", 8085, "maint"), slot("s6", 9, "maint"),
        )
    }  # fmt: skip
    servers = tuple(server(port, id=f"web-{port}") for port in wanted)
    for _ in range(4):
        for command in plan(servers, state(*slots.values())):
            for line in command.lines if isinstance(command, Say) else ():
                _, _, target, key, value, *rest = line.split()
                old = slots[target.partition("/")[2]]
                match key:
                    case "addr":
                        assert old.state == "maint", "a server that serves or drains never gets another address"
                        slots[old.name] = slot(old.name, int(rest[1]), old.state)
                    case "state":
                        slots[old.name] = Slot(
                            name=old.name, address=old.address, weight=old.weight, state=value, open=old.open
                        )

    assert () == plan(servers, state(*slots.values()))
    assert {f"http://127.0.0.1:{port}" for port in wanted} == report(servers, state(*slots.values())).serving


def test_the_report_has_what_serves_and_the_sessions_of_what_drains() -> None:
    told = report(
        (server(8086),),
        state(slot("s1", 8085, "drain", open=2), slot("s2", 8086, "ready"), slot("s3", 9, "maint")),
    )

    assert {"http://127.0.0.1:8086"} == told.serving
    assert {"http://127.0.0.1:8085": 2} == told.draining
    assert "2.6.12" == told.version


def test_sessions_of_a_process_before_a_reload_count_as_one_more() -> None:
    told = report((server(8086),), state(slot("s2", 8086, "ready"), lingering=frozenset({"127.0.0.1:8085"})))

    assert {"http://127.0.0.1:8085": 1} == told.draining
