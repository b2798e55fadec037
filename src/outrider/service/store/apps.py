"""Apps: an instance is an instance of one app."""

import uuid
from dataclasses import dataclass

import msgspec

from outrider.core.errors import ConfigError, Conflict, NotFound
from outrider.core.omaha import app_key
from outrider.model.documents import App, Product
from outrider.model.keys import check_part
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import Saved, StoreContext, absent_app, app_id_of, checked_text, direct, some


@dataclass(frozen=True, slots=True, kw_only=True)
class Apps:
    """The apps of one key prefix."""

    context: StoreContext
    auditing: Auditing

    def list(self) -> tuple[App, ...]:
        """All apps, by id."""
        return self.context.children(App, self.context.keys.apps())

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
        return self.context.get(App, self.context.keys.app(app_id_of(app)))

    def create(
        self, *, app: str | None = None, label: str = "", description: str = "", product_id: str | None = None
    ) -> App:
        """Add an app. Its default id is a random UUID, its default label is the id.

        Raises:
            ConfigError: a text or the product id is invalid.
            Conflict: the id or the product id is taken.
        """
        app_id = app_id_of(app) if app else str(uuid.uuid4())

        def attempt(change: Change) -> App:
            key = self.context.keys.app(app_id)
            if change.read(App, key) is not None:
                raise Conflict(f"app {app_id!r} exists already; change it with `app update`")
            self._leave_to_products(change, app_id)
            new = self._new(app_id, label, description)
            return self._with_product(change, new, product_id)

        return apply(self.context.cluster, attempt, self.auditing)

    def save(
        self,
        app: str,
        *,
        label: str | None = None,
        description: str | None = None,
        product_id: str | None = None,
    ) -> Saved[App]:
        """Change an app, or add it when there is none. None keeps a value; an empty product id removes the product id.

        Raises:
            ConfigError: a text or the product id is invalid.
            Conflict: the product id is taken.
        """
        app_id = app_id_of(app)

        def attempt(change: Change) -> Saved[App]:
            key = self.context.keys.app(app_id)
            old = change.read(App, key)
            if old is None:
                self._leave_to_products(change, app_id)
            base = old or self._new(app_id, label or "", description or "")
            new = msgspec.structs.replace(
                base,
                label=base.label if label is None else checked_text("label", label) or app_id,
                description=base.description if description is None else checked_text("description", description),
            )
            return Saved(document=self._with_product(change, new, product_id), created=old is None)

        return apply(self.context.cluster, attempt, self.auditing)

    def delete(self, app: str) -> App:
        """Remove an unused app, with its blocks.

        Raises:
            NotFound: there is none.
            Conflict: it has groups, channels, packages or instances; the message names them.
        """
        app_id = app_id_of(app)
        keys = self.context.keys

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
                raise Conflict(f"app {app_id!r} is in use by {'; '.join(uses)}; delete those first")
            change.delete(keys.app(app_id))
            if old.product_id is not None:
                change.delete(keys.product(old.product_id))
            change.delete_below(keys.instances(app_id))
            change.delete_below(keys.blocks(app_id))
            change.delete_below(keys.verdicts(app_id))
            change.delete_below(keys.proofs(app_id))
            change.delete_below(keys.app_environments(app_id))
            change.delete_below(keys.all_frames(app_id))
            change.delete_below(keys.running(app_id))
            change.delete_below(keys.app_tasks(app_id))
            change.delete_below(keys.oldest_of(app_id))
            change.delete_below(keys.all_signatures(app_id))
            change.delete(keys.key_lists(app_id))
            change.delete_below(keys.client_tokens(app_id))
            return old

        return apply(self.context.cluster, attempt, self.auditing)

    def _with_product(self, change: Change, app: App, product_id: str | None) -> App:
        """Write the app, and the key that maps its product id to it."""
        keys = self.context.keys
        if product_id is not None:
            wanted = _checked_product(product_id)
            if app.product_id is not None and app.product_id != wanted:
                change.delete(keys.product(app.product_id))
            if wanted is not None:
                if change.read(App, keys.app(wanted)) is not None:
                    raise Conflict(f"product id {wanted!r} is already the id of another app")
                taken = change.read(Product, keys.product(wanted))
                if taken is not None and taken.app != app.id:
                    raise Conflict(f"product id {wanted!r} already belongs to app {taken.app}")
                change.put(keys.product(wanted), Product(app=app.id))
            app = msgspec.structs.replace(app, product_id=wanted)
        change.put(keys.app(app.id), app)
        return app

    def _leave_to_products(self, change: Change, app_id: str) -> None:
        """Refuse an id by which clients call another app."""
        taken = change.read(Product, self.context.keys.product(app_id))
        if taken is not None:
            raise Conflict(f"app id {app_id!r} is already the product id of app {taken.app}; use another id")

    def _new(self, app_id: str, label: str, description: str) -> App:
        return App(
            id=app_id,
            label=checked_text("label", label) or app_id,
            description=checked_text("description", description),
            created=self.context.now(),
        )


def _checked_product(text: str) -> str | None:
    """A product id as it is stored, in lower case; None for an empty one."""
    product = app_key(text)
    if not product:
        return None
    if "." not in check_part("product id", product):
        raise ConfigError(f"product id {text!r}: write a reverse-DNS name, for example io.example.web")
    return product
