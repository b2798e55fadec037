"""What the audit log calls a changed document, by its key.

Targets are not recorded, because they follow from recorded documents; nor are writes of instances and sidekicks.
"""

_NOUNS = {
    ("apps", 2): "app",
    ("packages", 4): "package",
    ("signatures", 4): "signature",
    ("key-lists", 3): "key list",
    ("channels", 4): "channel",
    ("groups", 4): "group",
    ("frames", 3): "frames",
    ("instances", 3): "instance",
    ("blocks", 3): "release",
    ("gone", 3): "removal",
    ("commands", 3): "command",
    ("tasks", 5): "task",
    ("oldest", 3): "oldest version",
    ("client-tokens", 3): "client token",
    ("users", 2): "user",
    ("sessions", 2): "session",
    ("page-links", 2): "page link",
    ("webhooks", 2): "webhook",
    ("payloads", 2): "payload",
}
NOUNS = tuple(sorted({*_NOUNS.values(), "environment", "rollout", "turn"}))
"""Those that are met most, to choose from."""
_OF_NO_APP = frozenset({"users", "sessions", "page-links", "webhooks", "payloads"})
_NOT_RECORDED = frozenset(
    {
        "presence",
        "turns",
        "shared-turns",
        "wakeups",
        "activity",
        "products",
        "unresolved",
        "cluster",
        "verdicts",
        "hawk-nonces",
    }
)
_NOT_RECORDED_OF_A_GROUP = frozenset({"target", "brake", "served", "grants", "deferrals", "unproved"})


def noun_of(below: str) -> tuple[str, str, str] | None:
    """Noun, name and app of a document by its key below the prefix; None when its changes aren't recorded."""
    parts = below.split("/")
    if parts[0] in _NOT_RECORDED:
        return None
    if parts[0] == "audit":
        return ("audit-day", parts[-1], "") if parts[1:2] == ["days"] else None
    app = "" if parts[0] in _OF_NO_APP or len(parts) < 2 else parts[1]
    collection = parts[2] if parts[0] == "apps" and len(parts) > 2 else parts[0]
    if parts[0] == "environments" and len(parts) == 4:
        return "environment", parts[2], app
    noun = _NOUNS.get((collection, len(parts)))
    if noun is not None:
        return noun, parts[-1], app
    if parts[0] == "apps" and len(parts) > 4:
        # A part of a group, a channel or a package with a key of its own, for example a rollout.
        return None if parts[4] in _NOT_RECORDED_OF_A_GROUP else (parts[4], parts[3], app)
    return parts[0], parts[-1], app
