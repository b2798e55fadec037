"""Settings files for the sidekicks of a declared group: the group's settings, and each one's own name and folder."""

import re
from pathlib import Path

from outrider.cli.addressing import split
from outrider.cli.declared.reading import read_declaration
from outrider.cli.declared.state import GroupState, State
from outrider.cli.declared.writing import to_toml
from outrider.config.sections import INSTANCE_NAME, INSTANCE_WORDS
from outrider.core.errors import ConfigError, NotFound
from outrider.service.store.context import app_id_of


def write_settings(declaration: Path, address: str | None, instances: int, folder: Path) -> Path:
    """Write a settings file for each instance; one that is no longer wanted goes.

    Args:
        address: ``APP/GROUP``; None: the only group of the file.
        folder: Gets ``APP/GROUP`` with the files, and the state folders below it.

    Returns:
        The folder with the files, as ``sidekick run --config-dir`` takes it.

    Raises:
        ConfigError: the file is wrong, it has several groups, or a name can't be an instance's.
        NotFound: it has no such group.
    """
    app, group = _group(read_declaration(declaration), address, declaration.name)
    here = folder / app / group.name
    names = [f"{group.name.lower()}-{number}" for number in range(1, instances + 1)]
    if not re.fullmatch(INSTANCE_NAME, names[-1]):
        raise ConfigError(f"group {group.name}: its instances would be called {names[-1]}; use {INSTANCE_WORDS}")
    try:
        here.mkdir(parents=True, exist_ok=True)
        for stale in set(here.glob("*.toml")) - {here / f"{name}.toml" for name in names}:
            stale.unlink()
        for name in names:
            own = {"id": name, "app": app, "group": group.name, "state_dir": str(here / "state" / name)}
            sections = {section: dict(keys) for section, keys in group.sidekick.items()}
            sections["instance"] = own | sections.get("instance", {})
            text = f"# made of {declaration.name} by `outrider sidekick run --file`\n{to_toml(sections)}"
            path = here / f"{name}.toml"
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--dir {error.filename}: {error.strerror}") from error
    return here


def _group(state: State, address: str | None, file: str) -> tuple[str, GroupState]:
    known = {f"{app.id}/{name}": (app.id, group) for app in state.apps.values() for name, group in app.groups.items()}
    if address is None:
        if len(known) != 1:
            raise ConfigError(f"{file} has {len(known)} groups: write which one, of {', '.join(known) or 'none'}")
        return next(iter(known.values()))
    app, *rest = split(address, 2)
    wanted = f"{app_id_of(app)}/{rest[0]}" if rest else ""
    if wanted not in known:
        raise NotFound(f"{file} has no group {address!r}; its groups: {', '.join(known) or 'none'}")
    return known[wanted]
