"""Bugs that are planted where the workload runs, or in what its recording says: each must be found in the images.

A check that cannot fail proves nothing. `plant` is called in the process that is recorded; those of `LYING` are disks that
say that they have synced the log, the database or the directory, and have not: `lies` takes those syncs out of a recording.
"""

from __future__ import annotations

from typing import Any

from eventstore.sqlite import store, transaction
from tests.power.trace import DirectorySync, Op, Sync

PLANTED = {
    "off": "synchronous=OFF: nothing is ever synced",
    "normal": "synchronous=NORMAL, the option that says that it may lose what was acknowledged",
    "half": "what a commit sends is written in a transaction of its own",
}
LYING = {
    "lying-log": "a disk that says that it has synced the log, and has not",
    "lying-database": "the same of the database",
    "lying-directory": "the same of the directory",
}
OF_VALUES = {
    "lying-values": "the same of large values",
    "lying-folders": "the same of the folders that they lie in",
}
ALL = PLANTED | LYING | OF_VALUES


def plant(canary: str) -> Any:
    """The level of `synchronous` to open with, the bug planted; "EXTRA" and nothing when there is none."""
    match canary:
        case "off":
            store.is_synchronous = lambda _: True
            return "OFF"
        case "full":
            return "FULL"  # no bug
        case "normal":
            return "NORMAL"
        case "half":
            _in_two_transactions()
    return "EXTRA"


def _in_two_transactions() -> None:
    insert = transaction.insert_messages

    def later(connection: Any, flat: Any) -> None:
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        insert(connection, flat)

    transaction.insert_messages = later


def lies(canary: str, ops: list[Op], names: dict[int, str]) -> list[Op]:
    """The recording without the syncs that such a disk does not do. `names` are those of the files, by number."""

    def kept(op: Op) -> bool:
        match op:
            case Sync(file=file):
                return canary != _of_file(names[file])
            case DirectorySync(folder=folder):
                return canary != ("lying-folders" if folder else "lying-directory")
        return True

    return [op for op in ops if kept(op)] if canary in LYING | OF_VALUES else ops


def _of_file(name: str) -> str:
    """The canary that is about a file of this name; a value is written as a draft."""
    if name.endswith(".part"):
        return "lying-values"
    return "lying-log" if name.endswith("-wal") else "lying-database"
