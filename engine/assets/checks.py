"""`@check`: what must hold of an asset's value before anybody builds on it.

A check is a function of the value (and of what else an asset's function may ask for). A *blocking* check that fails
keeps the value from being published; a *warning* is recorded and shown.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, Literal, ParamSpec, TypeAlias, TypeVar

from msgspec import Struct

from engine.assets.functions import where_of
from engine.assets.metadata import checked_metadata
from engine.assets.partitions import Window
from engine.assets.samples import SAMPLE_ROWS_MAX, sample
from engine.errors import AssetDefinitionError, AssetError
from engine.storage import Column, Stored

__all__ = [
    "HISTORY_VERSIONS_MAX",
    "SAMPLE_ROWS_MAX",
    "Check",
    "CheckContext",
    "CheckResult",
    "EarlierVersion",
    "Severity",
    "check",
    "check_name",
    "result_of",
]

P = ParamSpec("P")
R = TypeVar("R")

Severity: TypeAlias = Literal["blocking", "warning"]

HISTORY_VERSIONS_MAX: Final = 50
"""Earlier versions that a `CheckContext` knows."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")


class CheckResult:
    """What a check has found. `rows`: a sample of those that fail, as mappings; the first SAMPLE_ROWS_MAX are kept, and
    what is no JSON in them is kept as text.

    Raises `AssetError` for what cannot be so.
    """

    __slots__ = ("description", "metadata", "passed", "rows")

    def __init__(
        self,
        passed: bool,
        description: str = "",
        *,
        metadata: Mapping[str, Any] | None = None,
        rows: Iterable[Mapping[Any, Any]] = (),
    ) -> None:
        held = _truth(passed)
        if held is None:
            raise AssetError(f"CheckResult(passed=...) is True or False, not {passed!r}")
        self.passed = held
        self.description = description
        self.metadata = checked_metadata(metadata or {}, "CheckResult")
        self.rows = sample(rows)

    def __repr__(self) -> str:
        return f"CheckResult({self.passed}, {self.description!r})"


def result_of(found: object) -> CheckResult:
    """What a check's function returned, as a result. Raises `AssetError` when it is neither one nor a truth value."""
    if isinstance(found, CheckResult):
        return found
    held = _truth(found)
    if held is None:
        raise AssetError(f"a check returns a CheckResult, True or False, not {type(found).__name__}")
    return CheckResult(held)


def _truth(value: Any) -> bool | None:
    """True or False, also as numpy and Arrow have them; None for everything else."""
    if not isinstance(value, bool) and type(value).__name__ in ("bool", "bool_", "BooleanScalar"):
        value = value.as_py() if hasattr(value, "as_py") else value.item()
    return value if isinstance(value, bool) else None


class EarlierVersion(Struct, frozen=True, kw_only=True):
    """A version that was published before the value that is checked."""

    version: int  # of the asset's stream
    partition: str = ""
    at: int = 0  # microseconds since the epoch
    data_version: str = ""
    rows: int | None = None  # of a table
    schema: tuple[Column, ...] | None = None  # of a table; only of `CheckContext.previous`


class CheckContext(Struct, frozen=True, kw_only=True):
    """Where a check is: a parameter that is annotated with it is given one.

    `stored`: the value that is checked, as it was written (`rows`, `schema`, `size`); None when it lies elsewhere
    (``io="external"``). `previous`: the version that is current for this partition while the check runs, in this
    environment or the one that it branches off; None if there is none. `history`: the versions of this asset that were
    published before, of all of its partitions, the latest first, at most HISTORY_VERSIONS_MAX; restored and promoted
    ones count as published, observed ones do not, and the value that is checked is never among them, also when the
    check runs again after a crash.
    """

    key: str
    environment: str
    run_id: str
    partition: str = ""
    window: Window | None = None
    stored: Stored | None = None
    previous: EarlierVersion | None = None
    history: tuple[EarlierVersion, ...] = ()


class Check(Struct, Generic[P, R], frozen=True, kw_only=True, eq=False):
    """A check of an asset; made by `check`, and by the functions of `engine.assets.builtin`.

    `fn` takes the value as its first parameter, and returns a `CheckResult`, or whether it holds.
    """

    name: str
    fn: Callable[P, R]
    asset: str = ""  # its key; "" until it stands in an asset's `checks`
    severity: Severity = "blocking"
    description: str = ""
    code_version: str | None = None
    where: str = ""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, as it is: a unit test needs nothing of this package."""
        return self.fn(*args, **kwargs)


def check(
    asset: Any,
    *,
    blocking: bool = True,
    name: str | None = None,
    description: str | None = None,
    code_version: str | None = None,
) -> Callable[[Callable[P, R]], Check[P, R]]:
    """Make a check of `asset` (the asset, or its key) of a function, ``def`` or ``async def``.

    Its first parameter is given the asset's value, as its annotation says; the others are upstream assets, resources
    and an `AssetContext`, as for an asset. Hand it to `Definitions(checks=...)`.
    Raises `AssetDefinitionError` for what cannot be so.
    """

    def decorate(fn: Callable[P, R]) -> Check[P, R]:
        where = where_of(fn, "@check")
        key = asset if isinstance(asset, str) else getattr(asset, "key", None)
        if not isinstance(key, str):
            raise AssetDefinitionError(f"{where}: @check takes an asset or its key, not {asset!r}")
        return Check(
            name=check_name(fn.__name__ if name is None else name, where),
            fn=fn,
            asset=key,
            severity="blocking" if blocking else "warning",
            description=inspect.getdoc(fn) or "" if description is None else description,
            code_version=code_version,
            where=where,
        )

    return decorate


def check_name(name: object, where: str) -> str:
    """The name of a check. Raises `AssetDefinitionError` for what cannot be one."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise AssetDefinitionError(f"{where}: {name!r} cannot name a check: letters, digits, '_' and '-', at most 80")
