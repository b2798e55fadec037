"""Product ids, architectures, floors and exclusions, over an etcd in memory."""

import pytest

from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.core.rollout.policy_settings import Policy
from outrider.model.documents import App, Channel, Group, Instance, Package, Presence, Product, decode
from outrider.service.store.store import Store
from tests.sim.fake_etcd import FakeEtcd
from tests.support.service_examples import APP, make_app, payload_of

OLD = {
    App: b'{"schema":1,"id":"web","label":"Web","created":"2026-11-01T00:00:00Z"}',
    Package: b'{"schema":1,"app":"web","version":"1.0.0","url":null,"name":"a","size_bytes":1,"sha256":"x",'
    b'"created":"2026-11-01T00:00:00Z"}',
    Channel: b'{"schema":1,"app":"web","name":"beta","created":"2026-11-01T00:00:00Z"}',
    Group: b'{"schema":1,"app":"web","id":"g","label":"g","channel":"beta","created":"2026-11-01T00:00:00Z"}',
    Instance: b'{"schema":1,"app":"web","id":"web-1","group":"g","version":"1.0.0",'
    b'"first_seen":"2026-11-01T00:00:00Z","last_seen":"2026-11-01T00:00:00Z"}',
    Presence: b'{"schema":1,"instance":"web-1","app":"web","group":"g","state":"idle","version":"1.0.0",'
    b'"since":"2026-11-01T00:00:00Z"}',
}


@pytest.mark.parametrize("kind", OLD, ids=lambda kind: kind.__name__)
def test_documents_of_the_first_service_are_still_read(kind: type[App]) -> None:
    document = decode(kind, "key", OLD[kind])

    if isinstance(document, Group):
        assert Policy() == document.policy
    if isinstance(document, Package):
        assert ("all", True) == (document.arch, document.required)


def app_of(store: Store, product_id: str) -> str | None:
    """The app that holds a product id."""
    product = store.context.get(Product, store.context.keys.product(product_id))
    return None if product is None else product.app


@pytest.mark.parametrize("spelled", ["io.Example.Web", "{IO.example.WEB}"])
def test_a_product_id_leads_to_its_app_in_any_spelling(store: Store, spelled: str) -> None:
    created = store.apps.create(app=APP, product_id=spelled)

    assert (APP, "io.example.web") == (app_of(store, "io.example.web"), created.product_id)
    assert app_of(store, "io.example.other") is None


def test_a_product_id_is_one_apps_alone_until_that_gives_it_up(store: Store) -> None:
    store.apps.create(app="one", product_id="io.example.web")
    with pytest.raises(Conflict, match="belongs to app one"):
        store.apps.create(app="two", product_id="io.example.web")
    store.apps.save("one", product_id="io.example.www")
    store.apps.create(app="two", product_id="io.example.web")
    store.apps.save("one", product_id="")

    assert "two" == app_of(store, "io.example.web")
    assert app_of(store, "io.example.www") is None
    assert store.apps.get("one").product_id is None


def test_a_change_of_the_label_keeps_the_product_id(store: Store) -> None:
    store.apps.create(app="one", product_id="io.example.web")

    assert "io.example.web" == store.apps.save("one", label="x").document.product_id


def test_a_product_id_and_an_app_id_are_never_the_same_word(store: Store) -> None:
    store.apps.create(app="io.example.one")
    store.apps.create(app="two", product_id="io.example.two")

    with pytest.raises(Conflict, match="the id of another app"):
        store.apps.create(app="three", product_id="io.example.one")
    with pytest.raises(Conflict, match="product id of app two"):
        store.apps.create(app="io.example.two")
    with pytest.raises(Conflict, match="product id of app two"):
        store.apps.save("io.example.two", label="x")


@pytest.mark.parametrize("product", ["web", "io example", "io/example", "." * 5])
def test_what_is_no_reverse_dns_name_is_no_product_id(store: Store, product: str) -> None:
    with pytest.raises(ConfigError, match="product id"):
        store.apps.create(app="one", product_id=product)


def test_an_app_takes_its_product_id_with_it(store: Store, fake_etcd: FakeEtcd) -> None:
    store.apps.create(app="one", product_id="io.example.web")

    store.apps.delete("one")

    assert {} == dict(fake_etcd.entries)


@pytest.mark.parametrize(("given", "stored"), [("all", "all"), ("amd64-usr", "amd64"), ("arm64", "aarch64")])
def test_an_architecture_is_stored_in_our_words(store: Store, given: str, stored: str) -> None:
    store.apps.create(app=APP)

    made = store.packages.create(APP, "1.0.0", payload_of("1.0.0"), arch=given, required=False)

    assert (stored, False) == (made.arch, made.required)


def test_an_architecture_that_nobody_has_is_refused(store: Store) -> None:
    store.apps.create(app=APP)

    with pytest.raises(ConfigError, match="arch 'z80'"):
        store.packages.create(APP, "1.0.0", payload_of("1.0.0"), arch="z80")


def test_floors_are_kept_in_the_order_of_their_versions(store: Store) -> None:
    make_app(store, versions=("1.2.0", "1.10.0", "2.0.0"), version="2.0.0")
    store.floors.set(APP, "beta", "1.10.0", reason="second migration")
    store.floors.set(APP, "beta", "1.2.0")
    store.floors.set(APP, "beta", "1.2.0", reason="first migration")

    floors = store.channels.get(APP, "beta").floors

    assert [("1.2.0", "first migration"), ("1.10.0", "second migration")] == [(f.version, f.reason) for f in floors]


def test_a_floor_needs_a_package_and_keeps_it(store: Store) -> None:
    make_app(store, versions=("1.5.0", "2.0.0"), version="2.0.0")
    store.floors.set(APP, "beta", "1.5.0")

    with pytest.raises(NotFound, match=r"no package '1\.6\.0'"):
        store.floors.set(APP, "beta", "1.6.0")
    with pytest.raises(Conflict, match="floor of channels beta"):
        store.packages.delete(APP, "1.5.0")
    store.floors.remove(APP, "beta", "1.5.0")
    assert "1.5.0" == store.packages.delete(APP, "1.5.0").version
    with pytest.raises(NotFound, match=r"no floor '1\.5\.0'"):
        store.floors.remove(APP, "beta", "1.5.0")


def test_a_channel_cannot_be_pointed_at_what_it_excludes(store: Store) -> None:
    make_app(store, version="1.0.0")
    store.floors.exclude(APP, "beta", "2.0.0")

    with pytest.raises(Conflict, match=r"excludes 2\.0\.0"):
        store.channels.save(APP, "beta", version="2.0.0")
    store.floors.include(APP, "beta", "2.0.0")
    assert "2.0.0" == store.channels.save(APP, "beta", version="2.0.0").document.version


def test_what_a_channel_points_at_or_passes_cannot_be_excluded(store: Store) -> None:
    make_app(store, versions=("1.0.0", "1.5.0", "2.0.0"), version="2.0.0")
    store.floors.set(APP, "beta", "1.5.0")

    with pytest.raises(Conflict, match=r"points at 2\.0\.0"):
        store.floors.exclude(APP, "beta", "2.0.0")
    with pytest.raises(Conflict, match="is a floor"):
        store.floors.exclude(APP, "beta", "1.5.0")
    store.floors.exclude(APP, "beta", "1.0.0")
    with pytest.raises(Conflict, match="before you make it a floor"):
        store.floors.set(APP, "beta", "1.0.0")
    with pytest.raises(ConfigError):
        store.floors.exclude(APP, "beta", "not semver")
    with pytest.raises(NotFound):
        store.floors.include(APP, "beta", "9.0.0")


def test_moving_a_channel_keeps_its_floors_and_exclusions(store: Store) -> None:
    make_app(store, versions=("1.0.0", "1.5.0", "2.0.0"), version="1.0.0")
    store.floors.set(APP, "beta", "1.5.0")
    store.floors.exclude(APP, "beta", "3.0.0")

    moved = store.channels.save(APP, "beta", version="2.0.0").document

    assert (["1.5.0"], ("3.0.0",)) == ([floor.version for floor in moved.floors], moved.excluded)
