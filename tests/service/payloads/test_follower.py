"""A channel that follows tags at a registry: what becomes a package, what its version, and who is told."""

from pathlib import Path

import pytest

from outrider.core.errors import ConfigError
from outrider.core.images import ImageReference
from outrider.service.payloads.folder import PayloadFolder
from outrider.service.payloads.follower import Follower
from outrider.service.payloads.registry import HttpRegistries, RegistryError, ResolvedImage
from outrider.service.store.audit import Wanted
from outrider.service.store.store import Store, Stores, open_stores
from tests.sim.fake_etcd import FakeCluster
from tests.support.registry_stub import RegistryStub, credentials
from tests.support.servers import make_tls_files
from tests.support.service_examples import APP, block, make_app, target_of
from tests.support.wall_clock import NOON, WallClock

D = "sha256:" + "ab" * 32
NAME = "registry:5000/app"


class Tags:
    """A registry with these tags of one image."""

    def __init__(self, *tags: str) -> None:
        self.listed = tags

    def tags(self, name: str) -> tuple[str, ...]:
        if not self.listed:
            raise RegistryError("registry registry:5000: no answer")
        assert NAME == name
        return self.listed

    def resolve(self, reference: ImageReference) -> ResolvedImage:
        return ResolvedImage(digest=D, platforms=())


@pytest.fixture
def stores(client: FakeCluster, clock: WallClock, store: Store) -> Stores:
    make_app(store)  # the channel beta is on 1.0.0
    return open_stores(client, now=clock)


@pytest.fixture
def payloads(tmp_path: Path) -> PayloadFolder:
    folder = PayloadFolder(folder=tmp_path / "payloads")
    folder.prepare()
    return folder


def look(stores: Stores, payloads: PayloadFolder, *tags: str) -> None:
    Follower(stores, payloads, Tags(*tags)).look()


def versions_of(store: Store) -> list[str]:
    return [package.version for package in store.packages.list(APP)]


def test_nothing_is_followed_unless_it_is_said(store: Store, stores: Stores, payloads: PayloadFolder) -> None:
    before = versions_of(store)

    look(stores, payloads, "3.0.0")

    assert before == versions_of(store)


def test_the_newest_tag_becomes_a_package_and_the_channel_stays(
    store: Store, stores: Stores, payloads: PayloadFolder
) -> None:
    store.channels.save(APP, "beta", follow=f"{NAME}:^3")
    at = target_of(store).version

    for _ in range(2):
        look(stores, payloads, "3.0.0", "3.1.0", "4.0.0", "latest")

    package = store.packages.get(APP, "3.1.0")
    assert (f"{NAME}:3.1.0", D) == (package.image, package.digest)
    assert "3.0.0" not in versions_of(store)
    assert at == store.channels.get(APP, "beta").version == target_of(store).version
    (entry,) = stores.audit_log.list(Wanted(who="(update service)"), limit=9)
    assert (f"follow {NAME}:^3", "create", "3.1.0") == (entry.entry.did, entry.entry.verb, entry.entry.name)


def test_a_channel_that_may_move_follows_forwards_only(store: Store, stores: Stores, payloads: PayloadFolder) -> None:
    store.channels.save(APP, "beta", follow=f"{NAME}:*", follow_moves=True)

    look(stores, payloads, "3.0.0")
    assert ("3.0.0", "3.0.0") == (store.channels.get(APP, "beta").version, target_of(store).version)
    look(stores, payloads, "2.5.0")

    assert "3.0.0" == store.channels.get(APP, "beta").version
    assert "2.5.0" not in versions_of(store)
    moved = [one.entry.noun for one in stores.audit_log.list(Wanted(who="(update service)"), limit=9)]
    assert {"package", "channel"} <= set(moved)


def test_a_channel_does_not_move_to_what_is_blocked_or_excluded(
    store: Store, stores: Stores, payloads: PayloadFolder
) -> None:
    at = store.channels.save(APP, "beta", follow=f"{NAME}:*", follow_moves=True).document.version
    block(store, "3.0.0", "it crashed", NOON)
    look(stores, payloads, "3.0.0")
    store.floors.exclude(APP, "beta", "3.1.0")
    look(stores, payloads, "3.1.0")

    assert at == store.channels.get(APP, "beta").version


def test_a_registry_that_is_away_changes_nothing(store: Store, stores: Stores, payloads: PayloadFolder) -> None:
    store.channels.save(APP, "beta", follow=f"{NAME}:*", follow_moves=True)
    before = versions_of(store)

    look(stores, payloads)

    assert before == versions_of(store)


def test_a_private_registry_is_followed_with_its_credentials_and_its_authority(
    store: Store, stores: Stores, payloads: PayloadFolder, tmp_path: Path
) -> None:
    tls = make_tls_files(tmp_path)
    stub = RegistryStub(tls)
    try:
        stub.auth = "bearer"
        digests = {tag: stub.add("a/b", tag) for tag in ("3.0.0", "3.1.0", "4.0.0")}
        file = tmp_path / "auth.json"
        store.channels.save(APP, "beta", follow=f"{stub.host}/a/b:^3", follow_moves=True)

        Follower(stores, payloads, HttpRegistries(auth_file=file, ca_file=tls.ca)).look()
        assert "3.1.0" not in versions_of(store), "without the file of credentials nothing is known"
        file.write_bytes(credentials(stub.host))
        Follower(stores, payloads, HttpRegistries(auth_file=file, ca_file=tls.ca)).look()

        package = store.packages.get(APP, "3.1.0")
        assert (f"{stub.host}/a/b:3.1.0", digests["3.1.0"]) == (package.image, package.digest)
        assert "3.1.0" == store.channels.get(APP, "beta").version
    finally:
        stub.close()


def test_following_ends_when_it_is_said_and_nonsense_is_refused(store: Store, stores: Stores) -> None:
    store.channels.save(APP, "beta", follow=f"{NAME}:^2")
    with pytest.raises(ConfigError, match="write IMAGE:RANGE"):
        store.channels.save(APP, "beta", follow=NAME)

    store.channels.save(APP, "beta", publish=True)
    assert f"{NAME}:^2" == store.channels.get(APP, "beta").follow
    store.channels.save(APP, "beta", follow="")
    assert "" == store.channels.get(APP, "beta").follow
