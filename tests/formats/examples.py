"""A value for every field of what outrider stores, made from the types alone."""

from typing import Any

import msgspec
from msgspec import inspect

from outrider.core.chart.machine import Snapshot
from outrider.core.omaha import Report
from outrider.core.sidekick.events import AnyEvent
from outrider.core.sidekick.memory import Memory
from outrider.journal.journal import Record
from outrider.model import (
    access,  # noqa: F401 - it imports most families of documents
    activity,
    analysis,
    balancer_agents,
    documents,
    environments,
    epoch,
    history,
    identity,
    oldest,
    running,
    tasks,
)
from outrider.model.documents import Document

NOON = "2026-01-02T12:00:00Z"
MODULES = (
    activity, analysis, balancer_agents, documents, environments, epoch, history, identity, oldest, running, tasks,
)  # fmt: skip


def kinds() -> dict[str, Any]:
    """Name -> type of everything that is stored: documents in etcd, and a sidekick's own files."""
    found: dict[str, Any] = {}
    for module in MODULES:
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Document) and value is not Document:
                found[f"etcd/{name}"] = value
    found |= {"journal/Record": Record, "journal/Snapshot": Snapshot, "journal/Memory": Memory, "outbox/Report": Report}
    for event in AnyEvent.__args__:
        found[f"journal/events/{event.__name__}"] = event
    return dict(sorted(found.items()))


def example(kind: Any) -> Any:
    """A value of the type, as JSON has it, with every field set."""
    return _of(inspect.type_info(kind))


def schema_of(kind: Any) -> dict[str, Any]:
    """What a reader of this version takes, as a JSON Schema without its texts: 3.13 indents docstrings otherwise."""
    return dict(_without_texts(msgspec.json.schema(kind)))


def _without_texts(schema: Any) -> Any:
    # a text's value is a string; a field that is called description has a schema
    if isinstance(schema, list):
        return [_without_texts(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value if key in ("default", "enum") else _without_texts(value)
        for key, value in schema.items()
        if not (key == "description" and isinstance(value, str))
    }


def _of(kind: inspect.Type) -> Any:
    match kind:
        case inspect.StructType() | inspect.DataclassType():
            fields: dict[str, Any] = {one.encode_name: _of(one.type) for one in kind.fields}
            if "schema" in fields:
                fields["schema"] = 1
            return fields
        case inspect.UnionType():
            return _of(next(one for one in kind.types if not isinstance(one, inspect.NoneType)))
        case inspect.LiteralType():
            return kind.values[0]
        case inspect.StrType():
            return "x"
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return 3
        case inspect.FloatType():
            return 1.5
        case inspect.DateTimeType():
            return NOON
        case inspect.DictType():
            return {_of(kind.key_type): _of(kind.value_type)}
        case inspect.ListType() | inspect.SetType() | inspect.FrozenSetType() | inspect.VarTupleType():
            return [_of(kind.item_type)]
        case inspect.TupleType():
            return [_of(one) for one in kind.item_types]
        case inspect.AnyType():
            return "x"
        case _:
            return _more(kind)


def _more(kind: inspect.Type) -> Any:
    match kind:
        case inspect.EnumType():
            return next(iter(kind.cls)).value
        case inspect.BytesType():
            return "eA=="
        case inspect.DateType():
            return NOON.partition("T")[0]
        case inspect.TimeDeltaType():
            return "PT3S"
        case inspect.TimeType():
            return "12:00:00Z"
        case inspect.DecimalType():
            return "1.5"
        case inspect.Metadata():
            return _of(kind.type)
        case inspect.NoneType():
            return None
        case inspect.NamedTupleType():
            return [_of(one.type) for one in kind.fields]
        case _:
            raise TypeError(f"no example of {kind}: add one here")
