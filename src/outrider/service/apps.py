"""Apps: what instances are instances of."""

import uuid
from dataclasses import dataclass

import msgspec

from outrider.cluster.documents import App
from outrider.core.errors import Conflict, NotFound
from outrider.service.changes import Change, apply
from outrider.service.nouns import Place, Saved, absent_app, app_id_of, checked_text, some
from outrider.service.targets import direct


@dataclass(frozen=True, slots=True, kw_only=True)
class Apps:
    """The apps of one key prefix."""

    place: Place

    def list(self) -> tuple[App, ...]:
        """All apps, by id."""
        return self.place.children(App, self.place.keys.apps())

    def get(self, app: str) -> App:
        """One app.

        Raises:
            NotFound: there is none.
        """
        found = self.find(app)
        if found is None:
            raise NotFound(absent_app(app))
        return found

    def find(self, app: str) -> App | None:
        """One app, or None."""
        return self.place.get(App, self.place.keys.app(app_id_of(app)))

    def create(self, *, app: str | None = None, label: str = "", description: str = "") -> App:
        """Add an app; without an id it gets a random UUID, without a label its id.

        Raises:
            Conflict: the id is taken.
        """
        app_id = app_id_of(app) if app else str(uuid.uuid4())

        def attempt(change: Change) -> App:
            key = self.place.keys.app(app_id)
            if change.read(App, key) is not None:
                raise Conflict(f"app {app_id!r} exists already; change it with `app update`")
            new = self._new(app_id, label, description)
            change.put(key, new)
            return new

        return apply(self.place.cluster, attempt)

    def save(self, app: str, *, label: str | None = None, description: str | None = None) -> Saved[App]:
        """Change an app's label or description (None keeps it), or add the app when there is none."""
        app_id = app_id_of(app)

        def attempt(change: Change) -> Saved[App]:
            key = self.place.keys.app(app_id)
            old = change.read(App, key)
            base = old or self._new(app_id, label or "", description or "")
            new = msgspec.structs.replace(
                base,
                label=base.label if label is None else checked_text("label", label) or app_id,
                description=base.description if description is None else checked_text("description", description),
            )
            change.put(key, new)
            return Saved(document=new, created=old is None)

        return apply(self.place.cluster, attempt)

    def delete(self, app: str) -> App:
        """Remove an app that nothing uses any more, with its marks of bad releases.

        Raises:
            NotFound: there is none.
            Conflict: it has groups, channels, packages or instances; the line names them.
        """
        app_id = app_id_of(app)
        keys = self.place.keys

        def attempt(change: Change) -> App:
            old = change.require(App, keys.app(app_id), absent_app(app))
            uses = []
            for what, prefix in (
                ("groups", keys.groups(app_id)),
                ("channels", keys.channels(app_id)),
                ("packages", keys.packages(app_id)),
                ("instances", keys.instances(app_id)),
            ):
                names = [entry.key[len(prefix) :] for entry in direct(change.list(prefix).entries, prefix)]
                if names:
                    uses.append(f"{what} {some(names)}")
            if uses:
                raise Conflict(f"app {app_id!r} is in use: {'; '.join(uses)}; delete those first")
            change.delete(keys.app(app_id))
            change.delete_below(keys.instances(app_id))
            change.delete_below(keys.poisons(app_id))
            return old

        return apply(self.place.cluster, attempt)

    def _new(self, app_id: str, label: str, description: str) -> App:
        return App(
            id=app_id,
            label=checked_text("label", label) or app_id,
            description=checked_text("description", description),
            created=self.place.now(),
        )
