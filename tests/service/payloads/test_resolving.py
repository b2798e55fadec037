"""Images whose tag has no digest yet: who is offered them, and how they come by it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.core.errors import ConfigError, Conflict, Refused
from outrider.core.images import ImagePlatform, ImageReference, read_descriptor
from outrider.model.documents import Package
from outrider.service.payloads.folder import PayloadFolder
from outrider.service.payloads.images import image_notes, image_payload
from outrider.service.payloads.registry import NoRegistries, RegistryError, ResolvedImage
from outrider.service.payloads.resolver import Resolver, resolve
from outrider.service.store.audit import Wanted
from outrider.service.store.store import Store, Stores, open_stores
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.service_examples import APP, make_app, target_of
from tests.support.service_fleets import Fleet
from tests.support.waiting import eventually
from tests.support.wall_clock import WallClock

IMAGE = "registry:5000/coreos/example:2.0.0"
D, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
AMD64 = ImagePlatform(platform="linux/amd64", manifest=OTHER, config="sha256:" + "ef" * 32, size_bytes=742)


class Known:
    """A registry that is away until ``digest`` is set."""

    def __init__(self, digest: str = "") -> None:
        self.digest = digest
        self.asked: list[str] = []

    def resolve(self, reference: ImageReference) -> ResolvedImage:
        self.asked.append(str(reference))
        if not self.digest:
            raise RegistryError("registry registry:5000: no answer")
        return ResolvedImage(digest=reference.digest or self.digest, platforms=(AMD64,))

    def tags(self, name: str) -> tuple[str, ...]:
        raise RegistryError("not asked here")


@pytest.fixture
def payloads(tmp_path: Path) -> PayloadFolder:
    folder = PayloadFolder(folder=tmp_path / "payloads")
    folder.prepare()
    return folder


@pytest.fixture
def stores(client: FakeCluster, clock: WallClock) -> Stores:
    return open_stores(client, now=clock)


@pytest.fixture
def fleet(store: Store, fake_etcd: FakeEtcd, clock: WallClock) -> Fleet:
    make_app(store)
    return Fleet(store, fake_etcd, clock)


def create(store: Store, payloads: PayloadFolder, registry: Known, digest: str = "") -> Package:
    """Version 3.0.0, which the group's channel points at."""
    made = store.packages.create(APP, "3.0.0", image_payload(payloads, IMAGE, registry, digest))
    store.channels.save(APP, "beta", version="3.0.0")
    return made


def descriptor_of(payloads: PayloadFolder, package: Package) -> bytes:
    path = payloads.find(package.sha256)
    assert path is not None
    return path.read_bytes()


def test_a_tag_that_is_resolved_at_once_is_offered_to_everybody(
    store: Store, payloads: PayloadFolder, fleet: Fleet
) -> None:
    made = create(store, payloads, Known(D))

    assert (D, (AMD64,)) == (made.digest, made.platforms)
    read = read_descriptor(descriptor_of(payloads, made))
    assert (IMAGE, D, (AMD64,)) == (str(read.reference), read.digest, read.platforms)
    assert "3.0.0" == fleet.granted("web-1", takes_turns=True)
    assert () == store.packages.all_unresolved()
    assert [] == image_notes(made)


def test_an_unresolved_image_waits_for_sidekicks_and_foreign_clients_get_its_tag(
    store: Store, payloads: PayloadFolder, fleet: Fleet
) -> None:
    """
    1. the registry is away: the package is stored, with a note
    2. a sidekick is deferred with the reason, a foreign client gets the tag as ever
    3. its digest becomes known: the target has it, and the sidekick is granted it
    """
    registry = Known()
    made = create(store, payloads, registry)

    assert b'{"digest":null,"image":"%s"}\n' % IMAGE.encode() == descriptor_of(payloads, made)
    (note,) = image_notes(made, store.packages.unresolved(APP, "3.0.0"))
    assert note.startswith(f"{IMAGE} has no digest yet (registry registry:5000: no answer): sidekicks are not offered")
    why = f"3.0.0: nobody knows yet which image {IMAGE} is; `outrider package resolve`"
    assert why == fleet.why_deferred("web-1", takes_turns=True)
    assert "3.0.0" == fleet.granted("foreign")
    before = target_of(store)

    registry.digest = D
    resolved = resolve(store, payloads, registry, made)

    assert D == resolved.digest
    assert (before.version, resolved.sha256) == (target_of(store).version, target_of(store).sha256)
    assert before.sha256 != resolved.sha256
    assert "3.0.0" == fleet.granted("web-1", takes_turns=True)
    assert () == store.packages.all_unresolved()


def test_an_operator_may_say_the_digest_while_the_registry_is_away(
    store: Store, payloads: PayloadFolder, fleet: Fleet
) -> None:
    made = create(store, payloads, Known(), D)

    assert (D, ()) == (made.digest, made.platforms)
    assert "3.0.0" == fleet.granted("web-1", takes_turns=True)


def test_a_tag_that_moved_makes_no_other_package(store: Store, payloads: PayloadFolder, fleet: Fleet) -> None:
    made = create(store, payloads, Known(D))

    with pytest.raises(Conflict, match=f"3.0.0 is {D}, and a package never changes; .* names {OTHER} now"):
        resolve(store, payloads, Known(OTHER), made)
    assert made == resolve(store, payloads, Known(D), made) == store.packages.get(APP, "3.0.0")


def test_two_digests_or_none_at_all_are_refused(payloads: PayloadFolder) -> None:
    with pytest.raises(ConfigError, match="its digest is another one"):
        image_payload(payloads, f"a:1@{D}", NoRegistries(), OTHER)
    with pytest.raises(ConfigError, match="write sha256: and 64 hex digits"):
        image_payload(payloads, "a:1", NoRegistries(), "latest")


def test_a_file_is_not_resolved(store: Store, payloads: PayloadFolder, fleet: Fleet) -> None:
    payload = image_payload(payloads, IMAGE, Known(D))

    with pytest.raises(Conflict, match="is a file, not a container image"):
        store.packages.resolve(APP, "1.0.0", payload)


def test_a_deleted_package_is_not_asked_about_any_more(store: Store, payloads: PayloadFolder, fleet: Fleet) -> None:
    store.packages.create(APP, "3.0.0", image_payload(payloads, IMAGE, Known()))

    store.packages.delete(APP, "3.0.0")

    assert () == store.packages.all_unresolved()


@pytest.fixture
def working(stores: Stores, payloads: PayloadFolder) -> Iterator[tuple[Resolver, Known]]:
    registry = Known()
    resolver = Resolver(stores, payloads, registry, retry_min_s=0.02)
    resolver.start()
    yield resolver, registry
    resolver.close()


def test_the_service_asks_again_until_it_knows_and_the_audit_log_has_it(
    store: Store, stores: Stores, payloads: PayloadFolder, fleet: Fleet, working: tuple[Resolver, Known]
) -> None:
    _, registry = working
    create(store, payloads, registry)
    eventually(lambda: len(registry.asked) > 2)

    registry.digest = D

    eventually(lambda: store.packages.get(APP, "3.0.0").digest == D)
    eventually(lambda: store.packages.all_unresolved() == ())
    found = stores.audit_log.list(Wanted(who="(update service)"), limit=9)
    assert ["resolve an image"] == [one.entry.did for one in found]
    assert not issubclass(RegistryError, Refused), "it is worth asking again"
