"""What the service keeps of signatures, and what it refuses because no machine could use it."""

import pytest

from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.service.store.signing import MAX_ENVELOPES
from outrider.service.store.store import Store
from tests.support.service_examples import APP, make_app
from tests.trust.envelopes import envelope_for, key_list_of


@pytest.fixture(autouse=True)
def example(store: Store) -> None:
    make_app(store, versions=("1.0.0", "2.0.0"))


def test_envelopes_are_kept_newest_last_and_bounded(store: Store) -> None:
    several = [envelope_for("2.0.0", minimum=f"1.0.{number}") for number in range(MAX_ENVELOPES + 2)]
    for one in several:
        store.signing.add(APP, "2.0.0", one)

    assert tuple(several[2:]) == store.signing.of(APP, "2.0.0")


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

    assert () == store.signing.of(APP, "2.0.0")
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
