"""The `Definitions` that a command about assets is about: of a target, or of what `pyproject.toml` names."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from types import ModuleType

from msgspec import Struct

from engine.assets import Definitions
from engine.cli.problems import Problem
from engine.cli.settings import Settings, read_settings
from engine.cli.targets import loaded

__all__ = ["Found", "find"]


class Found(Struct, frozen=True, kw_only=True):
    """What is meant. `text`: what a command has to say to mean it again; "" for what the settings name."""

    text: str
    source: str  # for messages
    definitions: Definitions
    settings: Settings
    module: ModuleType


def find(text: str | None) -> Found:
    """Load the definitions. Raises `Problem` for everything that can be wrong with a target or the settings."""
    settings = read_settings(Path.cwd())
    if text is not None:
        definitions, module = _in_module(text)
        return Found(text=text, source=text, definitions=definitions, settings=settings, module=module)
    if not settings.definitions:
        where = f"{settings.file} does not say which" if settings.file else "no pyproject.toml says which"
        raise Problem(
            f"which definitions? Name FILE.py or module:attribute; {where}",
            hint='A project says it once:\n  [tool.holdfast]\n  definitions = "shop.assets:definitions"',
        )
    try:
        definitions, module = _in_folder(settings)
    except Problem as problem:
        said = f"{settings.file}: definitions = {settings.definitions!r}: {problem.message}"
        raise Problem(said, code=problem.code, hint=problem.hint) from problem
    return Found(text="", source=settings.definitions, definitions=definitions, settings=settings, module=module)


def _in_folder(settings: Settings) -> tuple[Definitions, ModuleType]:
    folder, target = str(settings.folder), settings.definitions
    if folder not in sys.path:
        sys.path.insert(0, folder)
    source = target.partition(":")[0]
    if source.endswith(".py") and not Path(source).is_absolute():
        target = str(settings.folder / source) + target.removeprefix(source)
    return _in_module(target)


def _in_module(text: str) -> tuple[Definitions, ModuleType]:
    source, name, module = loaded(text)
    there = {each: value for each, value in vars(module).items() if isinstance(value, Definitions)}
    if name:
        return _named(source, name, module, list(there)), module
    if len({id(value) for value in there.values()}) == 1:
        return next(iter(there.values())), module
    if not there:
        raise Problem(
            f"{source} has no Definitions: put its assets into one, definitions = Definitions([orders, ...])"
            " (from engine.assets import Definitions)"
        )
    names = "\n".join(f"  {source}:{each}" for each in there)
    raise Problem(f"{source} has {len(there)} Definitions; say which one:\n{names}")


def _named(source: str, name: str, module: ModuleType, names: list[str]) -> Definitions:
    value = getattr(module, name, None)
    if isinstance(value, Definitions):
        return value
    there = f"its Definitions: {', '.join(names)}" if names else "it has no Definitions"
    if value is not None:
        raise Problem(f"{name!r} in {source} is a {type(value).__name__}, not a Definitions; {there}")
    close = difflib.get_close_matches(name, names, n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    raise Problem(f"{source} has no {name!r}; {there}.{meant}")
