"""``docs/use/api.md`` is true: its session is typed into a shell, and its tables are held to what they are about."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.service.api.auth import API
from outrider.service.problems import RESPONSES
from tests.service.api.test_openapi import DOCUMENT
from tests.support.requirements import skip_or_fail
from tests.support.service import Service

PAGE = (Path(__file__).parents[2] / "docs" / "use" / "api.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
END = "end of the example"


def agrees(expected: object, actual: object) -> bool:
    """``...`` is anything, an object may have more in it than is shown."""
    if expected == "...":
        return True
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(
            name in actual and agrees(value, actual[name]) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return isinstance(actual, list) and len(actual) == len(expected) and all(map(agrees, expected, actual))
    return type(expected) is type(actual) and expected == actual


def documents_in(text: str) -> Iterator[object]:
    decoder, text = json.JSONDecoder(), text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:].strip()


@pytest.fixture
def shell(service: Service, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A shell on the service's machine, with what the page takes for granted."""
    for program in ("bash", "curl", "jq"):
        if shutil.which(program) is None:
            skip_or_fail(f"{program} isn't installed")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OUTRIDER_", "UPDATE"))}
    environment = kept | {
        "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
        "HOME": str(tmp_path),
        "OUTRIDER_ETCD": service.etcd,
        "OUTRIDER_PREFIX": service.prefix,
        "no_proxy": "*",
    }
    with subprocess.Popen(
        ["bash", "-u"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process
        process.kill()


def typed(shell: "subprocess.Popen[str]", commands: str) -> str:
    """What the shell prints for some lines."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{commands}\necho\necho {END}\n")
    shell.stdin.flush()
    printed: list[str] = []
    for line in shell.stdout:
        if line == f"{END}\n":
            return "".join(printed)
        printed.append(line)
    raise AssertionError(f"the shell ended: {''.join(printed)}")


def test_the_session_goes_as_the_page_says(shell: "subprocess.Popen[str]", service: Service) -> None:
    assert ["sh"] * (len(BLOCKS) // 2) == [language for language, _ in BLOCKS[::2]]

    for (_, commands), (language, expected) in zip(BLOCKS[::2], BLOCKS[1::2], strict=True):
        printed = typed(shell, commands.replace("http://127.0.0.1:8000", service.url))

        if language == "json":
            actual = list(documents_in(printed))
            assert agrees(list(documents_in(expected)), actual), f"{commands}\nprinted {printed}"
        else:
            pattern = ".*".join(map(re.escape, expected.strip().split("...")))
            assert re.fullmatch(pattern, printed.strip()), f"{commands}\nprinted {printed}"


@pytest.mark.parametrize("wrong", [{"a": 2}, {"b": 1}, [], {"a": True}, {"a": "1"}])
def test_another_answer_than_the_pages_is_seen(wrong: object) -> None:
    assert agrees({"a": 1}, {"a": 1, "b": 2})
    assert not agrees({"a": 1}, wrong)


def test_the_table_of_problems_is_complete() -> None:
    named = {int(status) for status in re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)}

    assert set(RESPONSES) | {405} == named


def test_the_table_of_filters_is_complete() -> None:
    section = PAGE.partition("| list | filters |")[2].partition("\n\n")[0]
    named = {
        line.split("`")[1].replace("APP", "{app}"): set(re.findall(r"`([a-z_]+)`", line.split("|")[2]))
        for line in section.splitlines()[2:]
    }

    filters = {
        path.removeprefix("/api/v1"): {
            one["name"] for one in methods["get"].get("parameters", ()) if one["in"] == "query"
        }
        - {"limit", "after"}
        for path, methods in DOCUMENT["paths"].items()
        if path.startswith(API) and "get" in methods
    }
    assert {path: names for path, names in filters.items() if names} == named
