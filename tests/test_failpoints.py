"""No touch of the world without a mark, no mark that isn't in the list, no effect without a row."""

import ast
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from outrider import failpoints as points
from outrider.core.sidekick.effects import EFFECT_TYPES
from outrider.failpoints import (
    AGENT_FAILPOINTS,
    FAILPOINTS,
    FAILPOINTS_OF,
    UNASKED,
    FailpointHit,
    failpoint,
    observe,
    performing,
    with_current_effect,
)
from outrider.statechart import find_sidekick_chart

SOURCE = Path(points.__file__).parent
MODULES = tuple(
    SOURCE / f"{name}.py"
    for name in (
        "journal/journal", "sidekick/outbox", "payloads/store", "payloads/transfer",
        "sidekick/prober", "sidekick/probes", "etcd/subject", "etcd/epoch_watch",
        "omaha_client/client", "omaha_client/exchange", "runtimes/process/runtime", "payloads/archive",
        "runtimes/process/command", "runtimes/process/exits", "runtimes/process/identity",
        "runtimes/process/apart", "runtimes/process/cgroups", "runtimes/process/family", "runtimes/process/holders",
        "runtimes/docker/runtime", "runtimes/docker/images", "runtimes/docker/pull", "runtimes/docker/exits",
        "runtimes/docker/container", "runtimes/docker/engine",
        "runtimes/process/prepared", "runtimes/process/signals", "runtimes/process/output", "sidekick/adoption",
        "runtimes/endings", "runtimes/command/runtime", "runtimes/command/programs", "runtimes/records",
        "runtimes/polling",
        "runtimes/inherited", "runtimes/systemd/bus", "runtimes/systemd/names", "runtimes/systemd/properties",
        "runtimes/systemd/results", "runtimes/systemd/runtime", "runtimes/systemd/units",
        "runtimes/fleet/api", "runtimes/fleet/runtime", "runtimes/fleet/template",
        "runtimes/dpkg/__init__", "runtimes/dpkg/runtime", "runtimes/dpkg/calls", "runtimes/dpkg/kept",
        "runtimes/dpkg/neighbours",
        "runtimes/adopted/__init__", "runtimes/adopted/runtime", "runtimes/adopted/container", "runtimes/adopted/unit",
        "runtimes/adopted/pid_file", "runtimes/adopted/listening", "balancers/apisix", "balancers/shared",
        "runtimes/drivers", "balancers/drivers", "balancers/keys", "http",
        "balancers/drain", "balancers/entry", "balancers/traefik", "balancers/none",
        "balancers/agent/observer", "balancers/vulcand", "balancers/templates",
        "turns/claim", "turns/permission", "turns/running", "etcd/lease", "turns/lock", "turns/turns", "turns/wait",
        "sidekick/announcements",
        "sidekick/assemble", "sidekick/crashes", "sidekick/workers/balancer", "sidekick/workers/lock",
        "sidekick/loop", "sidekick/presence", "sidekick/provenance", "sidekick/signatures",
        "sidekick/workers/probe", "sidekick/workers/release", "sidekick/workers/report", "sidekick/workers/worker",
        "sidekick/workers/workload", "sidekick/workers/task", "sidekick/task_claims", "sidekick/task_programs",
        "sidekick/due_tasks", "sidekick/steps",
        "sidekick/entry_watch", "sidekick/identity",
        "sidekick/session", "sidekick/host", "sidekick/gauges", "sidekick/environments",
        "sidekick/analysing",
        "sidekick/workers/analysis", "analysis/checks", "analysis/sources", "analysis/comparison", "analysis/analyst",
    )
)  # fmt: skip
TOUCHES = frozenset(
    {
        "write", "fsync", "fdatasync", "replace", "rename", "unlink", "ftruncate", "truncate", "link", "rmtree",
        "write_text", "write_bytes", "mkdir", "symlink_to", "touch", "Popen", "killpg", "kill", "pidfd_send_signal",
        "txn", "grant", "revoke", "keep_alive", "get", "post", "request", "remove", "extract", "rmdir",
        "create_container_from_config", "connect_container_to_network", "remove_container", "remove_image",
        "load_image", "unpause", "tag", "attach",
    }
)  # fmt: skip
"""Names of functions and methods that change what outlives a process, or ask another program."""
PURE = frozenset(
    {
        # of dicts, queues, dataclasses; single keys of etcd are read to word an error
        # Docker's answers, and its own words for errors
        "(environment or {}).get", "(self._engine.inspect(found['Id']) or {}).get", "detail.get", "docker.info().get",
        "health.get", "image.get", "labels.get", "line.get", "log[-1].get", "one['Labels'].get", "port.get",
        "self._layers.get", "state.get", "str(error.explanation or error).strip().replace", "text.strip().replace",
        "docker.inspect_image(image).get",
        # an adopted container, unit or process, and what is read of them
        "found['Config'].get", "found['State'].get", "found['HostConfig'].get", "found['NetworkSettings'].get",
        "found['HostConfig']['RestartPolicy'].get", "host.get", "published.get", "policy.get", "binding.get",
        "(found or {}).get", "(found or {}).get('HostConfig', {}).get", "_published(found, settings).get",
        "self.properties(self.state(unit)).get",
        "self._manager.properties(state).get", "self._manager.properties(state, 'Unit').get",
        "self._record.policy.get", "children.get", "NEEDS.get",
        "before.get", "before.memory.get", "metadata.get", "node.get", "upstream.get",
        "_ARCHITECTURES.get", "applied.get", "balancer.get", "told.draining.get",
        "_SAYS.get", "ends.get", "self._call.environment.get", "word.replace",
        "answer.header.fields.get", "body.get", "directives.get", "problem.get", "found.header.fields.get", "one.get",
        "service.get", "unit.get", "values.get", "self._machine.get",
        "cluster.get", "entries.get", "environment.get", "found.get",
        "headers.get", "os.environ.get", "paths.get", "self.modes.get", "msgspec.structs.replace", "replace",
        "response.headers.get", "scope.queue.get",
        "seen.queue.get", "self._answers.get", "self._children.get", "self._cluster.get", "self._inbox.get",
        "self._marked.get", "self._origins.get",
        "self._quiet_until.get", "self._sidekick.post", "self._statuses.get", "self._watched.get",
        "self._told.get", "self._keys.grant", "changed.get", "self._members.remove", "self.kinds.get",
        "self.targets.get", "server.get", "told.get",
        "self._latest.get", "self._limits.get", "total.get", "counts.get",
        "self._unable.get", "self._counts.get",
        # what a journal tells of a neighbour; a version of Debian
        "known.get", "lockers.get", "one.event.get", "record.memory.get", "version.replace",
        "(found or behind).replace",
    }
)  # fmt: skip
UNDER: dict[tuple[str, str], str] = {
    ("journal/journal", "_recover"): "before the first step; what it cuts off was never synced",
    ("journal/journal", "_write"): "cuts a record off whose write failed, within what is told to the loop as failed",
    ("journal/journal", "_make_room"): "the older journal, on a full disk; whoever reads it does without",
    ("sidekick/outbox", "_write_durably"): "removes what was never a report, after a write that failed",
    ("journal/journal", "_rotate"): "always under journal.rotate",
    ("sidekick/outbox", "_open"): "at the start: removes what was never a report",
    ("sidekick/outbox", "_set_aside"): "moves a report that the service refuses forever; its content stays",
    (
        "payloads/transfer",
        "_give_room",
    ): "what a full disk kept from becoming a payload; a kill leaves a part",
    ("payloads/transfer", "_open"): "notes whose bytes these are, right before the first of them is kept",
    ("omaha_client/exchange", "exchange"): "always under omaha.check or outbox.send",
    ("http", "get"): "always under balancer.ask, app.ask, probe.ask or analysis.ask",
    ("analysis/checks", "fetched"): "always under analysis.ask",
    ("analysis/checks", "_run"): "always under analysis.ask",
    ("analysis/checks", "_end"): "always under analysis.ask",
    ("http", "ask"): "always under balancer.ask or app.ask",
    ("sidekick/probes", "_ask_http"): "always under probe.ask",
    ("sidekick/probes", "_ask_command"): "always under probe.ask",
    ("sidekick/probes", "_end"): "always under probe.ask",
    ("payloads/archive", "unpack"): "always under workload.prepare or workload.unpack",
    ("payloads/archive", "_remove"): "always under workload.prepare or workload.unpack",
    ("payloads/archive", "_unpack"): "always under workload.prepare or workload.unpack",
    ("payloads/archive", "_write"): "always under workload.prepare or workload.unpack",
    ("runtimes/docker/pull", "_pull"): "always under payload.fetch, workload.prepare or workload.unpack",
    ("runtimes/docker/images", "ensure"): "always under workload.prepare or workload.unpack",
    ("runtimes/docker/images", "_take_back"): "always under workload.prepare or workload.unpack",
    ("runtimes/docker/images", "_load"): "always under workload.prepare or workload.unpack",
    ("runtimes/docker/runtime", "_stop"): "always under workload.signal",
    ("runtimes/docker/runtime", "_discard"): "under workload.clear or workload.erase, and after a start that failed",
    ("runtimes/process/prepared", "move"): "always under workload.unpack",
    ("runtimes/process/prepared", "_unpack"): "always under workload.prepare or workload.unpack",
    ("runtimes/process/signals", "send"): "always within _end of the runtime",
    ("runtimes/process/apart", "_take"): "always under workload.spawn",
    ("runtimes/process/apart", "remove"): "an empty cgroup: leaving it does no harm",
    ("runtimes/command/runtime", "remove"): "the same; the rest is in records, which has the marks",
    ("runtimes/process/cgroups", "put"): "always under workload.spawn",
    ("runtimes/process/cgroups", "remove"): "always under workload.erase",
    ("runtimes/process/family", "forget"): "always under workload.erase",
    ("runtimes/process/runtime", "_keep_output"): "always under workload.rename",
    ("runtimes/process/output", "_begin_anew"): "what an app printed: nothing depends on it",
    (
        "runtimes/command/programs",
        "_run",
    ): "always under workload.prepare, unpack, spawn or signal; find changes nothing",
    ("runtimes/systemd/units", "stop_unit"): "always under workload.signal, or workload.clear after a failed start",
    ("runtimes/adopted/runtime", "remove"): "calls the runtime, which has the marks, or stop and forget_record",
    ("runtimes/adopted/container", "stop"): "always under workload.signal",
    ("runtimes/adopted/pid_file", "look"): "for `outrider adopt` alone: signal 0 asks whether we may, and ends nothing",
    ("runtimes/systemd/units", "clear_link"): "always under workload.unpack or workload.erase",
    (
        "runtimes/fleet/api",
        "_call",
    ): "what it changes is always under workload.spawn, signal, clear or erase; the rest asks",
    ("runtimes/dpkg/kept", "keep_installed"): "always under workload.prepare",
    (
        "runtimes/dpkg/runtime",
        "_take_up_new_code",
    ): "ends this process at rest, as systemd does; nothing is under way",
    ("turns/turns", "free_turn"): "an operator's command",
    (
        "sidekick/crashes",
        "tell_crash",
    ): "the last words of a process that ends, after its last step or before its first",
    ("sidekick/crashes", "tell_begun"): "takes back such words, which nothing decides by",
    ("sidekick/host", "_wake"): "a pipe of its own, to its own main thread",
    ("etcd/lease", "close"): "ends the lease on an orderly stop; not doing it leaves it to its time",
    ("sidekick/workers/workload", "_remove"): "calls the runtime, which has the marks",
    ("sidekick/workers/workload", "_tidy"): "calls the runtime, which has the marks",
    ("sidekick/task_programs", "run"): "removes a folder of its own, which the next task removes, too",
    (
        "sidekick/task_programs",
        "_to_its_end",
    ): "ends its own program when this machine fails: unknown then",
    ("sidekick/task_programs", "_end_leftovers"): "the same, of a sidekick that was killed",
}
"""(module below src/outrider, function) whose touches have no mark of their own -> why that is right."""


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").as_posix()


def unmarked(source: str, module: str) -> Iterator[str]:
    """Every call in ``source`` that looks like a touch and stands in no ``with failpoint(...)``."""

    def walk(node: ast.AST, function: str, marked: bool) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.With):
            marked = marked or any(ast.unparse(item.context_expr).startswith("failpoint(") for item in node.items)
        if isinstance(node, ast.Call) and not marked and (module, function) not in UNDER:
            called = ast.unparse(node.func)
            if called.rpartition(".")[2] in TOUCHES and called not in PURE:
                yield f"{module}.py:{node.lineno}: {function}: {called}"
        for child in ast.iter_child_nodes(node):
            yield from walk(child, function, marked)

    yield from walk(ast.parse(source), "", False)


def test_every_touch_of_a_sidekick_has_a_mark() -> None:
    found = [line for path in MODULES for line in unmarked(path.read_text(), name_of(path))]

    assert [] == found


def test_a_touch_without_a_mark_is_found() -> None:
    source = "def f():\n  with failpoint('x'):\n    os.rename(a, b)\n  cluster.txn(a, b)\n  path.unlink()\n"

    assert ["new.py:4: f: cluster.txn", "new.py:5: f: path.unlink"] == list(unmarked(source, "new"))


def test_every_module_that_a_sidekick_runs_is_looked_at() -> None:
    folders = ("sidekick", "runtimes", "balancers", "analysis")
    there = {path for folder in folders for path in (SOURCE / folder).rglob("*.py") if path.stem != "__init__"}
    harmless = {
        SOURCE / "runtimes/process/ports.py",  # binds a socket and lets it go
        SOURCE / "sidekick/adopt.py",  # `outrider adopt`, before the first life of a sidekick
        SOURCE / "balancers/takeover.py",  # the same
        SOURCE / "sidekick/shutdown.py",  # another program, beside the sidekick: it runs once, and begins nothing anew
    }

    agents = set((SOURCE / "balancers/agent").glob("*.py"))  # another process's: the next test

    assert there - harmless - agents <= set(MODULES)


def test_every_touch_of_a_balancer_agent_has_a_mark() -> None:
    source = (SOURCE / "balancers/agent/loop.py").read_text()
    reads = {"cluster.get", "self._cluster.get"}

    found = list(unmarked(source.replace("self._driver.perform(", "driver.kill("), "balancers/agent/loop"))

    assert [] == [line for line in found if line.rpartition(": ")[2] not in reads]
    assert ["balancers/agent/loop.py:1: : driver.kill"] == list(unmarked("driver.kill()", "balancers/agent/loop"))


def test_every_effect_has_a_row_and_every_row_an_effect() -> None:
    chart = ElementTree.fromstring(find_sidekick_chart().read_bytes())
    sends = chart.iter("{http://www.w3.org/2005/07/scxml}send")
    asked = {send.get("event") for send in sends if send.get("type") == "effect"}

    assert asked, "the chart asks for something"
    assert set(EFFECT_TYPES) == set(FAILPOINTS_OF)
    assert asked <= set(FAILPOINTS_OF)
    assert {point for row in FAILPOINTS_OF.values() for point in row} | set(UNASKED) == set(FAILPOINTS)
    assert not {point for row in FAILPOINTS_OF.values() for point in row} & set(UNASKED)


def test_every_failpoint_is_set_and_every_set_one_is_listed() -> None:
    marks: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoint" and path.stem != "failpoints":
                constants = (one.value for one in ast.walk(node) if isinstance(one, ast.Constant))
                marks |= {one for one in constants if isinstance(one, str)}
    chosen = {"entry.remove", "entry.write"}  # by a variable, in balancers/entry.py

    assert set(FAILPOINTS) | set(AGENT_FAILPOINTS) == marks | chosen
    assert not set(FAILPOINTS) & set(AGENT_FAILPOINTS)


@pytest.fixture
def seen() -> Iterator[list[FailpointHit]]:
    hits: list[FailpointHit] = []
    observe(hits.append)
    yield hits
    observe(None)
    performing("")


def test_a_touch_that_failed_is_not_told_as_done(seen: list[FailpointHit]) -> None:
    performing("balancer.leave")

    with pytest.raises(OSError, match="no"), failpoint("entry.remove"):
        raise OSError("no")

    assert [FailpointHit(point="entry.remove", effect="balancer.leave", when="before")] == seen


def test_an_effect_that_meets_what_its_row_does_not_say_is_an_error(seen: list[FailpointHit]) -> None:
    performing("probe.stop")

    with pytest.raises(AssertionError, match=r"probe\.stop meets entry\.write, which its row doesn't say"):
        failpoint("entry.write").__enter__()
    with pytest.raises(AssertionError, match="isn't in the list"):
        failpoint("entry.paint").__enter__()


def test_threads_that_an_effect_starts_touch_in_its_name(seen: list[FailpointHit]) -> None:
    def touch() -> None:
        with failpoint("turn.take"):
            pass

    performing("lock.acquire")
    work = with_current_effect(touch)
    performing("lock.release")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert {"lock.acquire"} == {one.effect for one in seen}
    assert ["before", "after"] == [one.when for one in seen]


def test_no_exception_is_left_that_nothing_needs() -> None:
    calls: set[str] = set()
    functions: set[tuple[str, str]] = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                calls.add(ast.unparse(node.func))
            elif isinstance(node, ast.FunctionDef):
                functions.add((name_of(path), node.name))

    assert set() == PURE - calls
    assert set() == set(UNDER) - functions
