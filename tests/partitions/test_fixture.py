"""The world of containers by itself: it boots, a release rolls over it under load, a cut is one, and nothing stays."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from outrider.demo.fleet import HOST
from outrider.demo.load import LoadGenerator
from outrider.http import ask
from tests.partitions.containers import LABEL
from tests.partitions.cut_points import cut_point
from tests.partitions.cuts import cut
from tests.partitions.fleet import App, Fleet
from tests.partitions.world import World
from tests.support.waiting import eventually


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        yield world.start()
    finally:
        world.stop()
        shutil.rmtree(tmp_path, ignore_errors=True)


def test_a_release_rolls_over_machines_in_containers_and_a_cut_is_silent(world: World) -> None:
    """
    1. an app of each strategy goes from 1.0.0 to 2.0.0 under load, and no request fails
    2. a machine that is cut from the update service hears nothing of it, not even a refusal; healed, it does again
    """
    fleet = Fleet(world, [App(cut_point("soaking"), "m1"), App(cut_point("soaking-2"), "m1")])
    fleet.bring_up()
    load = LoadGenerator(world.web_url, HOST, rate_per_s=40).start()
    for app in fleet.apps:
        fleet.publish(app, "2.0.0")
    eventually(lambda: all(fleet.at_rest(name, "2.0.0") for app in fleet.apps for name, _ in app.instances), 60)
    figures = load.stop()

    assert 0 == figures.failed, figures.examples
    assert {"1.0.0", "2.0.0"} == set(figures.versions)
    assert {name: ["2.0.0"] for name in ("soaking-m1", "soaking-2-m1")} == fleet.seen("m1")
    fetch = (
        "import socket, sys; s = socket.socket(); s.settimeout(1);"
        f" sys.exit(s.connect_ex(('{world.service.address}', 8000)) and 7)"
    )
    with cut(world, "update service", "m1"):
        assert "code 7" in world.machines["m1"].run(f'{world.python} -c "{fetch}" || echo code $?')
    assert "" == world.machines["m1"].run(f'{world.python} -c "{fetch}"')
    assert ask(f"{world.service_url}/readyz", timeout_s=5.0)


def test_nothing_is_left_when_the_world_ends_early(tmp_path: Path) -> None:
    """A start that fails half-way is the worst moment: containers run, and nobody has got hold of them."""
    world = World(tmp_path)
    (tmp_path / "traefik").mkdir()  # in the way, so that the start fails after etcd's

    with pytest.raises(FileExistsError):
        world.start()
    run = world.run
    world.stop()

    client = docker.from_env()
    try:
        filters = {"label": f"{LABEL}={run}"}
        assert [] == client.containers.list(all=True, filters=filters)
        assert [] == client.networks.list(filters=filters)
        assert [] == client.images.list(name=f"outrider-test/machine:{run}")
    finally:
        client.close()
