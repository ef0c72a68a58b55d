"""A task's function as a name that another process finds it by: its module, what it is called there, and the file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from msgspec import Struct

from engine.errors import DefinitionError
from engine.tasks import Task

__all__ = ["FunctionName", "find", "name_of"]


class FunctionName(Struct, frozen=True):
    """Where a function is found. `file` is for a module that is not found by its name."""

    module: str
    qualname: str
    file: str


def name_of(task: Task[..., Any]) -> FunctionName:
    """The name of a task's function. Raises `DefinitionError`, saying what to do, for one that has none elsewhere."""
    module, qualname = task.fn.__module__, task.fn.__qualname__
    if module == "__main__":
        raise DefinitionError(
            f"{task.where} cannot run in another process: it is defined in the program that was started (`__main__`),"
            " which no other process can import. Move it into a module and import it from there, or start the file with"
            " `holdfast run FILE.py`"
        )
    if "<" in qualname:
        raise DefinitionError(
            f"{task.where} cannot run in another process: {qualname} is made inside a function, where no other process"
            " finds it. Define it at the top of its module"
        )
    loaded = sys.modules.get(module)
    found = None if loaded is None else _inside(loaded, qualname)
    if found is not task.fn and getattr(found, "fn", None) is not task.fn:
        raise DefinitionError(
            f"{task.where} cannot run in another process: {module}.{qualname} is {found!r} there, not the task's"
            " function. Let the name stand for the task, or for the function it was made of"
        )
    return FunctionName(module, qualname, getattr(loaded, "__file__", None) or "")


def find(name: FunctionName) -> Task[..., Any]:
    """The task of that name, its module imported. Raises `DefinitionError` when there is none here."""
    try:
        module = sys.modules.get(name.module) or _imported(name)
        found = _inside(module, name.qualname)
    except Exception as error:
        raise DefinitionError(f"a worker process cannot load {name.module!r}, with {name.qualname}: {error}") from error
    if isinstance(found, Task):
        return found
    if callable(found):
        return Task(found)
    raise DefinitionError(f"a worker process finds no function {name.qualname} in {name.module!r}")


def _imported(name: FunctionName) -> ModuleType:
    if not name.file or _file_of(name.module) == Path(name.file):
        return importlib.import_module(name.module)
    # A file that was loaded by its path (a target of the command line) is found by its path again.
    spec = importlib.util.spec_from_file_location(name.module, name.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name.file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name.module] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name.module]
        raise
    return module


def _file_of(module: str) -> Path | None:
    """Where an import would find it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin)


def _inside(module: ModuleType, qualname: str) -> Any:
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found
