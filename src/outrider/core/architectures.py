"""Names of architectures: every client has its own; stored and compared are Nebraska's."""

from outrider.core.errors import ConfigError

ANY = "all"
_MAX_WORD = 32
_NAMES = {
    "amd64": ("amd64", "amd64-usr", "x64", "x86_64", "x86-64"),
    "aarch64": ("aarch64", "arm64", "arm64-usr", "arm"),
    "x86": ("x86", "386", "i386", "i686"),
    "riscv64": ("riscv64",),
    "ppc64le": ("ppc64le",),
    "s390x": ("s390x",),
}
_KNOWN = {spelling: name for name, spellings in _NAMES.items() for spelling in spellings}


def architecture_of(board: str, arch: str, service_pack: str = "") -> str:
    """What a request says of its machine, in our words; empty when it says nothing.

    A word that isn't in the table stays as it is: no package is for it.

    Args:
        board: The app's ``board``, which wins (``amd64-usr``).
        arch: The ``os`` element's.
        service_pack: update_engine's ``sp``, ``VERSION_MACHINE`` with the kernel's name of the machine.

    Source: update_engine omaha_request_action.cc; go-omaha system.go; Nebraska types/arch.go.
    """
    for said in (board, arch, service_pack.partition("_")[2]):
        known = _KNOWN.get(said.strip().lower())
        if known is not None:
            return known
    # A service pack is no such word: on other systems it is the number of one.
    words = ("".join(letter for letter in said.strip().lower() if letter.isprintable()) for said in (board, arch))
    return next((word[:_MAX_WORD] for word in words if word), "")


def checked_architecture(text: str) -> str:
    """Return a package's architecture in our words.

    Raises:
        ConfigError: no machine has it.
    """
    name = _KNOWN.get(text.strip().lower(), "")
    if not name and text != ANY:
        raise ConfigError(f"arch {text!r}: write {ANY} or one of {', '.join(_NAMES)}")
    return name or ANY
