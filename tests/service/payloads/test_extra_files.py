"""Files beside a payload, over the running service: made, offered, downloaded, refused."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from outrider.cli.main import main
from tests.support.service import Service
from tests.support.service_examples import APP, SHA256, make_app


def test_an_extra_file_is_uploaded_and_served_beside_the_payload(service: Service, tmp_path: Path) -> None:
    make_app(service.store, versions=())
    payload, signature = tmp_path / "web.bin", tmp_path / "web.sig"
    payload.write_bytes(b"the payload")
    signature.write_bytes(b"a signature")

    made = CliRunner().invoke(
        main,
        ["package", "create", "--app-id", APP, "--version=3.0.0", "--as-is", f"--file={payload}",
         f"--extra-file={signature}", f"--server={service.url}", "--json"],
    )  # fmt: skip

    assert 0 == made.exit_code, made.output
    package = service.store.packages.get(APP, "3.0.0")
    assert [("web.sig", 11)] == [(one.name, one.size_bytes) for one in package.files]
    folder = f"{service.url}/packages/{APP}"
    for where in (f"{folder}/3.0.0/web.sig", f"{folder}/all/3.0.0@web.sig"):
        answer = requests.get(where, timeout=60)
        assert b"a signature" == answer.content
        assert f'"{hashlib.sha256(b"a signature").hexdigest()}"' == answer.headers["etag"]
    assert b"the payload" == requests.get(f"{folder}/all/3.0.0@web.bin", timeout=60).content
    assert 404 == requests.get(f"{folder}/all/3.0.0@other", timeout=60).status_code
    assert 404 == requests.get(f"{folder}/all/web.bin", timeout=60).status_code

    refused: dict[str, dict[str, Any]] = {
        "two of one name": {"files": [{"name": "web.tar", "size_bytes": 3, "sha256": SHA256}]},
        "without a digest": {"files": [{"name": "web.sig", "size_bytes": 3}]},
        "stored, beside an address": {"files": [{"name": "web.sig", "stored": package.files[0].sha256}]},
    }
    for what, wrong in refused.items():
        body = {"version": "4.0.0", "url": "http://files.example/w/web.tar", "size_bytes": 9, "sha256": SHA256, **wrong}
        answer = requests.post(f"{service.url}/api/v1/apps/{APP}/packages", json=body, timeout=60)
        assert (400, "file") == (answer.status_code, answer.json()["detail"][:4]), what

    body = {"version": "4.0.0", "url": "http://files.example/w/web.tar", "size_bytes": 9, "sha256": SHA256}
    requests.post(f"{service.url}/api/v1/apps/{APP}/packages", json=body, timeout=60).raise_for_status()
    elsewhere = requests.get(f"{folder}/all/4.0.0@web.tar", timeout=60, allow_redirects=False)
    assert (302, "http://files.example/w/web.tar") == (elsewhere.status_code, elsewhere.headers["location"])
    assert 404 == requests.get(f"{folder}/4.0.0/web.tar", timeout=60).status_code


@pytest.mark.parametrize("name", ["../web.sig", "a/b", ""])
def test_a_file_has_a_plain_name(service: Service, name: str) -> None:
    make_app(service.store)
    files = [{"name": name, "size_bytes": 3, "sha256": SHA256}]
    body = {
        "version": "4.0.0",
        "url": "http://files.example/web.tar",
        "size_bytes": 9,
        "sha256": SHA256,
        "files": files,
    }

    answer = requests.post(f"{service.url}/api/v1/apps/{APP}/packages", json=body, timeout=60)

    assert 400 == answer.status_code
    assert "name" in answer.json()["detail"]
