"""A folder with one settings file for each instance, as ``outrider sidekick run --config-dir`` reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outrider.config.load import Loaded, load_settings, settings_files
from outrider.config.sections import Settings
from outrider.core.errors import ConfigError
from outrider.core.omaha import app_key

ONE_INSTANCES = ("OUTRIDER_INSTANCE_ID", "OUTRIDER_INSTANCE_STATE_DIR", "OUTRIDER_INSTANCE_ALIAS")
"""Variables that would give several instances the same name."""

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(slots=True)
class Folder:
    """What the files say, file by file: one that can't be used doesn't keep the others from being read.

    Attributes:
        common: Files that are read before each instance's own.
        loaded: Settings by file, of those that can be used.
        problems: One line by file, of those that can't.
    """

    path: Path
    common: tuple[Path, ...]
    environment: Mapping[str, str]
    loaded: dict[Path, Loaded] = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)
    _seen: Signature = ()

    def read(self, *, again: bool = False) -> bool:
        """Read the files if any has changed since the last time, or ``again`` in any case; whether it did.

        Raises:
            ConfigError: the folder can't be read, or a variable names one instance for all of them.
        """
        for name in ONE_INSTANCES:
            if self.environment.get(name):
                raise ConfigError(f"{name} names one instance, and --config-dir runs several: unset it")
        try:
            files = sorted(settings_files(self.path)) if self.path.is_dir() else None
        except OSError as error:
            raise ConfigError(f"--config-dir {self.path}: {error.strerror}") from error
        if files is None:
            raise ConfigError(
                f"--config-dir {self.path}: no such folder; make it, with one file NAME.toml per instance"
            )
        seen = tuple(_signature(path) for path in (*self.common, *files))
        if seen == self._seen and not again:
            return False
        self._seen = seen
        self.loaded, self.problems = {}, {}
        for path in files:
            try:
                loaded = self._load(path)
                self._require_its_own(path, loaded.settings)
            except ConfigError as problem:
                text = str(problem)
                self.problems[path] = text if path.name in text else f"{path.name}: {text}"
            else:
                self.loaded[path] = loaded
        return True

    def _load(self, path: Path) -> Loaded:
        """The file's settings; it is called like the instance, unless it names it."""
        files = (*self.common, path)
        loaded = load_settings(files, self.environment, {"instance.id": None})
        if loaded.origin["instance.id"] != "default":
            return loaded
        return load_settings(files, self.environment, {"instance.id": path.stem})

    def _require_its_own(self, path: Path, settings: Settings) -> None:
        """Two instances must not be the same, and one process has one connection to etcd, with one lease."""
        for other_path, other in self.loaded.items():
            name, theirs = other_path.name, other.settings
            if _identity(settings) == _identity(theirs):
                raise ConfigError(f"{path.name}: is instance {settings.instance.id!r} of the same app as in {name}")
            if settings.instance.state_dir == theirs.instance.state_dir:
                raise ConfigError(f"{path.name}: instance.state_dir is that of {name}; give each instance its own")
            if settings.etcd != theirs.etcd:
                raise ConfigError(
                    f"{path.name}: [etcd] differs from {name}; the instances of one --config-dir share a connection"
                )
            if settings.lock.ttl_s != theirs.lock.ttl_s:
                raise ConfigError(
                    f"{path.name}: lock.ttl_s differs from {name}; the instances of one --config-dir share a lease"
                )


def _identity(settings: Settings) -> tuple[str, str]:
    return app_key(settings.instance.app), settings.instance.id


def _signature(path: Path) -> tuple[str, int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path), status.st_mtime_ns, status.st_size, status.st_ino
