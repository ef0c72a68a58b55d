"""Which code a workflow is, as a short name: to remember which has been tried on a run, and which fits it.

A code is the digest of what a replay would run: the workflow's function, the functions and definitions that it names
(`engine.workflows.reach`), and the files that these stand in. It is no proof of anything: whether code fits a run is
found out by replaying. It only says whether it is worth the trouble again. A change that it cannot see (of a module
that is only reached through an object's methods, of Holdfast itself) is tried when somebody says so: `resume`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType, MappingProxyType
from typing import Any, Final

from engine.core.call import Definition
from engine.core.compare import Reason
from engine.runtime.streams import ALONE, BOUND, CODE, STATUS, SUSPENDED_FOR, TRIED
from engine.runtime.versions import PYTHON
from engine.workflows.reach import is_foreign, reached
from eventstore.port import Scalar

__all__ = ["GOES_ON", "Codes", "suspended_with", "tried_now", "was_tried"]

GOES_ON: Final[Mapping[str, Scalar]] = MappingProxyType({SUSPENDED_FOR: None, ALONE: None})
"""What the stream of a run says no more once it goes on: why it did not, and how often it has killed its worker."""
_DIGITS: Final = 16
_TRIED_MAX: Final = 8
"""Codes that a suspended run remembers to have been tried with: of more, the longest tried may be tried once more."""


class Codes:
    """The codes of one worker's workflows, each worked out when it is first asked for."""

    def __init__(self) -> None:
        self._codes: dict[int, tuple[Definition[..., Any], str]] = {}  # by identity, with what has it
        self._files: dict[str, bytes] = {}

    def of(self, definition: Definition[..., Any]) -> str:
        """The code of a workflow: 16 hex digits."""
        known = self._codes.get(id(definition))
        if known is None:
            known = self._codes[id(definition)] = definition, self._work_out(definition)
        return known[1]

    def _work_out(self, definition: Definition[..., Any]) -> str:
        found = sha256(f"{PYTHON}\0{definition.name}".encode())
        modules: dict[str, None] = {}
        for each in reached(definition):
            function = each.fn if isinstance(each, Definition) else each
            found.update(f"\0{getattr(each, 'name', '')}\0{getattr(function, '__annotations__', {})!r}".encode())
            if isinstance(function, FunctionType):
                _feed(found, function.__code__)
                found.update(repr(_plain(function)).encode())
                modules[function.__module__] = None
        for module in modules:
            found.update(self._file(module))
        return found.hexdigest()[:_DIGITS]

    def _file(self, module: str) -> bytes:
        """The digest of a module's file; nothing for one without."""
        if module not in self._files:
            file = None if is_foreign(module) else getattr(sys.modules.get(module), "__file__", None)
            try:
                self._files[module] = sha256(Path(file).read_bytes()).digest() if file else b""
            except OSError:
                self._files[module] = b""
        return self._files[module]


def _plain(function: FunctionType) -> list[object]:
    """Plain values that a function has closed over: what makes two functions of one code differ."""
    values: list[object] = []
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not bound yet
            if isinstance(cell.cell_contents, str | bytes | int | float | None):
                values.append(cell.cell_contents)
    return values


def _feed(found: Any, code: CodeType) -> None:
    """What it does, without where it stands: lines and files are not in it."""
    found.update(f"\0{code.co_name}{code.co_names}{code.co_varnames}{code.co_freevars}".encode())
    found.update(code.co_code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _feed(found, constant)
        else:  # a set has another order in every process
            shown = sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant
            found.update(f"\0{shown!r}".encode())


def was_tried(attributes: Mapping[str, Scalar], code: str) -> bool:
    """Whether a suspended run was tried with this code, and did not fit."""
    return code in str(attributes.get(TRIED) or "").split()


def tried_now(code: str) -> dict[str, Scalar]:
    """What the stream of a run says that this code has brought further, and then could not go on with."""
    return {TRIED: code, CODE: None, BOUND: None}


def suspended_with(attributes: Mapping[str, Scalar], code: str, reason: Reason) -> dict[str, Scalar]:
    """What the stream of a run says from now on that is suspended: `code` has been tried on it.

    It is bound to no code any more: whoever knows the workflow may answer what is asked of it.
    """
    tried = [each for each in str(attributes.get(TRIED) or "").split() if each != code]
    return {
        STATUS: "suspended",
        SUSPENDED_FOR: reason,
        TRIED: " ".join([*tried, code][-_TRIED_MAX:]).strip() or None,
        CODE: None,
        BOUND: None,
    }
