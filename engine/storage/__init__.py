"""Where values lie: immutable objects by their content, in a folder or under any URL, tables as Parquet.

A folder and plain values need nothing but the standard library. Tables, and other URLs, are the extra ``assets``:
pyarrow and fsspec, loaded when they are used.
"""

from __future__ import annotations

from engine.storage.blocking import GRACE_SECONDS, BlockingStorage, Swept
from engine.storage.carrying import ParquetTables
from engine.storage.durable import make_folder, sync_folder
from engine.storage.files import ParquetRows, each_parquet_row, parquet_file, whole_file
from engine.storage.formats import VALUE_BYTES_MAX
from engine.storage.places import OBJECT_BYTES_MAX, Draft, Found, Place
from engine.storage.storage import Storage, data_version
from engine.storage.stored import Column, Format, Stored, keys_in

__all__ = [
    "GRACE_SECONDS",
    "OBJECT_BYTES_MAX",
    "VALUE_BYTES_MAX",
    "BlockingStorage",
    "Column",
    "Draft",
    "Format",
    "Found",
    "ParquetRows",
    "ParquetTables",
    "Place",
    "Storage",
    "Stored",
    "Swept",
    "data_version",
    "each_parquet_row",
    "keys_in",
    "make_folder",
    "parquet_file",
    "sync_folder",
    "whole_file",
]
