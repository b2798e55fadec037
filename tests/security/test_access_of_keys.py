"""Every form of key has a row in ``model/access.py``, and each role may do what ``access_of_keys.txt`` says."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from outrider.etcd.permissions import Asked, Grant
from outrider.etcd.users import ACCESS, Permission
from outrider.model import keys as model_keys
from outrider.model.access import (
    FAMILIES,
    Agent,
    Family,
    Range,
    Sidekick,
    agent_ranges,
    backup_ranges,
    family_of,
    service_ranges,
    sidekick_ranges,
    status_ranges,
)
from outrider.model.documents import Contender
from outrider.model.keys import Keys, group_scope

KEYS = Keys()
OURS = {
    "app": "shop",
    "group": "beta",
    "instance": "web-a",
    "service": "pool",
    "server": "web-a",
    "agent": "edge",
    "scope": "eu",
    "n": "0",
    "label": "rack=1",
}
THEIRS = {**OURS, "instance": "web-b", "server": "web-b", "agent": "other", "label": "rack=2"}
"""Another instance of the same group, and another agent of the same service."""
FOREIGN = {name: f"{value}-x" for name, value in THEIRS.items()}
"""Of another app, and of another balancer."""


def us(*, shared_scope: str = "") -> Contender:
    return Contender(app="shop", group="beta", instance="web-a", labels={"rack": "1"}, shared_scope=shared_scope)


ROLES: dict[str, tuple[Range, ...]] = {
    "sidekick": sidekick_ranges(KEYS, Sidekick(us=us(), slots=2, service="pool", server_id="web-a")),
    "in-scope": sidekick_ranges(KEYS, Sidekick(us=us(shared_scope="eu"), slots=2, service="pool", server_id="web-a")),
    "agent": agent_ranges(KEYS, Agent(service="pool", name="edge")),
    "service": service_ranges(KEYS),
    "status": status_ranges(KEYS),
    "backup": backup_ranges(KEYS),
}


def key_of(family: Family, names: dict[str, str]) -> str:
    parts = [names.get(part.strip("{}"), "1") if part.startswith("{") else part for part in family.form.split("/")]
    return f"{KEYS.prefix}/{'/'.join('x' if part == '**' else part for part in parts)}"


def may(role: str, key: str) -> str:
    """``rw``, ``r`` or ``-``: as etcd itself decides it."""
    found = ""
    permissions = [Permission.of(one.key, one.access, prefix=one.prefix) for one in ROLES[role]]
    letters = {0: {"read"}, 1: {"write"}, 2: {"read", "write"}}
    grants = [Grant(one.start, one.end, frozenset(letters[one.access])) for one in permissions]  # type: ignore[arg-type]
    for access, letter in (("read", "r"), ("write", "w")):
        if any(grant.covers(Asked.of(key, access)) for grant in grants):  # type: ignore[arg-type]
            found += letter
    return found or "-"


def matrix() -> Iterator[str]:
    """One line for each family: what each role may do with its own key, a neighbour's, and a foreign one."""
    for family in FAMILIES:
        keys = [key_of(family, names) for names in (OURS, THEIRS, FOREIGN)]
        cells = [f"{role}={'/'.join(may(role, key) for key in keys)}" for role in ROLES]
        yield f"{family.form:68}{' '.join(f'{cell:18}' for cell in cells)}".rstrip()


def test_every_role_may_do_with_every_form_of_key_what_its_row_says() -> None:
    """Own key, a neighbour's and a foreign one. Write what is meant into the file; this module, run, prints it."""
    assert list(matrix()) == (Path(__file__).parent / "access_of_keys.txt").read_text().splitlines()


ARGUMENTS = {
    "number": 1,
    "scope": group_scope("shop", "beta"),
    "sha256": "a" * 64,
    "name": "ann",
    "day": "2026-01-01",
}


def all_keys() -> Iterator[tuple[str, str]]:
    """Each method of ``Keys`` and what it returns, in a group's scope and in a shared one."""
    for name, _ in inspect.getmembers(Keys, inspect.isfunction):  # of an instance with slots 3.11.2 can't tell them
        if name.startswith("_"):
            continue
        method = getattr(KEYS, name)
        parameters = list(inspect.signature(method).parameters)
        given = {one: ARGUMENTS.get(one, one) for one in parameters}
        yield name, method(**given)
        if "scope" in given:
            given |= {"scope": model_keys.shared_scope("eu")} | ({"member": "shop/web-a"} if "member" in given else {})
            yield name, method(**given)


@pytest.mark.parametrize(("name", "key"), list(all_keys()))
def test_every_key_that_is_written_has_a_row(name: str, key: str) -> None:
    """A prefix is that of a row, or of several."""
    below = key.removeprefix(f"{KEYS.prefix}/")
    if not key.endswith("/"):
        assert family_of(below) is not None, f"Keys.{name}: write a row for {below!r} into model/access.py"
        return
    parts = below.rstrip("/").split("/")
    fits = [
        family
        for family in FAMILIES
        if all(
            form.startswith("{") or form in (part, "**")
            for form, part in zip(family.form.split("/"), parts, strict=False)
        )
        and (len(family.form.split("/")) > len(parts) or family.form.endswith("**"))
    ]
    assert fits, f"Keys.{name}: write a row for what is below {below!r} into model/access.py"


def test_no_row_is_for_a_key_that_nobody_makes() -> None:
    made = {family.form for _, key in all_keys() if (family := family_of(key.removeprefix(f"{KEYS.prefix}/")))}
    elsewhere = {
        *("activity/{app}/{record}", "activity-seen", "webhooks/{webhook}", "webhook-outbox/**", "webhook-senders/**"),
        *(
            "audit/days/{day}",
            "audit/heads/{chain}",
            "audit/entries/{day}/**",
            "payloads/{sha256}",
            "restoring",
            "ready",
        ),
        *("turns/{app}/{group}/budgets/{label}/slots/{n}/{instance}",),
        *("shared-turns/{scope}/budgets/{label}/slots/{n}/{app}/{instance}",),
    }
    assert elsewhere == {family.form for family in FAMILIES} - made


def test_a_sidekick_gets_a_key_of_each_turn_that_its_group_may_have() -> None:
    numbers = {0: "rw", 1: "rw", 2: "r"}
    assert numbers == {number: may("sidekick", KEYS.slot(us().scope, number, "web-a")) for number in numbers}


def test_access_has_etcds_numbers() -> None:
    assert {"read": 0, "write": 1, "readwrite": 2} == ACCESS


if __name__ == "__main__":
    print("\n".join(matrix()))
