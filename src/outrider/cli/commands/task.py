"""``outrider task``: programs that run once for a release."""

import click

from outrider.cli import addressing
from outrider.cli.main import Group
from outrider.cli.options import json_option, operator, service_options
from outrider.cli.output import confirm, echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient, ours_only

HEADER = ("Task", "Version", "Kind", "State", "Instance", "Why")
app_option = addressing.app_option("App of the release.")
group_option = addressing.group_option("Group of the instances.")
version_option = click.option("--version", required=True, help="Version of the package that has the task.")
task_option = click.option("--task", required=True, help="Name of the task.")
why_option = click.option("--why", default="", help="Reason. Shown by `task show`, and in the audit log.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


@click.group(cls=Group)
def task() -> None:
    """Tasks that run once for a release, such as a database migration before the first instance swaps.

    `package create --task` makes them; docs/use/tasks.md says how they run.
    """


@task.command("list")
@app_option
@group_option
@service_options
@json_option
def list_(app_id: str, group_id: str, service: ServiceClient, as_json: bool) -> None:
    """List the tasks of a group's releases, and what became of them."""
    with ours_only("tasks"):
        found = service.get_all("apps", app_id, "groups", group_id, "tasks")
        oldest = service.get("apps", app_id, "groups", group_id, "oldest-version")["items"]
    if as_json:
        echo_json(found)
        return
    rows = [(one["name"], one["version"], one["kind"], one["state"], one["instance"], one["why"]) for one in found]
    echo_table(HEADER, rows)
    for one in oldest:
        click.echo(f"Nothing older than {_oldest(one)}.")


@task.command()
@app_option
@group_option
@yes_option
@service_options
@json_option
def lift(app_id: str, group_id: str, yes: bool, service: ServiceClient, as_json: bool) -> None:
    """Let older versions run again, once what a contract task took away from them is back."""
    with ours_only("tasks"):
        oldest = service.get("apps", app_id, "groups", group_id, "oldest-version")["items"]
    for one in oldest:
        click.echo(f"Nothing older than {_oldest(one)}.", err=True)
    confirm("Older versions may then be started again. Is what the task took away back?", yes=yes)
    lifted = service.post("apps", app_id, "groups", group_id, "oldest-version", "lift", body={})["items"]
    if as_json:
        echo_json(lifted)
        return
    for one in lifted:
        click.echo(f"Lifted: {_oldest(one)}.")


def _oldest(one: Json) -> str:
    where = f"group {one['group']}" if one["group"] else f"all groups of {one['app']}"
    return f"{one['version']} may run in {where}, since its task {one['task']} began ({one['since']})"


@task.command()
@app_option
@group_option
@version_option
@task_option
@service_options
@json_option
def show(app_id: str, group_id: str, version: str, task: str, service: ServiceClient, as_json: bool) -> None:
    """Show a task with the end of what it printed."""
    with ours_only("tasks"):
        found = service.get("apps", app_id, "groups", group_id, "tasks", version, task)
    _print(found, as_json)


def _verb(name: str, help: str, question: str) -> click.Command:
    @task.command(name, help=help)
    @app_option
    @group_option
    @version_option
    @task_option
    @why_option
    @yes_option
    @service_options
    @json_option
    def say(
        app_id: str, group_id: str, version: str, task: str, why: str, yes: bool, service: ServiceClient, as_json: bool
    ) -> None:
        with ours_only("tasks"):
            known = service.get("apps", app_id, "groups", group_id, "tasks", version, task)
        why_so = known["why"] or "no more is known"
        confirm(f"{known['name']} of {version} is {known['state']} ({why_so}). {question}", yes=yes)
        body: Json = {"why": why, "by": operator()}
        _print(service.post("apps", app_id, "groups", group_id, "tasks", version, task, name, body=body), as_json)

    return say


_verb(
    "done",
    "Say that a task is done, after a look at what it has done: the rollout goes on, and nobody runs it again.",
    "Say that it is done?",
)
_verb(
    "failed",
    "Say that a task of which nobody knows how far it came has failed: if it is a pre task, the release is blocked.",
    "Has it failed?",
)
_verb(
    "retry",
    "Let a task run again that failed, or of which nobody knows how far it came; what it blocked is unblocked.",
    "Let it run again?",
)


def _print(found: Json, as_json: bool) -> None:
    if as_json:
        echo_json(found)
        return
    echo_table(HEADER, [tuple(found[name] for name in ("name", "version", "kind", "state", "instance", "why"))])
    click.echo(f"command: {found['command']} (limit {found['limit_s']:g} s)")
    if found["started"]:
        ended = f", ended {found['ended']}" if found["ended"] else ""
        click.echo(f"started {found['started']}{ended}")
    if found["output"]:
        click.echo(found["output"].rstrip("\n"))
