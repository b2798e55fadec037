"""Blocks against what their writers have said: what is in nobody's name ends, and what was taken away comes back.

Every sidekick of an app may write the blocks of the app, and only one instance each verdict (``turns/blocks.py``).
"""

from loguru import logger

from outrider.etcd.seam import CreatedAt, Delete, Entry, ModifiedAt, Put
from outrider.model.activity import ACTIVITY_KEPT_S, Activity, activity_key
from outrider.model.damage import read_or_none
from outrider.model.documents import Block, encode
from outrider.service.store.context import StoreContext
from outrider.turns.blocks import whats_wrong


def check_blocks(context: StoreContext) -> tuple[str, ...]:
    """Compare all of them; returns the keys that were removed or written again.

    A block that can't be read stays: it may be a newer outrider's (P5).
    """
    cluster, keys = context.cluster, context.keys
    verdicts = {entry.key: entry for entry in cluster.list(keys.all_verdicts()).entries}
    blocks = {entry.key: entry for entry in cluster.list(keys.all_blocks()).entries}
    done = []
    for key, entry in blocks.items():
        block = read_or_none(Block, key, entry.value)
        app, _, release = key.removeprefix(keys.all_blocks()).partition("/")
        if block is None:
            continue
        verdict_key = keys.verdict(app, block.instance, release)
        verdict = verdicts.get(verdict_key)
        if wrong := whats_wrong(block, entry, verdict):
            same = ModifiedAt(key=verdict_key, revision=0 if verdict is None else verdict.mod_revision)
            if cluster.txn((ModifiedAt(key=key, revision=entry.mod_revision), same), (Delete(key=key),)).succeeded:
                _report(context, app, block, entry, f"the block of {block.label} counts for nothing: {wrong}")
                done.append(key)
    for key, entry in verdicts.items():
        app, _, rest = key.removeprefix(keys.all_verdicts()).partition("/")
        block = read_or_none(Block, key, entry.value)
        stands = keys.block(app, rest.rpartition("/")[2])
        if block is None or stands in blocks:
            continue
        same = ModifiedAt(key=key, revision=entry.mod_revision)
        again = Put(key=stands, value=entry.value)
        if cluster.txn((CreatedAt(key=stands, revision=0), same), (again,)).succeeded:
            _report(context, app, block, entry, f"the block of {block.label} was taken away in etcd, and stands again")
            done.append(stands)
    return tuple(done)


def _report(context: StoreContext, app: str, block: Block, entry: Entry, text: str) -> None:
    logger.bind(app=app, key=entry.key, instance=block.instance).error(text)
    event = Activity(
        at=context.now(),
        severity="error",
        kind="block-refused",
        app=app,
        group=block.group,
        instance=block.instance,
        version=block.version,
        text=text,
    )
    lease = context.cluster.grant(ACTIVITY_KEPT_S)
    key = activity_key(context.keys, event, entry.mod_revision)
    context.cluster.txn((), (Put(key=key, value=encode(event), lease=lease),))
