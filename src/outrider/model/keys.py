"""Every etcd key that outrider writes, spelled in one place (design, section 5).

Names in keys are checked here: a part never holds ``/`` and is never empty, so one key can't be read as another.

A *scope* is where turns are counted: a group's own, or one that an operator named for several groups. It is a path
below the prefix that ``group_scope`` or ``shared_scope`` made. Nothing takes it apart again: code that needs the app,
the group or the scope's name reads them in the documents.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from outrider.core.errors import ConfigError

DEFAULT_PREFIX = "/outrider/v1"
_WORD = r"[A-Za-z0-9][A-Za-z0-9._+@:-]{0,127}"
_PART = re.compile(_WORD)
_SCOPE = re.compile(rf"turns/{_WORD}/{_WORD}|shared-turns/{_WORD}")
_MEMBER = re.compile(rf"({_WORD}/)?{_WORD}")


@lru_cache(maxsize=8192)  # a check-in names the same few parts dozens of times
def check_part(what: str, text: str) -> str:
    """Return ``text`` if it may be a part of a key, else raise.

    Raises:
        ConfigError: empty, longer than 128 characters, or with characters outside ``A-Z a-z 0-9 . _ + @ : -``.
    """
    if not _PART.fullmatch(text):
        raise ConfigError(
            f"{what} {text!r}: use 1 to 128 letters, digits or . _ + @ : - and begin with a letter or a digit"
        )
    return text


@lru_cache(maxsize=1024)
def check_app(app: str) -> str:
    """Return ``app`` if it is the canonical key of an app, else raise.

    Raises:
        ConfigError: it can't be a part of a key.
        ValueError: it is spelled as a person may spell it; call ``core.omaha.app_key`` first.
    """
    # What ``app_key`` changes besides case, braces and blanks around a name, is never a part of a key.
    if check_part("app", app) != app.lower():
        raise ValueError(f"app {app!r}: not the canonical key {app.lower()!r}; apply app_key() first")
    return app


def group_scope(app: str, group: str) -> str:
    """Return the scope in which the instances of one group take turns. ``app`` is canonical."""
    return f"turns/{check_app(app)}/{check_part('group', group)}"


def shared_scope(name: str) -> str:
    """Return the scope that an operator named: for instances of any app and group (``[lock] scope``)."""
    return f"shared-turns/{check_part('scope', name)}"


def _check_scope(scope: str) -> str:
    if not _SCOPE.fullmatch(scope):
        raise ValueError(f"scope {scope!r}: make it with group_scope() or shared_scope()")
    return scope


def _check_member(member: str) -> str:
    if not _MEMBER.fullmatch(member):
        raise ConfigError(f"instance {member!r}: use 1 to 128 letters, digits or . _ + @ : -")
    return member


@dataclass(frozen=True, slots=True)
class Keys:
    """Builds keys below ``prefix`` (no slash at its end)."""

    prefix: str = DEFAULT_PREFIX

    def apps(self) -> str:
        """Prefix of all app documents and of what is below them."""
        return f"{self.prefix}/apps/"

    def app(self, app: str) -> str:
        return f"{self.prefix}/apps/{check_app(app)}"

    def product(self, product: str) -> str:
        return f"{self.prefix}/products/{check_part('product id', product)}"

    def packages(self, app: str) -> str:
        return f"{self.app(app)}/packages/"

    def package(self, app: str, version: str) -> str:
        return self.packages(app) + check_part("version", version)

    def signatures(self, app: str, version: str) -> str:
        """What was signed of a package. Beside it, for sidekicks read it, and the target holds no more than digests."""
        return f"{self.all_signatures(app)}{check_part('version', version)}"

    def key_lists(self, app: str) -> str:
        """Which keys of an app took the place of which."""
        return f"{self.app(app)}/key-lists"

    def all_signatures(self, app: str) -> str:
        """Prefix of what was signed of an app's packages."""
        return f"{self.app(app)}/signatures/"

    def all_unresolved(self) -> str:
        """Prefix of the packages of all apps whose image has no digest yet."""
        return f"{self.prefix}/unresolved/"

    def unresolved(self, app: str, version: str) -> str:
        return f"{self.all_unresolved()}{check_app(app)}/{check_part('version', version)}"

    def proof(self, app: str, release: str) -> str:
        """The record of the first instance that has committed a release: what a block compares as absent."""
        return f"{self.app(app)}/releases/{check_part('release', release)}/proved"

    def proofs(self, app: str) -> str:
        """Prefix of what is recorded of an app's releases."""
        return f"{self.app(app)}/releases/"

    def channels(self, app: str) -> str:
        return f"{self.app(app)}/channels/"

    def channel(self, app: str, channel: str) -> str:
        return self.channels(app) + check_part("channel", channel)

    def groups(self, app: str) -> str:
        return f"{self.app(app)}/groups/"

    def group(self, app: str, group: str) -> str:
        return self.groups(app) + check_part("group", group)

    def unproved(self, app: str, group: str) -> str:
        """Check-ins of the group that were not proved."""
        return f"{self.group(app, group)}/unproved"

    def client_tokens(self, app: str) -> str:
        """Prefix of the tokens of an app's Omaha clients."""
        return f"{self.prefix}/client-tokens/{check_app(app)}/"

    def client_token(self, app: str, token_id: str) -> str:
        return self.client_tokens(app) + check_part("client token", token_id)

    def target(self, app: str, group: str) -> str:
        """The target of the group, which every sidekick of the group watches."""
        return f"{self.group(app, group)}/target"

    def rollout(self, app: str, group: str) -> str:
        return f"{self.group(app, group)}/rollout"

    def grants(self, app: str, group: str) -> str:
        return f"{self.group(app, group)}/grants/"

    def grant(self, app: str, group: str, instance: str) -> str:
        return self.grants(app, group) + check_part("instance", instance)

    def served(self, app: str, group: str) -> str:
        """The versions whose rollouts finished in the group."""
        return f"{self.group(app, group)}/served"

    def environments(self, app: str, group: str) -> str:
        """Prefix of the environments of a group; beside the group, for what is below it is read at every check-in."""
        return f"{self.app_environments(app)}{check_part('group', group)}/"

    def app_environments(self, app: str) -> str:
        """Prefix of the environments of all groups of an app."""
        return f"{self.prefix}/environments/{check_app(app)}/"

    def environment(self, app: str, group: str, number: int) -> str:
        """One of them; the numbers sort as text."""
        return f"{self.environments(app, group)}{number:010}"

    def analysis(self, app: str, group: str) -> str:
        """What the group's instances have counted together of a release under analysis."""
        return f"{self.prefix}/analysis/{check_app(app)}/{check_part('group', group)}"

    def frames(self, app: str, group: str) -> str:
        """Frames of the group's rollout; beside the group, for they are read only while they are active."""
        return f"{self.all_frames(app)}{check_part('group', group)}"

    def all_frames(self, app: str) -> str:
        """Prefix of the frames of all groups of an app."""
        return f"{self.prefix}/frames/{check_app(app)}/"

    def brake(self, app: str, group: str) -> str:
        """What a pause, a halt and their ends write; every turn for an update is taken against its revision."""
        return f"{self.group(app, group)}/brake"

    def deferrals(self, app: str, group: str) -> str:
        """Prefix of the deferred instances, in order of their create revisions."""
        return f"{self.group(app, group)}/deferrals/"

    def deferral(self, app: str, group: str, instance: str) -> str:
        return self.deferrals(app, group) + check_part("instance", instance)

    def instances(self, app: str) -> str:
        return f"{self.prefix}/instances/{check_app(app)}/"

    def instance(self, app: str, instance: str) -> str:
        return self.instances(app) + check_part("instance", instance)

    def all_presences(self) -> str:
        """Prefix of all sidekicks that are alive, of every app."""
        return f"{self.prefix}/presence/"

    def presences(self, app: str) -> str:
        return f"{self.all_presences()}{check_app(app)}/"

    def presence(self, app: str, group: str, instance: str) -> str:
        return f"{self.presences(app)}{check_part('group', group)}/{check_part('instance', instance)}"

    def strangers(self, app: str) -> str:
        """Prefix of the living sidekicks of an app that may not be the instances that they say they are."""
        return f"{self.prefix}/strangers/{check_app(app)}/"

    def strangers_of(self, app: str, instance: str) -> str:
        """Prefix of those that say that they are one instance."""
        return f"{self.strangers(app)}{check_part('instance', instance)}/"

    def stranger(self, app: str, instance: str, process: str) -> str:
        return self.strangers_of(app, instance) + check_part("process", process)

    def epoch(self) -> str:
        """A token that the service renews: by it a restored etcd is noticed."""
        return f"{self.prefix}/cluster/epoch"

    def confirmed(self) -> str:
        """A token that a service writes to learn how far its watch is."""
        return f"{self.prefix}/cluster/confirmed"

    def gone(self, app: str, instance: str) -> str:
        """The marker of an instance that is gone for good: every join, enqueue, grant and presence compares it."""
        return f"{self.prefix}/gone/{check_app(app)}/{check_part('instance', instance)}"

    def admission(self, app: str, instance: str) -> str:
        """The last admission of an instance that had gone: a removal that was said before it is carried out no more."""
        return f"{self.prefix}/admissions/{check_app(app)}/{check_part('instance', instance)}"

    def running(self, app: str) -> str:
        """Prefix of what may still run of an app, and where."""
        return f"{self.prefix}/running/{check_app(app)}/"

    def running_in(self, app: str, group: str) -> str:
        """The same of one group."""
        return f"{self.running(app)}{check_part('group', group)}/"

    def running_of(self, app: str, group: str, instance: str) -> str:
        """The same of one instance: before the release, so that etcd's roles can give each instance its own."""
        return f"{self.running_in(app, group)}{check_part('instance', instance)}/"

    def running_at(self, app: str, group: str, release: str, instance: str) -> str:
        """``release``: the text for keys of one (``ReleaseId.key``)."""
        return self.running_of(app, group, instance) + check_part("release", release)

    def oldest_of(self, app: str) -> str:
        """Prefix of the oldest versions that may run of an app."""
        return f"{self.prefix}/oldest/{check_app(app)}/"

    def oldest(self, app: str, group: str) -> str:
        """The oldest version that may run in a group. Empty: in every group of the app; no group has such a name."""
        return self.oldest_of(app) + (check_part("group", group) if group else "@app")

    def all_tasks(self) -> str:
        """Prefix of the tasks of all apps."""
        return f"{self.prefix}/tasks/"

    def app_tasks(self, app: str) -> str:
        """Prefix of the tasks of an app."""
        return f"{self.all_tasks()}{check_app(app)}/"

    def tasks(self, app: str, group: str) -> str:
        """Prefix of the tasks of a group. Empty: those that run once for the whole app; no group has such a name."""
        return f"{self.app_tasks(app)}{check_part('group', group) if group else '@app'}/"

    def task(self, app: str, group: str, sha256: str, task: str) -> str:
        """The claim of a task (``TaskSpec.part``) for a payload."""
        return f"{self.tasks(app, group)}{check_part('digest', sha256)}/{check_part('task', task)}"

    def all_servers(self) -> str:
        """Prefix of the write guards of all servers, of every app."""
        return f"{self.prefix}/servers/"

    def wakeup(self, app: str, instance: str) -> str:
        return f"{self.prefix}/wakeups/{check_app(app)}/{check_part('instance', instance)}"

    def all_group_turns(self) -> str:
        """Prefix of the queues and slots of all groups' own scopes."""
        return f"{self.prefix}/turns/"

    def all_shared_turns(self) -> str:
        """Prefix of the queues and slots of all scopes that operators named."""
        return f"{self.prefix}/shared-turns/"

    def app_turns(self, app: str) -> str:
        """Prefix of the queues and slots of the own scopes of an app's groups."""
        return f"{self.all_group_turns()}{check_app(app)}/"

    def turns(self, scope: str) -> str:
        """Prefix of one scope's queue and slots."""
        return f"{self.prefix}/{_check_scope(scope)}/"

    def queue(self, scope: str) -> str:
        return f"{self.turns(scope)}queue/"

    def waiter(self, scope: str, member: str) -> str:
        """The place of ``member`` (``documents.Contender.member``) in the queue."""
        return self.queue(scope) + _check_member(member)

    def ticket(self, scope: str, member: str) -> str:
        """What a member's first write to the queue goes through: once closed it refuses the write forever."""
        return f"{self.prefix}/tickets/{_check_scope(scope)}/{_check_member(member)}"

    def slots(self, scope: str) -> str:
        return f"{self.turns(scope)}slots/"

    def slot_of_number(self, scope: str, number: int) -> str:
        """Prefix of the one key that takes a slot; taking it compares that there is none."""
        return f"{self.slots(scope)}{number}/"

    def slot(self, scope: str, number: int, member: str) -> str:
        """The turn of ``member``; its name is a part of the key, so that etcd's roles can give each its own."""
        return self.slot_of_number(scope, number) + _check_member(member)

    def budgets(self, scope: str) -> str:
        """Prefix of the slots of all disruption budgets of a scope."""
        return f"{self.turns(scope)}budgets/"

    def budget(self, scope: str, label: str, value: str) -> str:
        """Prefix of the slots of one value of a label, in which no character of the label can be taken for a slash."""
        return f"{self.budgets(scope)}{quote(label, safe='')}={quote(value, safe='')}/slots/"

    def server(self, service: str, server_id: str) -> str:
        """The write guard of a server's entry; ``service`` is the balancer's name for the app's pool."""
        return f"{self.prefix}/servers/{check_part('service', service)}/{check_part('server id', server_id)}"

    def all_blocks(self) -> str:
        """Prefix of the blocked releases of every app."""
        return f"{self.prefix}/blocks/"

    def servers(self, service: str) -> str:
        """Prefix of the write guards of a service's servers, and of the entries that balancer agents apply."""
        return f"{self.all_servers()}{check_part('service', service)}/"

    def server_entry(self, service: str, server_id: str) -> str:
        """A server's entry for balancer agents: beside the write guard, and below its key."""
        return f"{self.server(service, server_id)}/entry"

    def all_agents(self) -> str:
        """Prefix of the registered balancer agents of all services."""
        return f"{self.prefix}/agents/"

    def agents(self, service: str) -> str:
        return f"{self.all_agents()}{check_part('service', service)}/"

    def agent(self, service: str, agent: str) -> str:
        """A balancer agent's registration, which stays until an operator removes it."""
        return self.agents(service) + check_part("agent", agent)

    def all_applied(self) -> str:
        """Prefix of what the living balancer agents of all services have applied."""
        return f"{self.prefix}/applied/"

    def applied_by(self, service: str) -> str:
        """Prefix of what the living agents of a service have applied."""
        return f"{self.all_applied()}{check_part('service', service)}/"

    def applied(self, service: str, agent: str) -> str:
        """What an agent has applied, under its lease."""
        return self.applied_by(service) + check_part("agent", agent)

    def blocks(self, app: str) -> str:
        return f"{self.all_blocks()}{check_app(app)}/"

    def block(self, app: str, release: str) -> str:
        """``release``: the text for keys of one (``ReleaseId.key``)."""
        return self.blocks(app) + check_part("release", release)

    def all_verdicts(self) -> str:
        """Prefix of what the instances of every app have said themselves when they blocked releases."""
        return f"{self.prefix}/verdicts/"

    def verdicts(self, app: str) -> str:
        return f"{self.all_verdicts()}{check_app(app)}/"

    def verdicts_of(self, app: str, instance: str) -> str:
        """Those of one instance, which its role alone may write (and the service's)."""
        return f"{self.verdicts(app)}{check_part('instance', instance)}/"

    def verdict(self, app: str, instance: str, release: str) -> str:
        """The instance's own copy of its block of ``release``: a block without it is nobody's, and ends."""
        return self.verdicts_of(app, instance) + check_part("release", release)

    def command(self, app: str, instance: str) -> str:
        return f"{self.prefix}/commands/{check_app(app)}/{check_part('instance', instance)}"

    def all_crashes(self) -> str:
        """Prefix of the same of all apps."""
        return f"{self.prefix}/crashes/"

    def crashes(self, app: str) -> str:
        """Prefix of the last words of an app's sidekicks that ended unexpectedly."""
        return f"{self.prefix}/crashes/{check_app(app)}/"

    def crash(self, app: str, instance: str) -> str:
        return self.crashes(app) + check_part("instance", instance)

    def activity(self, app: str) -> str:
        return f"{self.prefix}/activity/{check_app(app)}/"

    def users(self) -> str:
        return f"{self.prefix}/users/"

    def user(self, name: str) -> str:
        return self.users() + check_part("user", name)

    def hawk_nonce(self, user: str, digest: str) -> str:
        """A nonce of Hawk that a user's request has used; it lives as long as its time counts."""
        return f"{self.prefix}/hawk-nonces/{check_part('user', user)}/{check_part('nonce', digest)}"

    def users_existed(self) -> str:
        """The marker that there was a user: without one, the API stays closed. No restore removes it."""
        return f"{self.prefix}/cluster/users-existed"

    def sessions(self) -> str:
        """Prefix of the sessions of the web page, by the digests of their cookies, each under a lease."""
        return f"{self.prefix}/sessions/"

    def session(self, digest: str) -> str:
        return self.sessions() + check_part("session", digest)

    def page_link(self, digest: str) -> str:
        """A link that begins a session once, by the digest of its secret, under a lease of a minute."""
        return f"{self.prefix}/page-links/{check_part('page link', digest)}"

    def audit_days(self) -> str:
        """Prefix of the days that have entries in the audit log."""
        return f"{self.prefix}/audit/days/"

    def audit_heads(self) -> str:
        """Prefix of the last entries of the audit log's chains."""
        return f"{self.prefix}/audit/heads/"

    def audit_entries(self, day: str) -> str:
        """Prefix of one day's entries in the audit log; ``day`` is ``YYYY-MM-DD``."""
        return f"{self.prefix}/audit/entries/{check_part('day', day)}/"

    def all_history(self) -> str:
        """Prefix of the chunks of history of all groups."""
        return f"{self.prefix}/history/"

    def app_history(self, app: str) -> str:
        """Prefix of the chunks of an app's groups."""
        return f"{self.all_history()}{check_app(app)}/"

    def history(self, app: str, group: str) -> str:
        """Prefix of a group's chunks, in the order of the revisions that they tell of."""
        return f"{self.app_history(app)}{check_part('group', group)}/"

    def chunk(self, app: str, group: str, number: int) -> str:
        """The chunk whose first step came at the revision ``number``."""
        return f"{self.history(app, group)}{number:016x}"

    def history_seen(self) -> str:
        """A revision up to which everything is in the history."""
        return f"{self.prefix}/history-seen"

    def all_steps(self) -> str:
        """Prefix of what the living sidekicks tell of their last updates."""
        return f"{self.prefix}/steps/"

    def steps(self, app: str, group: str, instance: str) -> str:
        """What a sidekick tells of its last update, under its lease."""
        return f"{self.all_steps()}{check_app(app)}/{check_part('group', group)}/{check_part('instance', instance)}"
