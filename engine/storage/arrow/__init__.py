"""Tables as Arrow and Parquet: the only room that imports `pyarrow`. Loaded when a table is written or read, never
before.

It turns tables of any library that speaks Arrow into record batches, writes these to Parquet in bounded memory, and
gives back what the reader asks for. Of polars, pandas and DuckDB it knows what the modules named after them tell.
"""

from __future__ import annotations
