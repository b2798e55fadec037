"""Pages and actions as values: what the application routes, and what a new one has to say."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import urlencode

from outrider.core.errors import ConfigError
from outrider.model.damage import read_or_none
from outrider.model.documents import App, Group
from outrider.model.keys import Keys
from outrider.service.context import Context
from outrider.service.history.over_time import Past
from outrider.service.store.context import StoreContext, app_id_of
from outrider.service.store.request import RequestContext
from outrider.service.store.store import Store
from outrider.service.web.doors import Visitor

Kind = Literal["text", "textarea", "number", "checkbox", "select", "hidden", "password"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One look at a page: who, where, and the copy of etcd that it is made from.

    Attributes:
        names: The variable parts of the path, by name.
        query: What stands behind the question mark; of several values the last one.
        context: Reads from the copy.
        ours: The service's parts.
        past: What the history says of groups, some seconds old; it may be asked for each change.
        problems: Asks etcd why the fleet can't be served as it is stored (``/readyz``).
    """

    visitor: Visitor
    names: Mapping[str, str]
    query: Mapping[str, str]
    context: StoreContext
    ours: Context
    past: Past
    problems: Callable[[], tuple[str, ...]]

    @property
    def now(self) -> datetime:
        return self.context.now()

    @property
    def keys(self) -> Keys:
        return self.context.keys

    def app_label(self, app: str) -> str:
        """The app's name for people; its id when it has no other."""
        return self._label(App, app, lambda: self.keys.app(app_id_of(app)))

    def group_label(self, app: str, group: str) -> str:
        """The group's name for people; its id when it has no other."""
        return self._label(Group, group, lambda: self.keys.group(app_id_of(app), group))

    def _label(self, kind: type[App | Group], name: str, key: Callable[[], str]) -> str:
        try:
            entry = self.context.cluster.get(key())
        except ConfigError:  # an event's text, which can't be anybody's id
            return name
        found = None if entry is None else read_or_none(kind, entry.key, entry.value)
        return name if found is None else found.label or name

    @property
    def labels(self) -> Mapping[str, str]:
        """The variable parts of the path as people call them: what titles are filled with."""
        app, group = self.names.get("app"), self.names.get("group")
        if app is None:
            return self.names
        found = {"app": self.app_label(app)} | ({} if group is None else {"group": self.group_label(app, group)})
        return {**self.names, **found}

    def may(self, method: str, path: str) -> bool:
        """Whether the API would let the visitor do that."""
        return self.visitor.may(method, path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page.

    Attributes:
        path: With ``{name}`` for what is variable; one part each.
        template: Below ``templates/``; what may change is in its block ``live``.
        reads: The operation of the API that shows the same: its role, and its limits to apps, are the page's.
        view: Gives the template's facts. Called for each page, and for each turn of its stream; raises ``NotFound``.
        title: Gives the title; ``{name}`` as in the path.
        nav: Its word in the navigation; empty: it isn't there.
        is_live: It has a block ``live``.
        by_app: The operation takes the parameter ``app``; who may see some apps alone sees them one at a time.
    """

    path: str
    template: str
    reads: str
    view: Callable[[Visit], Mapping[str, Any]]
    title: str
    nav: str = ""
    is_live: bool = True
    by_app: bool = False

    def operation(self, visitor: Visitor, names: Mapping[str, str], query: Mapping[str, str]) -> tuple[str, str]:
        """The API's request that shows the same: its method and its path."""
        method, _, path = self.reads.partition(" ")
        path = re.sub(r"\{(\w+)\}", lambda found: names[found[1]], path)
        app = visitor.app_of(query) if self.by_app else ""
        return method, f"{path}?{urlencode({'app': app})}" if app else path


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A picture: an SVG file, which a page shows as an image. ``path``, ``reads``: as a page's."""

    path: str
    reads: str
    draw: Callable[[Visit], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of an action's form.

    Attributes:
        choices: Of a select: value and words.
    """

    name: str
    label: str
    kind: Kind = "text"
    value: str = ""
    help: str = ""
    required: bool = False
    choices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an action is going to do, said before it is done.

    Attributes:
        instances: How many it changes, or stops; None: it is not about instances.
        lines: Sentences.
        refused: Why it can't be done now; empty: it can.
    """

    instances: int | None
    lines: tuple[str, ...]
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """An action that was confirmed.

    Attributes:
        store: Bound to the request, as in the API: what it changes is audited.
        form: What the form says.
    """

    store: Store
    asked: RequestContext
    names: Mapping[str, str]
    form: Mapping[str, str]
    ours: Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something that can be done: first its effect is shown, then it is asked for, then it is done and audited.

    Attributes:
        path: Of its form, with ``{name}`` as a page's.
        operation: The operation of the API that does the same: method and path with the same names. Its role decides.
        title: Of the form, with ``{name}`` for parts of the path.
        button: What the button says: a verb.
        back: The page to which it leads.
        effect: What it is going to do, for what the form says so far.
        do: Does it; returns notes for the person.
        fields: Of the form.
        danger: It stops something, or can't be taken back.
        is_shown_once: What ``do`` returns has a secret: the answer shows it, and nothing keeps it. Links to its form
            have no ``data-dialog``: a page that is live may be loaded again, and forget the answer.
        lint: Says what is wrong with what the form says, while somebody types; None: it is not asked.
    """

    path: str
    operation: str
    title: str
    button: str
    back: str
    effect: Callable[[Visit, Mapping[str, str]], Effect]
    do: Callable[[Doing], Sequence[str]]
    fields: Callable[[Visit], tuple[Field, ...]] = lambda visit: ()
    danger: bool = False
    lint: Callable[[Visit, Mapping[str, str]], Sequence[str]] | None = None
    confirm_template: str = "action.html"
    is_shown_once: bool = False
