"""The runtime ``fleet`` against a stand-in, and the stand-in against what a real fleetd 1.0 has answered."""

import http.client
import json
import queue
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from outrider.config.sections import InstanceSettings, WorkloadSettings
from outrider.core.blame import judge
from outrider.core.errors import DriverError, Refused, Unknown
from outrider.runtimes import Exited, WorkloadSpec
from outrider.runtimes.fleet import FleetSettings, problems
from outrider.runtimes.fleet.runtime import FleetRuntime
from outrider.runtimes.fleet.template import name_of
from tests.contracts.kits.settings import settings_with
from tests.support.captures import captured_files, read_fleet_exchange
from tests.support.fleet_stand_in import FleetStandIn
from tests.support.workloads import answer, payload, release, spec, state_dir

__all__ = ["state_dir"]

ID = "app-1.0.0-aa"
SIDEKICK = "outrider-sidekick@web-1.service"
Make = Callable[..., FleetRuntime]

TEMPLATE = f"""# as an operator writes it
[Unit]
Description=example {{version}} of {{instance}}

[Service]
ExecStart={sys.executable} {{root}}/app.py \\
  --port={{port}} --image={{image}} ${{HOME}}
[X-Fleet]
Conflicts=other@*
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetStandIn]:
    stand_in = FleetStandIn(tmp_path)
    stand_in._put(SIDEKICK, "launched", [{"section": "Service", "name": "ExecStart", "value": "/bin/sleep 600"}])
    yield stand_in
    stand_in.close()


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "example@.service"
    path.write_text(TEMPLATE)
    return path


@pytest.fixture
def make(fleet: FleetStandIn, template: Path, state_dir: Path) -> Iterator[Make]:
    made: list[FleetRuntime] = []

    def make(shared: WorkloadSettings | None = None, **changes: Any) -> FleetRuntime:
        values: dict[str, Any] = {"url": fleet.url, "template": template, "machine_of": SIDEKICK} | changes
        made.append(
            FleetRuntime(
                FleetSettings(poll_interval_s=0.05, **values),
                shared or WorkloadSettings(stop_grace_s=5),
                InstanceSettings(id="web-1", app="hello", group="g", state_dir=state_dir),
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def second(folder: Path) -> WorkloadSpec:
    return WorkloadSpec(workload_id="app-2.0.0-bb", release=release("2.0.0", payload(folder)))


def ask(path: Path, method: str, target: str, sent: object) -> tuple[int, str | None, object]:
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request(method, target, body=json.dumps(sent) if sent is not None else None)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, response.headers.get("Content-Type"), json.loads(text) if text else None


def test_the_stand_in_answers_as_a_real_fleetd_did(tmp_path: Path) -> None:
    stand_in = FleetStandIn(tmp_path, runs_programs=False)
    try:
        for name in captured_files("fleet-api/*.txt"):
            exchange = read_fleet_exchange(name)
            target = quote(exchange.path) + (f"?{urlencode(exchange.query)}" if exchange.query else "")

            told = ask(stand_in.socket, exchange.method, target, exchange.sent)

            assert (exchange.status, exchange.content_type, exchange.answer) == told, name
    finally:
        stand_in.close()


def test_a_units_options_are_the_template_filled_in_and_follow_the_sidekick(
    make: Make, fleet: FleetStandIn, tmp_path: Path, state_dir: Path
) -> None:
    started = make(shared=WorkloadSettings(stop_grace_s=7, env={"RATE": '100% of "it"'})).start(spec(tmp_path))

    told = answer(started)
    assert ("1.0.0", '100% of "it"') == (told["OUTRIDER_VERSION"], told["RATE"])
    options = {
        (each["section"], each["name"], each["value"]) for each in fleet.units["example@1.0.0-web-1.service"].options
    }
    port, root = started.url.rpartition(":")[2], state_dir / "workloads" / ID / "root"
    assert {
        ("Unit", "Description", "example 1.0.0 of web-1"),
        ("Service", "ExecStart", f"{sys.executable} {root}/app.py    --port={port} --image= ${{HOME}}"),
        ("Service", "TimeoutStopSec", "7"),
        ("X-Fleet", "Conflicts", "other@*"),
        ("X-Fleet", "MachineOf", SIDEKICK),
    } <= options


def test_what_is_said_late_is_waited_for(make: Make, fleet: FleetStandIn, tmp_path: Path) -> None:
    """fleet's word lags: a start isn't over, a stop isn't done and nothing has ended before it says so."""
    fleet.lag_s = 1.0
    runtime = make()
    answer(runtime.start(spec(tmp_path)))

    runtime.stop(ID, 5)
    again = runtime.start(spec(tmp_path))

    assert "1.0.0" == answer(again)["OUTRIDER_VERSION"]
    assert again == runtime.find(ID)


def test_a_version_that_fails_is_the_releases_fault_where_another_one_runs(
    make: Make, fleet: FleetStandIn, tmp_path: Path
) -> None:
    runtime = make()
    running = runtime.start(spec(tmp_path))
    fleet.failing.add("example@2.0.0-web-1.service")

    with pytest.raises(Refused, match=r"example@2\.0\.0-web-1\.service is failed") as caught:
        runtime.start(second(tmp_path))

    assert "release" == judge(caught.value.evidence)
    assert (running,) == runtime.running()
    assert ["example@1.0.0-web-1.service", SIDEKICK] == fleet.launched()


def test_without_another_one_nobody_is_blamed(make: Make, fleet: FleetStandIn, tmp_path: Path) -> None:
    fleet.failing.add("example@2.0.0-web-1.service")

    with pytest.raises(DriverError, match="is failed") as caught:
        make().start(second(tmp_path))

    assert "world" == judge(caught.value.evidence)
    assert [SIDEKICK] == fleet.launched()


def test_a_unit_without_a_machine_is_this_machines_fault(make: Make, fleet: FleetStandIn, tmp_path: Path) -> None:
    runtime = make(shared=WorkloadSettings(start_timeout_s=0.5), machine_of="nowhere.service")

    with pytest.raises(DriverError, match=r"fleet has no machine for it; look at fleet\.machine_of") as caught:
        runtime.start(spec(tmp_path))

    assert "machine" == judge(caught.value.evidence)
    assert [SIDEKICK] == fleet.launched()


def test_fleet_that_is_away_is_no_answer_and_no_end(make: Make, fleet: FleetStandIn, tmp_path: Path) -> None:
    runtime = make()
    started = runtime.start(spec(tmp_path))
    ends: queue.Queue[Exited] = queue.Queue()
    runtime.watch(ID, ends.put)
    fleet.silent = True

    acts: list[Callable[[], object]] = [
        lambda: runtime.find(ID),
        lambda: runtime.stop(ID, 1),
        lambda: runtime.remove(ID),
    ]
    for act in acts:
        with pytest.raises(Unknown, match=r"fleet: GET .*: no answer from unix://"):
            act()
    assert ends.empty()

    fleet.silent = False
    assert started == runtime.find(ID)


def test_a_single_unit_takes_one_version_after_the_other(make: Make, fleet: FleetStandIn, tmp_path: Path) -> None:
    """stop-first: fleet replaces the options of the unit."""
    runtime = make(unit="example.service")
    runtime.start(spec(tmp_path))
    two = second(tmp_path)
    with pytest.raises(DriverError, match=r"example\.service runs version 1\.0\.0"):
        runtime.start(two)

    runtime.stop(ID, 5)

    assert "2.0.0" == answer(runtime.start(two))["OUTRIDER_VERSION"]
    assert runtime.find(ID) is None


@pytest.mark.parametrize(
    ("text", "changes", "key", "said"),
    [
        ("[Service]\nExecStart=/a {prot}", {}, "fleet.template", "{prot} is not replaced; known: host, "),
        ("[Service]\nType=exec", {}, "fleet.template", "has no ExecStart= in [Service]"),
        ("[Service]\nExecStart=/a\n[Install]\nWantedBy=b", {}, "fleet.template", "has [Install]"),
        ("nonsense", {}, "fleet.template", "example@.service:1: neither a section nor NAME=VALUE"),
        ("[Service]\nExecStart=/a\n[X-Fleet]\nGlobal=true", {}, "fleet.template", "has Global="),
        ("[Service]\nExecStart=/a", {"machine_of": ""}, "fleet.machine_of", "name the sidekick's unit here"),
        ("[Service]\nExecStart=/a\n[X-Fleet]\nMachineOf=b.service", {}, "fleet.machine_of", "keep one of them"),
        ("[Service]\nExecStart=/a", {"unit": "a.service"}, "fleet.unit", "start-first runs two versions at once"),
        ("[Service]\nExecStart=/a", {"unit": "a-{versoin}.service"}, "fleet.unit", "{versoin} is not replaced"),
        ("[Service]\nExecStart=/a", {"template": None}, "fleet.template", "missing; name a unit file"),
    ],
)
def test_mistakes_are_found_when_the_settings_are_loaded(
    template: Path, text: str, changes: dict[str, Any], key: str, said: str
) -> None:
    template.write_text(text)
    values: dict[str, Any] = {"template": template, "machine_of": SIDEKICK} | changes

    found = problems(settings_with("fleet", FleetSettings(**values)))

    assert key == found[0][0]
    assert said in found[0][1]


def test_good_settings_have_no_problem_and_names_are_fit_for_fleet(template: Path) -> None:
    settings = settings_with("fleet", FleetSettings(template=template, machine_of=SIDEKICK))

    assert () == problems(settings)
    assert "example@1.0.0_b.7-a.service" == name_of("example@{version}-{instance}.service", "1.0.0+b.7", "a")
