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
    assert "1.0.0" == machine(service, tmp_path / "ann.pub").check(RELEASE, Known()).minimum
    assert load_signer(tmp_path / "ann").public_key.keyid[:12] in run(f"package signatures {PACKAGE}").stdout
    assert (tmp_path / "e.json").read_text().startswith("{")


def test_a_second_holder_joins_and_the_threshold_is_met(run: Run, service: Service, tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        run(f"key create {tmp_path}/{name}")
    run(f"package sign {PACKAGE} --private-key={tmp_path}/ann")
    two = machine(service, tmp_path / "ann.pub", tmp_path / "bob.pub", threshold=2)
    with pytest.raises(Exception, match="and 2 are needed"):
        two.check(RELEASE, Known())

    run(f"package sign {PACKAGE} --private-key={tmp_path}/bob --join")

    two.check(RELEASE, Known())


def test_new_keys_take_the_place_of_old_ones(run: Run, service: Service, tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        run(f"key create {tmp_path}/{name}")
    old = machine(service, tmp_path / "ann.pub")
    run(f"package sign {PACKAGE} --private-key={tmp_path}/bob")
    with pytest.raises(Exception, match="is by 0 of the keys"):
        old.check(RELEASE, Known())

    said = run(f"key rotate --app-id={APP} --private-key={tmp_path}/ann --to={tmp_path}/bob.pub")

    assert "1 of 1" in said.stdout
    old.check(RELEASE, Known())
    assert said.stdout == run(f"key list --app-id={APP}").stdout
    run(f"key forget --app-id={APP} --yes")
    assert "1 of 1" not in run(f"key list --app-id={APP}").stdout


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
