"""joblib, for those who ask for it by name: ``format="joblib"``, when writing and when reading.

The one module here that lets a pickle be read, which runs whatever is in it: for models and the like that have no other
form. Nothing reaches it unless its name is given; no history, message or default ever does.
"""

from __future__ import annotations

from platform import python_version
from typing import IO, Any, Final

import joblib

from engine.errors import StorageError, StorageRefused

__all__ = ["WRITER", "dump", "load"]

WRITER: Final = f"joblib {joblib.__version__}, python {python_version()}"


def dump(value: Any, file: Any) -> None:
    """Write the value. Raises `StorageRefused` for what cannot be pickled."""
    try:
        joblib.dump(value, file)
    except StorageError:
        raise
    except Exception as error:  # what a value's own way of being pickled raises
        raise StorageRefused(f"joblib cannot write this {type(value).__qualname__}: {error}") from error


def load(file: IO[bytes]) -> Any:
    """Run what is in the file, and return the value. Raises what that raises."""
    return joblib.load(file)
