"""What the service keeps of signatures, and what it refuses because no machine could use it."""

import pytest

from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.model.documents import Signatures
from outrider.service.store.signing import MAX_ENVELOPES
from outrider.service.store.store import Store
from tests.support.service_examples import APP, make_app
from tests.trust.envelopes import envelope_for, key_list_of
from tests.trust.minisigning import vector


@pytest.fixture(autouse=True)
def example(store: Store) -> None:
    make_app(store, versions=("1.0.0", "2.0.0"))


def test_envelopes_are_kept_newest_last_and_bounded(store: Store) -> None:
    several = [envelope_for("2.0.0", minimum=f"1.0.{number}") for number in range(MAX_ENVELOPES + 2)]
    for one in several:
        store.signing.add(APP, "2.0.0", one)

    assert tuple(several[2:]) == store.signing.of(APP, "2.0.0").envelopes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"app": "pay"}, "is for app pay"),
        ({"version": "1.0.0"}, r"is for version 1\.0\.0"),
        ({"sha256": "f" * 64}, "is for SHA-256 fff"),
        ({"size": 7}, "is for size 7"),
    ],
)
def test_a_statement_about_something_else_is_refused(store: Store, changes: dict[str, object], words: str) -> None:
    with pytest.raises(Conflict, match=words):
        store.signing.add(APP, "2.0.0", envelope_for("2.0.0", **changes))


def test_what_is_no_envelope_is_refused(store: Store) -> None:
    for text in ("", "{}", key_list_of(APP)):
        with pytest.raises(ConfigError, match="envelope"):
            store.signing.add(APP, "2.0.0", text)


def test_a_deleted_package_leaves_no_signature_to_its_successor(store: Store) -> None:
    store.signing.add(APP, "2.0.0", envelope_for("2.0.0"))

    store.packages.delete(APP, "2.0.0")

    assert Signatures() == store.signing.of(APP, "2.0.0")
    with pytest.raises(NotFound):
        store.signing.add(APP, "2.0.0", envelope_for("2.0.0"))


def test_lists_of_keys_follow_one_another(store: Store) -> None:
    store.signing.add_key_list(APP, key_list_of(APP))

    for wrong in (key_list_of(APP, 3), key_list_of("pay", 2)):
        with pytest.raises(Conflict):
            store.signing.add_key_list(APP, wrong)
    assert 2 == len(store.signing.add_key_list(APP, key_list_of(APP, 2)))
    assert 2 == len(store.signing.add_key_list(APP, key_list_of(APP, 2))), "said again, it is the same list"
    store.signing.forget_key_lists(APP)
    assert () == store.signing.key_lists(APP)


def minisign_for(comment: str) -> str:
    """A signature of which the service reads the form and the comment only."""
    return vector("bound").replace("outrider app=shop version=2.0.0", comment)


def test_signatures_of_minisign_are_kept_beside_envelopes_and_bounded(store: Store) -> None:
    envelope = envelope_for("2.0.0")
    store.signing.add(APP, "2.0.0", envelope)
    bound = f"outrider app={APP} version=2.0.0"
    several = [minisign_for(f"{bound} minimum=1.0.{number}") for number in range(MAX_ENVELOPES + 2)]
    for one in (*several, several[-1]):
        store.signing.add_minisign(APP, "2.0.0", one)

    assert Signatures(envelopes=(envelope,), minisign=tuple(several[2:])) == store.signing.of(APP, "2.0.0")
    assert tuple(several[2:]) == store.signing.add(APP, "2.0.0", envelope).minisign, "an envelope takes none away"


def test_a_signature_of_minisign_that_binds_to_nothing_is_kept_for_machines_that_count_it(store: Store) -> None:
    assert (vector("unbound"),) == store.signing.add_minisign(APP, "2.0.0", vector("unbound")).minisign


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ("outrider app=pay version=2.0.0", "is for app pay, not for"),
        (f"outrider app={APP} version=1.0.0", r"is for version 1\.0\.0, not for 2\.0\.0"),
    ],
)
def test_a_signature_of_minisign_for_something_else_is_refused(store: Store, comment: str, words: str) -> None:
    with pytest.raises(Conflict, match=words):
        store.signing.add_minisign(APP, "2.0.0", minisign_for(comment))


def test_what_is_no_signature_of_minisign_is_refused(store: Store) -> None:
    for text in ("", envelope_for("2.0.0"), minisign_for("outrider app=shop")):
        with pytest.raises(ConfigError, match=r"minisign signature|trusted comment"):
            store.signing.add_minisign(APP, "2.0.0", text)
    with pytest.raises(NotFound):
        store.signing.add_minisign(APP, "9.0.0", vector("unbound"))
