"""Moving runs and whole stores, between any two stores, as one file. See docs/moving.md.

It uses what anybody can import from `engine` and `eventstore`.
"""

from __future__ import annotations

from engine.moving.events import ExportBegun, ExportWritten, FileImported
from engine.moving.exporting import Exported, export_to_file
from engine.moving.importing import CheckedExport, Imported, check_export, import_from_file
from engine.moving.progress import MoveProgress

__all__ = [
    "CheckedExport",
    "ExportBegun",
    "ExportWritten",
    "Exported",
    "FileImported",
    "Imported",
    "MoveProgress",
    "check_export",
    "export_to_file",
    "import_from_file",
]
