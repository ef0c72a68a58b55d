"""Checks that a pandera schema makes: ``checks=[pandera_check(Orders)]``. The one place that imports `pandera`."""

from __future__ import annotations

from typing import Any

from engine.assets.builtin import check_of, where_called
from engine.assets.checks import Check, CheckResult
from engine.assets.samples import SAMPLE_ROWS_MAX
from engine.errors import AssetDefinitionError

__all__ = ["pandera_check"]


def pandera_check(schema: Any, *, blocking: bool = True, name: str | None = None) -> Check[..., CheckResult]:
    """A check that a table fits a pandera schema or model, of `pandera.pandas` or `pandera.polars`.

    All of it is validated, and not only up to the first failure; the failure cases are the rows of the result, in the
    order of the table, what is wrong with whole columns first. The table is read as a frame of the schema's library.
    Needs the extra `pandera`. Raises `AssetDefinitionError` for what is no schema of these.
    """
    where = where_called()
    frame = _frame(schema, where)

    def holds(table: Any) -> CheckResult:
        from pandera.errors import SchemaErrors  # noqa: PLC0415 - loaded when it is used

        try:
            schema.validate(table, lazy=True)
        except SchemaErrors as error:
            return _failed(error.failure_cases)
        return CheckResult(True, f"{len(table):,} rows", metadata={"rows": len(table)})

    holds.__annotations__ = {"table": frame, "return": CheckResult}
    title = getattr(schema, "__name__", None) or getattr(schema, "name", None) or "schema"
    return check_of(
        "pandera",
        (str(title),),
        holds,
        about=None,  # what is in the schema is not said by its repr
        says=f"the table fits {title}",
        where=where,
        blocking=blocking,
        name=name,
    )


def _frame(schema: Any, where: str) -> Any:
    """The type of table that the schema is of."""
    kind = schema if isinstance(schema, type) else type(schema)
    modules = {each.__module__ for each in kind.__mro__}
    if any(each.startswith("pandera.api.polars") for each in modules):
        import polars as pl  # noqa: PLC0415 - who has such a schema has it

        return pl.DataFrame
    if any(each.startswith("pandera.api.pandas") for each in modules):
        import pandas as pd  # noqa: PLC0415 - likewise

        return pd.DataFrame
    raise AssetDefinitionError(
        f"{where}: pandera_check takes a schema or a model of pandera.pandas or pandera.polars, not {schema!r}"
    )


def _failed(cases: Any) -> CheckResult:
    if hasattr(cases, "to_dicts"):
        counts = {row["check"]: row["count"] for row in cases["check"].value_counts(sort=True).to_dicts()}
        rows = cases.sort("index", nulls_last=False, maintain_order=True).head(SAMPLE_ROWS_MAX).to_dicts()
    else:
        counts = {str(check): int(count) for check, count in cases["check"].value_counts().items()}
        rows = _in_order(cases).head(SAMPLE_ROWS_MAX).to_dict("records")
    few = ", ".join(f"{check} ({count:,})" for check, count in list(counts.items())[:5])
    return CheckResult(
        False,
        f"{len(cases):,} failure cases: {few}{', ...' if len(counts) > 5 else ''}",
        metadata={"failing": len(cases), "checks that fail": len(counts)},
        rows=rows,
    )


def _in_order(cases: Any) -> Any:
    try:
        return cases.sort_values("index", kind="stable", na_position="first")
    except TypeError:  # an index of several types
        return cases
