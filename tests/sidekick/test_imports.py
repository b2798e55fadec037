"""A sidekick runs on every machine: it imports nothing that only the update service needs."""

import pytest

from tests.support.imports import SIDEKICK, imported_by, needless, service_only


def test_a_sidekick_imports_nothing_that_only_the_update_service_needs() -> None:
    modules = imported_by(SIDEKICK)

    assert "outrider.sidekick.loop" in modules
    assert "grpc" in modules
    assert [] == needless(modules)


@pytest.mark.parametrize("code", ["import fastapi", "import outrider.service.limits", "import uvicorn.config"])
def test_what_only_the_update_service_needs_is_found_out(code: str) -> None:
    assert needless(imported_by(code))


def test_the_packages_are_those_of_the_extras() -> None:
    only = service_only()

    assert {"fastapi", "starlette", "uvicorn", "jinja2", "pydantic", "httptools", "authlib"} <= only
    assert not {"requests", "lxml", "grpc", "etcd3", "click", "loguru", "transitions", "msgspec"} & only
