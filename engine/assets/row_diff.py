"""Which rows one stored table has more than another, in bounded memory: rows are told apart by digests of their values.

Needs pyarrow. Each pass holds the digests of at most `ROWS_AT_ONCE` rows, and looks at those alone; large tables are
read as often as that takes. Columns that only one of them has are not compared; the order of rows does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final

import pyarrow as pa

from engine.assets.comparing import RowChanges
from engine.assets.samples import sample
from engine.errors import AssetError
from engine.storage import BlockingStorage, Stored

__all__ = ["compare_rows"]

ROWS_AT_ONCE: Final = 500_000
ROWS_MAX: Final = 50_000_000
"""Rows of both, above which they are not compared one by one."""
SAMPLE_ROWS: Final = 10
_BATCH_ROWS: Final = 10_000


def compare_rows(
    storage: BlockingStorage, old: Stored, new: Stored, columns: Sequence[str], *, at_once: int = ROWS_AT_ONCE
) -> RowChanges:
    """The rows that were added and removed, by these columns, with a sample of each. Blocks. Raises `AssetError`."""
    total = (old.rows or 0) + (new.rows or 0)
    if total > ROWS_MAX:
        raise AssetError(f"{total:,} rows are more than are compared one by one, which is {ROWS_MAX:,}")
    passes = max(1, -(-total // at_once))
    added = removed = 0
    samples: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for turn in range(passes):
        counts: Counter[int] = Counter()
        for number, _ in _rows(storage, old, columns, turn, passes):
            counts[number] -= 1
        for number, _ in _rows(storage, new, columns, turn, passes):
            counts[number] += 1
        more, less = (+counts), (-counts)
        added, removed = added + more.total(), removed + less.total()
        for stored, left, into in ((new, more, samples[0]), (old, less, samples[1])):
            _take_sample(_rows(storage, stored, columns, turn, passes), left, columns, into)
    return RowChanges(
        added=added, removed=removed, added_rows=tuple(sample(samples[0])), removed_rows=tuple(sample(samples[1]))
    )


def _take_sample(
    rows: Iterator[tuple[int, tuple[Any, ...]]], left: Counter[int], columns: Sequence[str], into: list[dict[str, Any]]
) -> None:
    if not left or len(into) >= SAMPLE_ROWS:
        return
    for number, values in rows:
        if left[number] > 0:
            left[number] -= 1
            into.append(dict(zip(columns, values, strict=True)))
            if len(into) >= SAMPLE_ROWS:
                return


def _rows(
    storage: BlockingStorage, stored: Stored, columns: Sequence[str], turn: int, passes: int
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The rows that are looked at in a turn, each with the number that stands for it."""
    reader = storage.read(stored, pa.RecordBatchReader)
    for batch in reader:
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            piece = batch.slice(start, _BATCH_ROWS)
            for values in zip(*(piece.column(name).to_pylist() for name in columns), strict=True):
                number = int.from_bytes(blake2b(repr(values).encode(), digest_size=8).digest(), "little")
                if number % passes == turn:
                    yield number, values
