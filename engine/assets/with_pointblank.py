"""Checks that a pointblank validation makes. The one place that imports `pointblank`.

```python
@pointblank_check
def valid(orders: pl.DataFrame) -> pb.Validate:
    return pb.Validate(orders).col_vals_gt("price", 0).rows_distinct()

@asset(checks=[valid])
```
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, overload

from engine.assets.checks import Check, CheckResult, check_name
from engine.assets.functions import where_of
from engine.assets.samples import SAMPLE_ROWS_MAX
from engine.errors import AssetError

__all__ = ["pointblank_check"]


@overload
def pointblank_check(fn: Callable[..., Any], /) -> Check[..., Any]: ...
@overload
def pointblank_check(
    *, blocking: bool = True, name: str | None = None, code_version: str | None = None
) -> Callable[[Callable[..., Any]], Check[..., Any]]: ...
def pointblank_check(
    fn: Any = None, /, *, blocking: bool = True, name: str | None = None, code_version: str | None = None
) -> Any:
    """A check of a function, ``def`` or ``async def``, that is given the table and returns a `pointblank.Validate`.

    It is interrogated, if it was not yet. A step that has thresholds fails when it reaches "error" or "critical"; one
    that has none, when any of its units fails; and one that could not be evaluated fails. The rows of the result are
    the extracts of the steps that fail. Needs the extra `pointblank`. Raises `AssetDefinitionError` for what is no
    function.
    """

    def decorate(function: Callable[..., Any]) -> Check[..., Any]:
        where = where_of(function, "@pointblank_check")
        return Check(
            name=check_name(function.__name__ if name is None else name, where),
            fn=_asking(function),
            severity="blocking" if blocking else "warning",
            description=inspect.getdoc(function) or "",
            code_version=code_version,
            where=where,
        )

    return decorate if fn is None else decorate(fn)


def _asking(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def holds_later(*args: Any, **kwargs: Any) -> CheckResult:
            return _found(await function(*args, **kwargs))

        return holds_later

    @functools.wraps(function)
    def holds(*args: Any, **kwargs: Any) -> CheckResult:
        return _found(function(*args, **kwargs))

    return holds


def _found(validation: Any) -> CheckResult:
    from pointblank import Validate  # noqa: PLC0415 - loaded when it is used

    if not isinstance(validation, Validate):
        raise AssetError(f"@pointblank_check: it returned {type(validation).__name__}, and not a pointblank.Validate")
    if validation.time_end is None:
        validation = validation.interrogate()
    steps = [step for step in validation.validation_info if step.active or step.eval_error]
    failing = [step for step in steps if _fails(step)]
    units = sum(step.n_failed or 0 for step in failing)
    few = "; ".join(_said(step) for step in failing[:5])
    return CheckResult(
        not failing,
        f"{few}{'; ...' if len(failing) > 5 else ''}" if failing else f"{len(steps)} steps",
        metadata={"steps": len(steps), "steps that fail": len(failing), "units that fail": units},
        rows=_rows(failing),
    )


def _fails(step: Any) -> bool:
    if step.eval_error:
        return True
    limits = [getattr(step.thresholds, level, None) for level in ("warning", "error", "critical")]
    if any(limit is not None for limit in limits):
        return bool(step.error or step.critical)
    return step.all_passed is not True


def _title(step: Any) -> str:
    return f"{step.i} {step.assertion_type}" + ("" if step.column is None else f" {step.column}")


def _said(step: Any) -> str:
    if step.eval_error:
        return f"step {_title(step)} could not be evaluated"
    return f"step {_title(step)}: {step.n_failed or 0:,} of {step.n or 0:,} fail"


def _rows(steps: list[Any]) -> Iterator[dict[str, Any]]:
    for step in steps:
        for row in _records(step.extract):
            yield {"(step)": _title(step), **row}


def _records(extract: Any) -> list[dict[str, Any]]:
    """The first rows of a frame of whichever library."""
    if extract is None:
        return []
    if hasattr(extract, "to_dicts"):
        found: list[dict[str, Any]] = extract.head(SAMPLE_ROWS_MAX).to_dicts()
    elif hasattr(extract, "to_pylist"):
        found = extract.slice(0, SAMPLE_ROWS_MAX).to_pylist()
    elif hasattr(extract, "to_dict"):
        found = extract.head(SAMPLE_ROWS_MAX).to_dict("records")
    else:
        found = []
    return found
