"""Every case: importing them registers them."""

from __future__ import annotations

from tests.core import (
    cases_anyio,
    cases_attributes,
    cases_children,
    cases_epochs,
    cases_gather,
    cases_groups,
    cases_locks,
    cases_patches,
    cases_stacks,
    cases_words,
)

__all__ = [
    "cases_anyio",
    "cases_attributes",
    "cases_children",
    "cases_epochs",
    "cases_gather",
    "cases_groups",
    "cases_locks",
    "cases_patches",
    "cases_stacks",
    "cases_words",
]
