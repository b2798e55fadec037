"""Apps, channels, groups and packages over an etcd in memory."""

import pytest

from outrider.core.errors import ConfigError, Conflict, NotFound, Unknown
from outrider.model.documents import Target
from outrider.model.keys import Keys
from outrider.service.store.packages import Payload
from outrider.service.store.store import Store
from outrider.service.store.targets import MAX_GROUPS_PER_CHANNEL
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.service import NOON, WallClock
from tests.support.service_examples import APP, SHA256, be_alive, block, make_app, payload_of, target_of


def test_an_app_without_an_id_gets_a_uuid_of_its_own(store: Store) -> None:
    first, second = store.apps.create(label="One"), store.apps.create(label="Two")

    assert first.id != second.id
    assert {first, second} == set(store.apps.list())
    assert 36 == len(first.id)


@pytest.mark.parametrize("spelling", [APP, APP.upper(), f"{{{APP}}}", f" {{{APP.upper()}}} "])
def test_an_app_is_found_by_any_spelling_of_its_uuid(store: Store, spelling: str) -> None:
    made = store.apps.create(app=APP, label="Example")

    assert made == store.apps.get(spelling)


def test_an_app_may_bear_a_name_instead_of_a_uuid(store: Store) -> None:
    store.apps.create(app="io.example.Web")

    assert "io.example.web" == store.apps.get("io.example.Web").id


def test_the_same_app_is_not_created_twice(store: Store) -> None:
    store.apps.create(app=APP)

    with pytest.raises(Conflict, match="exists already"):
        store.apps.create(app=f"{{{APP.upper()}}}")


def test_saving_an_absent_app_adds_it_and_keeps_what_is_not_named(store: Store, clock: WallClock) -> None:
    added = store.apps.save(APP, label="Example", description="words")
    clock.advance(60)
    changed = store.apps.save(APP, label="Other")

    assert (True, False) == (added.created, changed.created)
    assert ("Other", "words") == (changed.document.label, changed.document.description)
    assert NOON == changed.document.created


@pytest.mark.parametrize("name", ["", "a/b", "a b", "-a", "x" * 129])
def test_a_name_that_cannot_be_a_key_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigError):
        store.apps.save(name or "/", label="x", description="y")


def test_moving_a_channel_moves_every_group_on_it_in_the_same_transaction(
    store: Store, client: FakeCluster, keys: Keys
) -> None:
    make_app(store)
    store.groups.create(APP, "second", channel="beta", slots=3)

    store.channels.save(APP, "beta", version="2.0.0")

    entries = [
        client.get(key) for key in (keys.channel(APP, "beta"), keys.target(APP, "beta"), keys.target(APP, "second"))
    ]
    assert 1 == len({entry.mod_revision for entry in entries if entry})
    expected = Target(version="2.0.0", sha256=payload_of("2.0.0").sha256, since=NOON)
    assert expected == target_of(store)
    assert ("2.0.0", 3) == (target_of(store, "second").version, target_of(store, "second").slots)


def test_a_move_leaves_the_groups_of_other_channels_alone(store: Store, client: FakeCluster, keys: Keys) -> None:
    make_app(store)
    store.channels.create(APP, "stable", version="1.0.0")
    store.groups.create(APP, "calm", channel="stable")
    before = client.get(keys.target(APP, "calm"))

    store.channels.save(APP, "beta", version="2.0.0")

    assert before == client.get(keys.target(APP, "calm"))


def test_a_target_is_written_only_when_it_differs(store: Store, client: FakeCluster, keys: Keys) -> None:
    make_app(store)
    before = client.get(keys.target(APP, "beta"))

    store.channels.save(APP, "beta", version="1.0.0", publish=True)
    store.groups.update(APP, "beta", label="Another label")

    assert before == client.get(keys.target(APP, "beta"))


def test_a_change_that_changes_nothing_writes_nothing(store: Store, client: FakeCluster) -> None:
    make_app(store)
    client.calls.clear()

    store.groups.update(APP, "beta", paused=False, slots=1)
    store.channels.save(APP, "beta", version="1.0.0")

    assert "txn" not in client.calls


def test_pausing_and_slots_reach_the_target(store: Store) -> None:
    make_app(store)

    store.groups.update(APP, "beta", paused=True, slots=4)

    expected = Target(version="1.0.0", sha256=payload_of("1.0.0").sha256, paused=True, slots=4, since=NOON)
    assert expected == target_of(store)


def test_a_group_that_changes_its_channel_runs_what_that_one_points_at(store: Store) -> None:
    make_app(store)
    store.channels.create(APP, "next", version="2.0.0")

    store.groups.update(APP, "beta", channel="next")

    assert "2.0.0" == target_of(store).version


def test_a_group_does_not_move_to_a_channel_that_does_not_exist(store: Store) -> None:
    make_app(store)

    with pytest.raises(NotFound, match="no channel 'bata'"):
        store.groups.update(APP, "beta", channel="bata")


def test_the_guides_order_works_group_first_then_package_then_channel(store: Store) -> None:
    store.apps.save(APP, label="Example App", description="Sample")
    made = store.groups.create(APP, "beta", channel="master")
    before = target_of(store)
    store.packages.create(APP, "1.0.0", payload_of("1.0.0"))
    store.channels.save(APP, "master", version="1.0.0")

    assert ("channel 'master' did not exist and was created; it points at nothing yet",) == made.notes
    assert before.version is None
    assert "1.0.0" == target_of(store).version


def test_a_package_that_comes_after_its_channel_aims_the_groups_that_waited_for_it(store: Store) -> None:
    store.apps.create(app=APP)
    saved = store.channels.create(APP, "master", version="1.0.0")
    store.groups.create(APP, "beta", channel="master")
    before = target_of(store)

    store.packages.create(APP, "1.0.0", payload_of("1.0.0"))

    assert "no package yet" in saved.notes[0]
    assert Target(version=None) == before
    assert Target(version="1.0.0", sha256=payload_of("1.0.0").sha256, since=NOON) == target_of(store)


def test_pointing_a_channel_at_a_release_that_is_blocked_says_so(store: Store) -> None:
    make_app(store)
    block(store, "2.0.0", "health check failed", NOON)

    saved = store.channels.save(APP, "beta", version="2.0.0")

    assert 1 == len(saved.notes)
    assert "2.0.0 is blocked (health check failed)" in saved.notes[0]


def test_what_is_in_use_is_not_deleted_and_the_refusal_names_the_users(store: Store) -> None:
    make_app(store)

    with pytest.raises(Conflict, match=r"package 1\.0\.0 is in use by channels beta"):
        store.packages.delete(APP, "1.0.0")
    with pytest.raises(Conflict, match="channel 'beta' is in use by groups beta"):
        store.channels.delete(APP, "beta")
    with pytest.raises(Conflict, match=r"groups beta; channels beta; packages 1\.0\.0, 2\.0\.0"):
        store.apps.delete(APP)


def test_a_long_list_of_users_is_cut_to_one_line(store: Store) -> None:
    make_app(store)
    for number in range(9):
        store.groups.create(APP, f"group-{number}", channel="beta")

    with pytest.raises(Conflict, match=r"beta, group-0, group-1, group-2, group-3 and 5 more"):
        store.channels.delete(APP, "beta")


def test_a_group_whose_sidekicks_run_is_not_deleted(store: Store) -> None:
    make_app(store)
    be_alive(store, "web-1", NOON)

    with pytest.raises(Conflict, match="sidekicks web-1 are running"):
        store.groups.delete(APP, "beta")


def test_what_nobody_uses_goes_without_a_trace(store: Store, fake_etcd: FakeEtcd) -> None:
    make_app(store)
    block(store, "2.0.0", "bad", NOON)

    store.groups.delete(APP, "beta")
    store.channels.delete(APP, "beta")
    store.packages.delete(APP, "1.0.0")
    store.packages.delete(APP, "2.0.0")
    store.apps.delete(APP)

    assert {} == dict(fake_etcd.entries)


def test_a_package_never_changes(store: Store) -> None:
    make_app(store)

    with pytest.raises(Conflict, match="use a new version"):
        store.packages.create(APP, "1.0.0", payload_of("9.9.9"))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (Payload(url="ftp://files.example/a.tar", size_bytes=1, sha256=SHA256), "http://"),
        (Payload(url="http://files.example/", size_bytes=1, sha256=SHA256), "file name"),
        (Payload(url="http://files.example/..", size_bytes=1, sha256=SHA256), "file name"),
        (Payload(url="http://files.example/a.tar?x=1", size_bytes=1, sha256=SHA256), r"contains \?"),
        (Payload(url="http://files.example/a b.tar", size_bytes=1, sha256=SHA256), "address"),
        (Payload(url="http://files.example/a.tar", size_bytes=0, sha256=SHA256), "an empty file cannot be installed"),
        (Payload(url="http://files.example/a.tar", size_bytes=1, sha256="abc"), "64 hex digits"),
        (Payload(url="http://files.example/a.tar", size_bytes=1, sha256=SHA256, sha1="abc"), "40 hex digits"),
        (Payload(name="../a.tar", size_bytes=1, sha256=SHA256), "name"),
    ],
)
def test_a_package_that_nobody_could_install_is_refused(store: Store, payload: Payload, words: str) -> None:
    store.apps.create(app=APP)

    with pytest.raises(ConfigError, match=words):
        store.packages.create(APP, "1.0.0", payload)


def test_digests_are_understood_in_both_spellings(store: Store) -> None:
    store.apps.create(app=APP)
    as_base64 = "WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM="
    sha1 = "f572d396fae9206628714fb2ce00f72e94f2258f"

    made = store.packages.create(
        APP, "1.0.0", Payload(url="http://files.example/a.tar", size_bytes=6, sha256=as_base64, sha1=sha1)
    )

    assert (SHA256, "9XLTlvrpIGYocU+yzgD3LpTyJY8=") == (made.sha256, made.sha1)


def test_packages_are_listed_by_version_and_not_by_text(store: Store) -> None:
    make_app(store, versions=("1.9.0", "1.10.0", "1.10.0-rc.1"), version=None)

    assert ["1.10.0", "1.10.0-rc.1", "1.9.0"] == [package.version for package in store.packages.list(APP)]


@pytest.mark.parametrize("slots", [0, -1, 1001])
def test_an_impossible_number_of_slots_is_refused(store: Store, slots: int) -> None:
    make_app(store)

    with pytest.raises(ConfigError, match="1 to 1000"):
        store.groups.update(APP, "beta", slots=slots)


def test_more_groups_than_one_transaction_can_move_are_refused_with_what_to_do(store: Store) -> None:
    make_app(store)
    for number in range(MAX_GROUPS_PER_CHANNEL - 1):
        store.groups.create(APP, f"group-{number}", channel="beta")
    store.channels.save(APP, "beta", version="2.0.0")
    store.groups.create(APP, "one-too-many", channel="beta")

    with pytest.raises(Conflict, match="move some of them to another channel"):
        store.channels.save(APP, "beta", version="1.0.0")
    assert "2.0.0" == target_of(store, "one-too-many").version


def test_unknown_things_are_named_in_the_error(store: Store) -> None:
    with pytest.raises(NotFound, match="no app 'absent'"):
        store.channels.list("absent")
    make_app(store)
    with pytest.raises(NotFound, match="no group 'absent'"):
        store.groups.update(APP, "absent", paused=True)
    with pytest.raises(NotFound, match=r"no package '9\.0\.0'"):
        store.packages.delete(APP, "9.0.0")


def test_a_version_that_is_not_semver_is_refused(store: Store) -> None:
    make_app(store)

    with pytest.raises(ConfigError, match="not semver"):
        store.channels.save(APP, "beta", version="1.0")


def test_a_change_whose_answer_was_lost_is_made_once_and_reported_as_made(store: Store, client: FakeCluster) -> None:
    make_app(store)
    client.lose_answers(1)

    saved = store.channels.save(APP, "beta", version="2.0.0")
    client.lose_answers(1)
    made = store.groups.create(APP, "second", channel="beta")

    assert "2.0.0" == saved.document.version == target_of(store).version
    assert made.document == store.groups.get(APP, "second")


def test_a_change_that_never_got_through_is_made_when_it_is_tried_again(store: Store, client: FakeCluster) -> None:
    make_app(store)
    lost: list[str] = []

    def lose_the_first(name: str, moment: str) -> None:
        if name == "txn" and moment == "before" and not lost:
            lost.append(name)
            raise Unknown("lost on the way")

    client.trouble = lose_the_first
    store.channels.save(APP, "beta", version="2.0.0")

    assert ["txn"] == lost
    assert "2.0.0" == target_of(store).version


def test_without_etcd_a_change_says_so(store: Store, client: FakeCluster) -> None:
    make_app(store)
    client.cut_off()

    with pytest.raises(Unknown):
        store.channels.save(APP, "beta", version="2.0.0")


def test_unblocking_a_release_wakes_only_the_sidekicks_that_were_kept_from_it(
    store: Store, client: FakeCluster, keys: Keys
) -> None:
    make_app(store, version="2.0.0")
    store.channels.create(APP, "stable", version="1.0.0")
    store.groups.create(APP, "calm", channel="stable")
    block(store, "2.0.0", "bad", NOON)
    be_alive(store, "web-1", NOON)
    be_alive(store, "web-2", NOON, group="calm")

    store.fleet.unblock(APP, "2.0.0")

    wakeup = client.get(keys.wakeup(APP, "web-1"))
    assert client.get(keys.block(APP, "2.0.0")) is None
    assert wakeup is not None
    assert wakeup.lease
    assert client.get(keys.wakeup(APP, "web-2")) is None


def test_a_command_for_an_instance_that_nobody_knows_is_refused(store: Store) -> None:
    make_app(store)

    with pytest.raises(NotFound, match="no instance 'web-9'"):
        store.fleet.command(APP, "web-9", "retry", "kim")
