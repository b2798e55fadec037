"""What ends a wait, and what a person may type for it: the second half of each answer of ``outrider why``.

``APP``, ``GROUP`` and ``INSTANCE`` stand for names, and ``filled_in`` puts them in. ``docs/use/why.md`` has the same
sentences; a test compares them. What ends the wait of a sidekick's state stands in the chart (``o:ends``).
"""

import re
from collections.abc import Mapping
from types import MappingProxyType

from outrider.core.rollout.policy import Rule
from outrider.core.rollout.slots import TurnWord

ENDS: Mapping[Rule, str] = MappingProxyType(
    {
        "no-release": "the channel points at a version: `outrider channel update APP --channel C --version V`",
        "current": "a new target: `outrider channel update APP --channel C --version V`",
        "paused": "`outrider group unpause APP/GROUP`",
        "off": "`outrider group policy APP/GROUP --enabled`",
        "blocked": "another version, or `outrider release unblock APP --version V` once the cause is mended",
        "version": "a newer version in the channel; `outrider rollout undo APP/GROUP` or"
        " `outrider group policy APP/GROUP --downgrade always` let instances go back, unless"
        " instance.allow_downgrade = false on the machine",
        "pin": "`outrider group policy APP/GROUP --pin none`, or a version that matches",
        "prefix": "a version that matches, or another prefix in the client's own settings",
        "no-package": "the version gets a package: `outrider package create APP --version V`",
        "unresolved": "`outrider package resolve APP --version V`, or the registry answers the service by itself",
        "task": "look what the task has done (`outrider task list APP/GROUP`), then `outrider task done`, `failed` or"
        " `retry`",
        "rollout": "`outrider rollout resume APP/GROUP`, or another version",
        "approval": "`outrider rollout approve APP/GROUP`, or `reject`; by itself only at the time that is named",
        "architecture": "a package for this architecture: `outrider package create APP --version V --arch ARCH`",
        "percent": "a higher percentage: `outrider group policy APP/GROUP --percent N`",
        "freezes": "the freeze is over; in an emergency `outrider rollout override APP/GROUP`",
        "deny-windows": "the deny window is over; in an emergency `outrider rollout override APP/GROUP`",
        "windows": "the window opens; in an emergency `outrider rollout override APP/GROUP`",
        "min-healthy": "another instance serves again (`outrider status APP/GROUP`), or a lower"
        " `outrider group policy APP/GROUP --min-healthy N`",
        "waves": "the wave is complete, its soak time is over, its analyses pass, and it is approved where"
        " it asks for that:"
        " `outrider rollout approve APP/GROUP`",
        "canary": "the canaries succeed; a failed one halts the rollout",
        "max-in-progress": "one of those in progress succeeds, fails, or its time is over",
        "max-per-interval": "that time comes, or a higher `outrider group policy APP/GROUP --max-per-interval N/TIME`",
    }
)
"""What ends the deferral by each rule of the policy."""

TURN_ENDS: Mapping[TurnWord, str] = MappingProxyType(
    {
        "free": "the next instance in the queue takes it at once",
        "held": "its holder serves again and gives it back",
        "dirty": "its sidekick connects again and finishes, or `outrider lock release APP/GROUP` frees it",
    }
)
"""What ends each state of a turn."""

BLOCK_ENDS = "another version, or `outrider release unblock APP --version V`"
"""What ends the block of a release."""

TASK_BLOCK_ENDS = (
    "another version, or `outrider task retry APP/GROUP` once the cause is mended: it lifts the block, too"
)
"""What ends a block for a task that failed."""

BUDGET_ENDS = "an instance that is out serves again, or `outrider group policy APP/GROUP --budget` allows more"
"""What ends the hold of a disruption budget."""

OFFLINE_ENDS = "its sidekick runs and reaches etcd: look at its machine (`systemctl status`, its log)"
"""What ends the silence of an instance."""

BEGIN_ENDS = "what it names answers (its Docker, its D-Bus): the sidekick tries again by itself, at least each minute"
"""What ends that a sidekick can't begin."""

STRANGER_ENDS = "the other sidekick ends, or gets an instance.id of its own"
"""What ends the refusal of a sidekick that may not be the instance."""

IDENTITY_ENDS = "a check-in is proved: by a sidekick, or with a client token (`outrider client-token create`)"
"""What ends the wait of an instance of which no check-in was proved."""


def filled_in(ends: str, app: str, group: str, instance: str = "INSTANCE") -> str:
    """``ends`` with names in place of the capitals."""
    names = {"APP": app, "GROUP": group, "INSTANCE": instance}
    return re.sub(r"\b(APP|GROUP|INSTANCE)\b", lambda match: names[match[1]], ends)
