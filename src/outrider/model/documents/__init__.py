"""The values behind the keys: JSON documents with a schema version, decoded strictly (design, section 5), by noun."""

from outrider.model.documents.base import SCHEMA, D, Document, decode, encode
from outrider.model.documents.commands import DRAIN_S, Command, Verb, Wakeup
from outrider.model.documents.groups import Frames, Group, GroupBlock, IdentityMode, Restarted, Served, Target, Undo
from outrider.model.documents.instances import (
    Admission,
    Crash,
    Gone,
    Happening,
    Instance,
    Presence,
    Stranger,
    unreadable_gone,
)
from outrider.model.documents.packages import (
    App,
    Channel,
    Floor,
    KeyLists,
    Package,
    PackageFile,
    Product,
    Signatures,
    Unresolved,
)
from outrider.model.documents.rollouts import Block, Brake, Deferral, OpenGrant, Proof, Rollout
from outrider.model.documents.servers import Owner, WriteGuard
from outrider.model.documents.turns import BudgetSlot, Contender, Slot, Waiter
from outrider.model.documents.users import Role, User

__all__ = [
    "DRAIN_S",
    "SCHEMA",
    "Admission",
    "App",
    "Block",
    "Brake",
    "BudgetSlot",
    "Channel",
    "Command",
    "Contender",
    "Crash",
    "D",
    "Deferral",
    "Document",
    "Floor",
    "Frames",
    "Gone",
    "Group",
    "GroupBlock",
    "Happening",
    "IdentityMode",
    "Instance",
    "KeyLists",
    "OpenGrant",
    "Owner",
    "Package",
    "PackageFile",
    "Presence",
    "Product",
    "Proof",
    "Restarted",
    "Role",
    "Rollout",
    "Served",
    "Signatures",
    "Slot",
    "Stranger",
    "Target",
    "Undo",
    "Unresolved",
    "User",
    "Verb",
    "Waiter",
    "Wakeup",
    "WriteGuard",
    "decode",
    "encode",
    "unreadable_gone",
]
