"""A policy in a file of its own, as in ``apply`` and with ``slots`` besides, for commands that foresee what it does."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from outrider.cli.declared.policies import SETTINGS, read_policy
from outrider.cli.declared.reader import Reader, line_of, plain
from outrider.cli.declared.state import DeclarationError
from outrider.cli.declared.tree import Table, read_tree
from outrider.core.rollout.policy_settings import Policy
from outrider.service.store.groups import MAX_SLOTS


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """What a file says; ``slots`` None: nothing of the slots."""

    policy: Policy
    slots: int | None


def read_policy_file(path: Path) -> PolicyFile:
    """Read and check a file: the settings of a policy, in TOML, or in YAML when it ends in .yaml or .yml.

    Settings that it leaves out have their defaults.

    Raises:
        ConfigError: it can't be read.
        DeclarationError: something in it is wrong; all of it is listed.
    """
    reader = Reader(file=path.name)
    root = reader.table(read_tree(path), "", ("slots", *SETTINGS))
    slots: int | None = None
    if "slots" in root.entries:
        given = plain(root.entries["slots"])
        if isinstance(given, int) and not isinstance(given, bool) and 1 <= given <= MAX_SLOTS:
            slots = given
        else:
            reader.refuse(line_of(root, "slots"), f"slots: {given}: write 1 to {MAX_SLOTS}")
    settings = Table(line=root.line)
    for name, node in root.entries.items():
        if name != "slots":
            settings.put(name, node, root.lines[name])
    found = read_policy(reader, "policy", settings)
    if reader.problems:
        raise DeclarationError(reader.lines)
    return PolicyFile(policy=msgspec.convert(found, Policy), slots=slots)
