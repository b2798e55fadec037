"""A man in the middle of http, and what he can make a sidekick fetch: nothing (P13)."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pytest

from outrider.core.errors import OutriderError, Unknown
from outrider.core.omaha import FailureCode, Offer, OfferedPackage
from outrider.core.release import ReleaseId
from outrider.core.sidekick.effects import CheckRelease
from outrider.core.sidekick.events import AnyEvent, ReleaseFailed, ReleaseFound, TargetChanged
from outrider.etcd.seam import Put
from outrider.model.documents import Target, encode
from outrider.model.keys import Keys
from outrider.payloads.store import PayloadStore
from outrider.runtimes import Runtime
from outrider.sidekick.provenance import NotRecorded, ProvedByTransport, Provenance, RecordedInEtcd
from outrider.sidekick.workers.release import ReleaseWork
from outrider.sidekick.workers.worker import failure
from tests.core.sidekick.test_sidekick import Sidekick
from tests.sim.fake_etcd import FakeCluster, FakeEtcd
from tests.support.update_service import Answer, Service, upstream

KEYS = Keys("/outrider/v1")
GOOD, OWN, OLD = (hashlib.sha256(text).hexdigest() for text in (b"good", b"the intruder's own", b"old"))
ENVIRONMENT = "e" * 64
TARGET = Target(
    version="2.0.0",
    sha256=GOOD,
    environment=3,
    environment_digest=ENVIRONMENT,
    others=(ReleaseId(version="1.5.0", sha256=OLD, environment=3, environment_digest=ENVIRONMENT),),
)
WANTED = ReleaseId(version="2.0.0", sha256=GOOD, environment=3, environment_digest=ENVIRONMENT)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    etcd = FakeEtcd()
    connection = etcd.client("sidekick")
    connection.txn((), (Put(key=KEYS.target("shop", "web"), value=encode(TARGET)),))
    yield connection
    connection.close()


@pytest.fixture
def middle() -> Iterator[Service]:
    """Whoever answers in place of the update service."""
    with Service() as service:
        yield service


def offered(release: ReleaseId, sha256: str = "") -> Answer:
    """What he says."""
    package = OfferedPackage(name="x.tar", size_bytes=8, sha256=sha256 or release.sha256)
    return Answer(check=Offer(version=release.version, release=release, codebases=("http://x/",), packages=(package,)))


def asked(middle: Service, provenance: Provenance) -> AnyEvent:
    """The event that the loop gets when the sidekick asks."""
    events: list[AnyEvent] = []
    work = ReleaseWork(
        upstream(middle.url), cast(PayloadStore, None), cast(Runtime, None), events.append, provenance=provenance
    )
    try:
        work.perform(CheckRelease(version="1.0.0", previous_version=""), 1)
    except OutriderError as error:
        failed = failure("release.check", error, 1)
        assert failed is not None
        events.append(failed)
    (event,) = events
    return event


def test_what_etcd_records_is_found(cluster: FakeCluster, middle: Service) -> None:
    middle.answer = offered(WANTED)

    found = asked(middle, RecordedInEtcd(cluster, KEYS, app="shop", group="web"))

    assert isinstance(found, ReleaseFound)
    assert ("2.0.0", GOOD, 3) == (found.version, found.sha256, found.environment)


def test_a_floor_that_the_target_lists_is_found(cluster: FakeCluster, middle: Service) -> None:
    middle.answer = offered(TARGET.others[0])

    assert isinstance(asked(middle, RecordedInEtcd(cluster, KEYS, app="shop", group="web")), ReleaseFound)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (offered(WANTED, OWN), f"a payload with SHA-256 {OWN}, which is not the one recorded ({GOOD})"),
        (offered(replace(WANTED, sha256=OWN)), "a payload with SHA-256"),
        (offered(replace(WANTED, version="9.9.9", sha256=OWN)), "a release that is not the target"),
        (offered(replace(WANTED, version="1.0.0", sha256=OLD)), "a release that is not the target"),
        (offered(replace(WANTED, sha256=OLD)), "a payload with SHA-256"),
        (offered(replace(WANTED, environment_digest="f" * 64)), "environment ffff"),
        (offered(replace(WANTED, environment=2)), "a release that is not the target"),
        (offered(replace(WANTED, generation=9)), "a release that is not the target"),
    ],
    ids=[
        "his own tar", "his tar and a digest to match", "a version of his own", "an older release of ours",
        "another release's payload", "another environment", "an older environment", "a restart that nobody asked for",
    ],
)  # fmt: skip
def test_whatever_else_the_answer_says_is_refused_before_anything_is_fetched(
    cluster: FakeCluster, middle: Service, answer: Answer, words: str
) -> None:
    middle.answer = answer

    failed = asked(middle, RecordedInEtcd(cluster, KEYS, app="shop", group="web"))

    assert isinstance(failed, ReleaseFailed)
    assert words in failed.cause
    assert "in etcd; something on the way to service.urls may be changing its answers" in failed.cause
    assert "unknown" == failed.evidence, "the release is as good as before"
    assert WANTED.label == failed.refused, "whose place is free for others"


def test_an_answer_without_our_attribute_names_no_release_with_an_environment(
    cluster: FakeCluster, middle: Service
) -> None:
    middle.answer = replace(offered(WANTED), check=replace(cast(Offer, offered(WANTED).check), release=None))

    assert isinstance(asked(middle, RecordedInEtcd(cluster, KEYS, app="shop", group="web")), ReleaseFailed)


def test_without_a_target_nothing_is_taken(cluster: FakeCluster, middle: Service) -> None:
    middle.answer = offered(WANTED)

    failed = asked(middle, RecordedInEtcd(cluster, KEYS, app="shop", group="another"))

    assert isinstance(failed, ReleaseFailed)
    assert "there is no target" in failed.cause


def test_while_etcd_is_away_nothing_is_taken(cluster: FakeCluster, middle: Service) -> None:
    class Away:
        def get(self, key: str) -> None:
            raise Unknown("etcd: no answer within 5 s")

    middle.answer = offered(WANTED)

    failed = asked(middle, RecordedInEtcd(cast(FakeCluster, Away()), KEYS, app="shop", group="web"))

    assert isinstance(failed, ReleaseFailed)
    assert ("etcd: no answer within 5 s", "") == (failed.cause, failed.refused)


def test_its_place_in_the_rollout_is_given_up_through_etcd() -> None:
    sidekick = Sidekick().come_up()
    sidekick.promote()

    step = sidekick.answer("release.check", ReleaseFailed, cause="no", error_code=FailureCode.ERROR, refused="2.0.0")

    assert ("idle.cooling", "2.0.0") == (step.target, sidekick.memory.given_up)


def test_another_payload_of_the_same_version_calls_the_update_off() -> None:
    sidekick = Sidekick().queue()

    step = sidekick.tell(
        TargetChanged, version="2.0.0", recorded={"2.0.0": "3" * 64}, paused=False, slots=1, revision=41
    )

    assert "swapping.withdrawing" == step.target


def test_a_floor_that_the_target_lists_is_not_called_off_by_the_next_one() -> None:
    sidekick = Sidekick().queue()

    step = sidekick.tell(
        TargetChanged,
        version="3.0.0",
        recorded={"3.0.0": "3" * 64, "2.0.0": "2" * 64},
        paused=False,
        slots=1,
        revision=41,
    )

    assert "swapping.queueing" == step.target


@pytest.mark.parametrize(
    ("urls", "allow", "signed", "taken"),
    [
        (("https://n/",), False, False, True),
        (("http://n/",), False, False, False),
        (("http://127.0.0.1:8000",), False, False, False),
        (("https://n/", "http://n/"), False, False, False),
        (("http://n/",), True, False, True),
        (("http://n/",), False, True, True),
    ],
)
def test_a_foreign_server_is_believed_over_https_or_when_an_operator_says_so(
    urls: tuple[str, ...], allow: bool, signed: bool, taken: bool
) -> None:
    provenance = ProvedByTransport(urls, allow_unverified=allow, are_signed=signed)

    if taken:
        provenance.check(WANTED)
    else:
        with pytest.raises(NotRecorded, match="is plain http, so nothing proves what it offers"):
            provenance.check(WANTED)
