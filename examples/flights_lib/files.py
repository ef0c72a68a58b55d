"""Files that appear whole or not at all, and DuckDB on a short lead."""

import csv
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, gone afterwards; what killed attempts left of this kind is cleared away first.

    The name is this thread's own: an attempt that timed out, and still runs, cannot write into the next one's file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path.parent, f".{path.name}.*")
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield temporary
    finally:
        remove(path.parent, f"{temporary.name}*")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name to write to; the file takes its own name when it is complete and safe on the disk."""
    with scratch(path) as temporary:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)


def remove(folder: Path, pattern: str) -> None:
    """Delete files, if they are there."""
    for path in folder.glob(pattern):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, would survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def connect(database: str = ":memory:", **tables: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB that sees some Parquet files as tables.

    It has one thread: tasks run side by side already, and a sum of floats must not depend on the order of threads. And
    it draws no progress bar: the terminal is not its.
    """
    db = duckdb.connect(database, config={"threads": 1, "memory_limit": "1GB", "temp_directory": ""})
    rows(db, "SET enable_progress_bar = false")
    for name, path in tables.items():
        rows(db, f"CREATE VIEW {name} AS FROM read_parquet({text(path)})")
    return db


def rows(db: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    """Run one statement to its end."""
    return db.execute(sql).fetchall()


def text(value: object) -> str:
    """An SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def csv_source(path: Path, columns: dict[str, str]) -> str:
    """The SQL for the rows of a CSV file, which must have these columns, in this order and of these DuckDB types."""
    with path.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file), [])
    if header != list(columns):
        raise ValueError(f"{path.name} has the columns {', '.join(header)}; expected {', '.join(columns)}")
    form = """auto_detect=false, header=true, delim=',', quote='"', escape='"', nullstr=['NA', '']"""
    return f"read_csv({text(path)}, columns={columns}, {form})"


def save(db: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """The query's rows as a Parquet file, whole or not at all."""
    with written_whole(path) as temporary:
        rows(db, f"COPY ({query}) TO {text(temporary)} (FORMAT parquet, USE_TMP_FILE false)")


_one_at_a_time = threading.Lock()  # of this process's threads; other processes are kept out by DuckDB's own file lock


@contextmanager
def database(path: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB file, alone, for one transaction: all of it is committed or, killed at any point, none."""
    with _one_at_a_time, connect(path) as db:
        db.begin()
        yield db
        db.commit()


def create_database(path: Path, *statements: str) -> None:
    """Make a DuckDB file, unless it is there. It appears with all that is in it: a kill leaves no half of it."""
    with _one_at_a_time:
        if not path.exists():
            path.with_name(f"{path.name}.wal").unlink(missing_ok=True)  # of a file that somebody has deleted
            with written_whole(path) as temporary, connect(str(temporary)) as db:
                for statement in statements:
                    rows(db, statement)
