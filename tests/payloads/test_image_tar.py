"""Which image is in a tar: by digests of what is in it."""

import hashlib
import json
from pathlib import Path

import pytest

from outrider.core.errors import Refused
from outrider.payloads.image_tar import is_image_tar, read_image_tar
from tests.support.image_tars import CONFIG, image_tar, tar_of

ID = f"sha256:{hashlib.sha256(json.dumps(CONFIG).encode()).hexdigest()}"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_image_is_known_by_the_digest_of_its_configuration(tmp_path: Path, mode: str) -> None:
    tar = image_tar(tmp_path / "a.tar", mode=mode)

    found = read_image_tar(tar)

    assert is_image_tar(tar)
    assert (ID, "linux/amd64", {ID}) == (found.config, found.platform, set(found.ids))


def test_the_manifest_of_a_newer_docker_is_known_too(tmp_path: Path) -> None:
    variant = CONFIG | {"architecture": "arm", "variant": "v7"}

    found = read_image_tar(image_tar(tmp_path / "a.tar", oci=True, config=variant))

    assert ("linux/arm/v7", "sha256:" + "cd" * 32) == (found.platform, found.manifests[0])
    assert {found.config, *found.manifests} == found.ids


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"server.py": b"x"},
            r"a\.tar: holds no container image: it has no manifest\.json; make it with `docker save`",
        ),
        ({"manifest.json": b"[]"}, "holds 0 images; save one image alone"),
        ({"manifest.json": b'[{"Config":"a"},{"Config":"a"}]'}, "holds 2 images"),
        ({"manifest.json": b'[{"Config":"a.json"}]'}, "holds no container image"),
        ({"manifest.json": b"{"}, "holds no container image"),
        ({"manifest.json": b"[3]"}, "holds no container image"),
        ({"manifest.json": b'[{"Config":"a"}]', "a": b"[]"}, "holds no container image"),
        ({"manifest.json": b" " * (8 * 1024 * 1024 + 1)}, "at most 8388608 are read"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    tar = tar_of(tmp_path / "a.tar", files)

    with pytest.raises(Refused, match=said):
        read_image_tar(tar)


def test_an_ordinary_archive_is_none(tmp_path: Path) -> None:
    other = tmp_path / "b.tar"
    other.write_bytes(b"\x1f\x8bnot gzip")

    assert not is_image_tar(tar_of(tmp_path / "a.tar", {"server.py": b"x", "manifest.json": b'{"name": "web app"}'}))
    assert not is_image_tar(other)
    with pytest.raises(Refused, match=r"b\.tar: not a tar file as `docker save` writes it"):
        read_image_tar(other)
