"""A block of a release as it is written: the block, and its writer's own copy, which proves whose it is.

``blocks/{app}/{release}`` is one key for all instances, so that the transaction which takes a turn can compare it. So
every sidekick of the app may write there. The copy, ``verdicts/{app}/{instance}/{release}``, lies among the keys that
one instance alone may write: a block without the same copy is in nobody's name, and the service removes and reports it.
"""

from outrider.etcd.seam import Entry, Put
from outrider.model.documents import Block, encode
from outrider.model.keys import Keys


def block_puts(keys: Keys, app: str, block: Block, release: str) -> tuple[Put, Put]:
    """The two writes. ``release``: the text for keys of one (``ReleaseId.key``)."""
    value = encode(block)
    return (
        Put(key=keys.block(app, release), value=value),
        Put(key=keys.verdict(app, block.instance, release), value=value),
    )


def whats_wrong(block: Block, entry: Entry, verdict: Entry | None) -> str:
    """Why a block counts for nothing; empty: it counts.

    Args:
        block: What ``entry`` says.
        verdict: Of the instance that it names.
    """
    if not (block.update or block.task):
        return "it names neither a turn nor a task of its writer"
    if verdict is None or verdict.value != entry.value:
        return f"{block.instance} has said nothing of the kind: somebody else wrote it in that name"
    return ""
