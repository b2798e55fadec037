"""Keys are made, packages are signed, keys are rotated: against the running service, as people type it."""

import os
import stat
from pathlib import Path

import pytest

from outrider.config.sections import TrustSettings
from outrider.core.sidekick.memory import Release
from outrider.sidekick.signatures import Known, SignatureCheck
from outrider.trust.keys import load_signer
from tests.support.service import Service
from tests.support.service_examples import APP, make_app, payload_of
from tests.support.typing_verbs import Run, typist
from tests.trust.minisigning import PAYLOAD, MinisignSigner, vector

RELEASE = Release(
    version="2.0.0", urls=("http://x/2",), sha256=payload_of("2.0.0").sha256, size_bytes=payload_of("2.0.0").size_bytes
)
PACKAGE = f"--app-id={APP} --version=2.0.0"


@pytest.fixture
def run(service: Service) -> Run:
    make_app(service.store, version="2.0.0")
    return typist(service)


def machine(service: Service, *keys: Path, threshold: int = 1) -> SignatureCheck:
    settings = TrustSettings(keys=tuple(str(key) for key in keys), threshold=threshold)
    context = service.store.context
    return SignatureCheck(settings, context.cluster, context.keys, app=APP)


def test_a_signed_package_is_taken_and_can_be_listed(run: Run, service: Service, tmp_path: Path) -> None:
    made = run(f"key create {tmp_path}/ann")
    assert f"{tmp_path}/ann.pub: public key; name it in trust.keys of each machine" in made.stdout
    assert 0o600 == stat.S_IMODE((tmp_path / "ann").stat().st_mode)

    said = run(f"package sign {PACKAGE} --private-key={tmp_path}/ann --minimum=1.0.0 --output={tmp_path}/e.json")

    assert f"signing SHA-256 {RELEASE.sha256}" in said.stderr
    assert "1.0.0" == machine(service, tmp_path / "ann.pub").check(RELEASE, Known(), PAYLOAD).minimum
    assert load_signer(tmp_path / "ann").public_key.keyid[:12] in run(f"package signatures {PACKAGE}").stdout
    assert (tmp_path / "e.json").read_text().startswith("{")


def test_a_second_holder_joins_and_the_threshold_is_met(run: Run, service: Service, tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        run(f"key create {tmp_path}/{name}")
    run(f"package sign {PACKAGE} --private-key={tmp_path}/ann")
    two = machine(service, tmp_path / "ann.pub", tmp_path / "bob.pub", threshold=2)
    with pytest.raises(Exception, match="and 2 are needed"):
        two.check(RELEASE, Known(), PAYLOAD)

    run(f"package sign {PACKAGE} --private-key={tmp_path}/bob --join")

    two.check(RELEASE, Known(), PAYLOAD)


def test_new_keys_take_the_place_of_old_ones(run: Run, service: Service, tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        run(f"key create {tmp_path}/{name}")
    old = machine(service, tmp_path / "ann.pub")
    run(f"package sign {PACKAGE} --private-key={tmp_path}/bob")
    with pytest.raises(Exception, match="is by 0 of the keys"):
        old.check(RELEASE, Known(), PAYLOAD)

    said = run(f"key rotate --app-id={APP} --private-key={tmp_path}/ann --to={tmp_path}/bob.pub")

    assert "1 of 1" in said.stdout
    old.check(RELEASE, Known(), PAYLOAD)
    assert said.stdout == run(f"key list --app-id={APP}").stdout
    run(f"key forget --app-id={APP} --yes")
    assert "1 of 1" not in run(f"key list --app-id={APP}").stdout


def test_a_signature_of_minisign_is_added_and_taken(run: Run, service: Service, tmp_path: Path) -> None:
    ann, file = MinisignSigner(tmp_path, "ann"), tmp_path / "web-2.0.0.tar.minisig"
    comment = run(f"package sign {PACKAGE} --minisign-comment --minimum=1.0.0").stdout.strip()
    assert comment.startswith(f"outrider app={APP} version=2.0.0 expires=20")
    file.write_text(ann.signed(comment))

    said = run(f"package sign {PACKAGE} --minisign={file}")

    assert "minisign" in said.stdout
    assert "" == said.stderr
    assert said.stdout == run(f"package signatures {PACKAGE}").stdout
    assert "1.0.0" == machine(service, ann.public).check(RELEASE, Known(), PAYLOAD).minimum


def test_minisign_joins_an_envelope_by_its_comment(run: Run, service: Service, tmp_path: Path) -> None:
    run(f"key create {tmp_path}/ann")
    run(f"package sign {PACKAGE} --private-key={tmp_path}/ann --any-environment --expires=30d")
    bob, file = MinisignSigner(tmp_path, "bob"), tmp_path / "bob.minisig"
    file.write_text(bob.signed(run(f"package sign {PACKAGE} --minisign-comment --join").stdout.strip()))

    run(f"package sign {PACKAGE} --minisign={file}")

    machine(service, tmp_path / "ann.pub", bob.public, threshold=2).check(RELEASE, Known(), PAYLOAD)


def test_a_signature_that_binds_to_no_app_is_added_with_a_warning(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "plain.minisig"
    file.write_text(vector("unbound"))

    said = run(f"package sign {PACKAGE} --minisign={file}")

    assert "names no app and version" in said.stderr
    assert "trust.allow_unbound_minisign" in said.stderr


def test_mistakes_with_minisign_are_one_line(run: Run, tmp_path: Path) -> None:
    for name, text in (("shop", vector("bound")), ("none", "{}")):
        (tmp_path / name).write_text(text)

    for words, problem, code in (
        (f"package sign {PACKAGE}", "give one of --private-key, --minisign, --minisign-comment and --cosign", 2),
        (f"package sign {PACKAGE} --minisign={tmp_path}/shop --minisign-comment", "give one of --private-key", 2),
        (f"package sign {PACKAGE} --minisign={tmp_path}/shop --expires=9d", "--expires goes with --private-key", 2),
        (f"package sign {PACKAGE} --minisign-comment --output={tmp_path}/e", "--output goes with --private-key", 2),
        (f"package sign {PACKAGE} --minisign={tmp_path}/gone", "No such file", 1),
        (f"package sign {PACKAGE} --minisign={tmp_path}/none", "does not begin with 'untrusted comment:'", 1),
        (f"package sign {PACKAGE} --minisign={tmp_path}/shop", "the signature is for app shop", 1),
    ):
        assert problem in run(words, code=code).stderr, words


def test_mistakes_are_one_line(run: Run, tmp_path: Path) -> None:
    run(f"key create {tmp_path}/ann")
    os.chmod(tmp_path / "ann", 0o644)

    for words, problem in (
        (f"key create {tmp_path}/ann", "is there already"),
        (f"package sign {PACKAGE} --private-key={tmp_path}/ann", "others may read it; chmod 600"),
        (f"package sign {PACKAGE} --private-key={tmp_path}/ann.pub --expires=soon", "not a private key"),
        (f"package sign {PACKAGE} --private-key={tmp_path}/none", "can't be read"),
    ):
        said = run(words, code=1)
        assert problem in said.stderr, words
        assert said.stderr.startswith("Error: ")
