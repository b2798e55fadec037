"""``outrider versions`` says which machine runs which outrider, from etcd and through the service."""

import json

from outrider.model.balancer_agents import Applied
from outrider.model.documents import Presence, encode
from tests.support.service import NOON, Service
from tests.support.service_examples import APP, make_app, put
from tests.support.typing_verbs import Run, typist


def fill(service: Service) -> None:
    """Two machines on different versions; one of them has a sidekick that is too old to say, and an agent."""
    make_app(service.store)
    keys, cluster = service.store.context.keys, service.store.context.cluster
    for instance, machine, version in (("a", "m1", "1.0.0"), ("b", "m2", "2.0.0"), ("c", "m2", "")):
        presence = Presence(
            instance=instance,
            app=APP,
            group="beta",
            since=NOON,
            state="idle.waiting",
            version="3.0.0",
            machine=machine,
            outrider=version,
        )
        put(cluster, keys.presence(APP, "beta", instance), encode(presence))
    agent = Applied(
        service="lb", name="lb-1", process="p", machine="m3", revision=1, at=NOON, version="2.6.12", outrider="2.0.0"
    )
    put(cluster, keys.applied("lb", "lb-1"), encode(agent))


def test_every_living_process_is_a_line_and_the_versions_are_counted_by_machine(service: Service) -> None:
    run: Run = typist(service)
    assert "machines: none" in run("versions").stdout
    fill(service)

    shown = run("versions").stdout

    table, _, summary = shown.rstrip().rpartition("\n")
    rows = [line.split() for line in table.splitlines() if line.strip()]
    assert ["m1", "1.0.0", "sidekick", f"{APP}/beta/a"] in rows
    assert ["m2", "older", "sidekick", f"{APP}/beta/c"] in rows
    assert ["m3", "2.0.0", "agent", "lb/lb-1"] in rows
    assert summary.startswith("machines: 1 with 1.0.0, 2 with 2.0.0, 1 with older; this command is ")


def test_programs_get_the_same_and_an_app_alone_has_no_agents(service: Service) -> None:
    run: Run = typist(service)
    fill(service)

    whole, alone = (json.loads(run(words).stdout) for words in ("versions --json", f"versions {APP} --json"))

    assert {"machine": "m3", "outrider": "2.0.0", "kind": "agent", "name": "lb/lb-1"} in whole
    assert ["a", "b", "c"] == sorted(one["name"].rpartition("/")[2] for one in alone)
    assert "no app" in run("versions nobody", code=1).stderr
