"""Commands to one instance: drain, undrain, retry."""

from collections.abc import Mapping, Sequence
from typing import Literal

from outrider.core.errors import NotFound
from outrider.service.web.actions.rollout import OF_GROUP, overview_of
from outrider.service.web.site import Action, Doing, Effect, Field, Visit

OF_INSTANCE = f"{OF_GROUP}/instances/{{instance}}"
Verb = Literal["drain", "undrain", "retry"]
_WORDS: Mapping[Verb, str] = {
    "drain": "{instance} leaves the balancer and runs on, until it is undrained",
    "undrain": "{instance} comes back into the balancer",
    "retry": "{instance} tries again what failed on its machine",
}


def _command(verb: Verb) -> Action:
    def effect(visit: Visit, form: Mapping[str, str]) -> Effect:
        overview, name = overview_of(visit), visit.names["instance"]
        if name not in overview.instances:
            raise NotFound(f"group {overview.name} has no instance {name!r}")
        lines = [_WORDS[verb].format(instance=name)]
        serving = sum(one.serving for one in overview.alive.values())
        if verb == "drain":
            own = overview.alive.get(name)
            left = serving - (own is not None and own.serving)
            lines.append(f"{left} of {len(overview.instances)} serve then")
        if name not in overview.alive:
            lines.append("its sidekick is offline; it takes effect when it connects")
        return Effect(instances=1, lines=tuple(lines))

    def do(doing: Doing) -> Sequence[str]:
        name = doing.names["instance"]
        doing.store.fleet.command(
            doing.names["app"],
            name,
            verb,
            doing.asked.speaker(""),
            until_reboot=verb == "drain" and doing.form.get("until_reboot") == "yes",
        )
        return (f"{verb} requested for {name}; it takes effect when its sidekick connects",)

    until = Field(name="until_reboot", label="only until its machine's next boot", kind="checkbox")
    return Action(
        path=f"{OF_INSTANCE}/{verb}",
        operation="POST /api/v1/apps/{app}/instances/{instance}/command",
        title=f"{verb.capitalize()} {{instance}}",
        button=verb.capitalize(),
        back=OF_GROUP,
        effect=effect,
        do=do,
        fields=lambda visit: (until,) if verb == "drain" else (),
        danger=verb == "drain",
    )


ACTIONS = (_command("drain"), _command("undrain"), _command("retry"))
