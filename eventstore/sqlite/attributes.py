"""Attributes of streams, and what a change of them means for the index that searches use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from eventstore.port import Scalar, Timestamp
from eventstore.sqlite.rows import StreamRow

__all__ = ["AttributeChanges"]


class AttributeChange(Struct, gc=False):
    """An attribute of a stream before and after the batch; None: absent."""

    created_at: Timestamp
    old: Scalar
    new: Scalar


class AttributeChanges:
    """What a batch changes of the attributes of its streams."""

    __slots__ = ("_changes",)

    def __init__(self) -> None:
        self._changes: Final[dict[tuple[int, str], AttributeChange]] = {}

    def __bool__(self) -> bool:
        return bool(self._changes)

    def merge(self, row: StreamRow, attributes: Mapping[str, Scalar]) -> None:
        """Set attributes of a stream; None removes one."""
        merged = dict(row.attributes)
        for name, value in attributes.items():
            old = merged.get(name)
            if old is value or (old == value and type(old) is type(value)):
                continue
            if value is None:
                del merged[name]
            else:
                merged[name] = value
            change = self._changes.get((row.id, name))
            if change is None:
                self._changes[row.id, name] = AttributeChange(row.created_at, old, value)
            else:
                change.new = value
            row.changed = True
        row.attributes = merged

    def parameters(self) -> tuple[list[Any], list[Any]]:
        """Flat parameters of the index entries to remove, and of those to add."""
        removed: list[Any] = []
        added: list[Any] = []
        for (stream, name), change in self._changes.items():
            if change.old is not None:
                removed += (name, change.old, change.created_at, stream)
            if change.new is not None:
                added += (name, change.new, change.created_at, stream)
        return removed, added
