"""A target (``FILE.py``, ``FILE.py:workflow``, ``module:workflow``) as the workflows in it.

A file is loaded by its path, under its own name (never ``__main__``), with its folder importable, as Python does for a
script. Loading runs the user's code: what it raises is told with the lines of that code, not with ours.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from msgspec import Struct

from engine import Task, Workflow
from engine.cli.problems import Problem
from engine.errors import AssetDefinitionError

__all__ = ["Target", "load", "load_task", "loaded"]


class Target(Struct, frozen=True, kw_only=True):
    """What a target names. `workflows` are all that its module holds; `chosen` is None when the user has to say."""

    text: str  # as given; what messages tell the user to type again
    source: str  # without the workflow's name, likewise
    file: str  # where it was loaded from, for messages
    module: ModuleType
    workflows: tuple[Workflow[..., Any], ...]
    chosen: Workflow[..., Any] | None

    def only(self) -> Workflow[..., Any]:
        """The named workflow, or the only one. Raises `Problem` that lists them when there are several."""
        if self.chosen is not None:
            return self.chosen
        names = "\n".join(f"  {self.source}:{each.name}" for each in self.workflows)
        raise Problem(f"{self.source} has {len(self.workflows)} workflows; say which one:\n{names}")


def load(text: str) -> Target:
    """Load what `text` names. Raises `Problem` for everything that can be wrong with it."""
    source, name, module = loaded(text)
    file = source if _is_file(source) else (module.__file__ or source)
    found: dict[int, Workflow[..., Any]] = {}
    own: list[Workflow[..., Any]] = []
    for value in vars(module).values():
        if isinstance(value, Workflow) and id(value) not in found:
            found[id(value)] = value
            if value.fn.__module__ == module.__name__:
                own.append(value)
    workflows = tuple(found.values())
    if name:
        meant = _named(module, source, name, workflows)
        return Target(text=text, source=source, file=file, module=module, workflows=workflows, chosen=meant)
    if not workflows:
        raise Problem(f"{source} has no workflow: decorate an `async def` with @workflow (from engine import workflow)")
    # Workflows that a file imports are there for its own to call; its own are what it is about.
    candidates = own or list(workflows)
    chosen = candidates[-1] if len({each.name for each in candidates}) == 1 else None  # the newest of its versions
    return Target(text=text, source=source, file=file, module=module, workflows=workflows, chosen=chosen)


def load_task(text: str) -> Task[..., Any]:
    """The task that `text` names (``FILE.py:task``, ``module:task``). Raises `Problem` likewise."""
    source, name, module = loaded(text)
    tasks = {each.name: each for each in vars(module).values() if isinstance(each, Task)}
    variable = getattr(module, name, None) if name else None
    found = tasks.get(name) or (variable if isinstance(variable, Task) else None)
    if found is not None:
        return found
    close = difflib.get_close_matches(name, tasks, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    there = f"its tasks: {', '.join(tasks)}" if tasks else "it has none"
    raise Problem(f"{source} has no task {name!r}; {there}.{meant}" if name else f"{text} names no task; {there}")


def loaded(text: str) -> tuple[str, str, ModuleType]:
    """What a target says before its colon and behind it, and the module, loaded. Raises `Problem` if it cannot be."""
    source, name = _split(text)
    return source, name, _load_file(source) if _is_file(source) else _load_module(source)


def _split(text: str) -> tuple[str, str]:
    if text.endswith(".py") or (":" not in text):
        return text, ""
    source, _, name = text.rpartition(":")
    return source, name


def _is_file(source: str) -> bool:
    return source.endswith(".py") or "/" in source or "\\" in source or Path(source).is_file()


def _named(module: ModuleType, source: str, name: str, workflows: tuple[Workflow[..., Any], ...]) -> Workflow[..., Any]:
    found = [each for each in workflows if each.name == name]
    if found:
        return found[-1]  # of several versions the newest
    value = getattr(module, name, None)
    if isinstance(value, Workflow):
        return value
    names = [each.name for each in workflows]
    there = f"its workflows: {', '.join(names)}" if names else "it has none: decorate an `async def` with @workflow"
    if value is not None:
        what = "a task" if isinstance(value, Task) else f"a {type(value).__name__}"
        raise Problem(f"{name!r} in {source} is {what}, not a workflow; {there}")
    close = difflib.get_close_matches(name, names, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    raise Problem(f"{source} has no workflow {name!r}; {there}.{meant}")


def _load_file(source: str) -> ModuleType:
    path = Path(source)
    if path.is_dir():
        raise Problem(f"{source} is a folder; name a Python file in it")
    if not path.exists():
        raise Problem(f"no such file: {source}{_similar(path)}")
    path = path.resolve()
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Problem(f"{source} is not a Python file: a target ends in .py, or is module:workflow")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: what it imports may import it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _broken(source, error) from error
    except SystemExit as error:
        raise Problem(
            f"{source} ended the program (exit {error.code}) while it was loaded; put what it runs under"
            ' `if __name__ == "__main__":`'
        ) from error
    return module


def _similar(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (nor a folder {folder})"
    close = difflib.get_close_matches(path.name, [each.name for each in folder.glob("*.py")], n=1)
    return f"; did you mean {folder / close[0]}?" if close else ""


def _module_name(path: Path) -> str:
    """The file's own name, so that its neighbours can import it; another one where that would hide a module."""
    name = path.stem
    taken = sys.modules.get(name)
    if name in sys.stdlib_module_names or (taken is not None and getattr(taken, "__file__", None) != str(path)):
        return f"{name}_target"
    return name if name.isidentifier() else "target"


def _load_module(source: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name is not None and (source == error.name or source.startswith(error.name + ".")):
            hint = f"A file is named with its ending: {source}.py" if Path(f"{source}.py").is_file() else ""
            raise Problem(f"no module {error.name!r} can be imported from {here}", hint=hint) from error
        raise _broken(source, error) from error
    except Exception as error:
        raise _broken(source, error) from error
    except SystemExit as error:
        raise Problem(f"{source} ended the program (exit {error.code}) while it was imported") from error


def _broken(source: str, error: Exception) -> Problem:
    """The user's file did not load: where, and why, in the terms of their code."""
    if isinstance(error, AssetDefinitionError):  # which names the place itself
        return Problem(f"{source} cannot be loaded: {error}")
    if isinstance(error, SyntaxError):
        lines = traceback.format_exception_only(error)
        shown = "".join(lines).rstrip()
        return Problem(f"{source} is not valid Python:\n{_indented(shown)}")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    inside = [frame for frame in frames if Path(frame.filename).name == Path(source).name] or frames
    where = f" ({inside[-1].filename}, line {inside[-1].lineno})" if inside else ""
    hint = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"Install {error.name.partition('.')[0]} into this environment: {sys.executable}"
    return Problem(f"{source} cannot be loaded: {_short(error)}{where}", hint=hint)


def _short(error: Exception) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _is_machinery(filename: str) -> bool:
    # Frames of the import system, of holdfast's own decorators, and of this loader.
    own = str(Path(__file__).parents[1])
    return filename.startswith(("<frozen", own)) or "importlib" in filename


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
