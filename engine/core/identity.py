"""The ids of runs: which there can be, and how a child's is made."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from engine.errors import HoldfastError

__all__ = ["RUN_ID_MAX", "by_run", "cancel_id", "check_run_id", "child_run_id", "ended_call", "says_its_call"]

RUN_ID_MAX: Final = 200
"""Characters of a run's id."""
_SHOWN: Final = 60  # characters of its parent's that the id of a deep child begins with
_NUMBERED: Final = re.compile(r"#\d+(@\d+)?$")  # the call's number, and its epoch


def check_run_id(run_id: str) -> str:
    """The id, if it can be one. Raises `HoldfastError` saying why not."""
    if not isinstance(run_id, str) or not run_id or len(run_id) > RUN_ID_MAX or not run_id.isprintable():
        raise HoldfastError(f"{run_id!r} cannot be a run's id: 1 to {RUN_ID_MAX} printable characters")
    if len(run_id.encode()) > 2 * RUN_ID_MAX:
        raise HoldfastError(f"{run_id!r} cannot be a run's id: more than {2 * RUN_ID_MAX} bytes in UTF-8")
    return run_id


def child_run_id(parent: str, epoch: int, call_id: str) -> str:
    """The id of a child run: its parent's, and the call's without the name of the workflow that it begins with."""
    local = call_id.partition("/")[2] or call_id
    run_id = f"{parent}/{local}@{epoch}" if epoch else f"{parent}/{local}"
    if len(run_id) <= RUN_ID_MAX and len(run_id.encode()) <= 2 * RUN_ID_MAX:
        return run_id
    digest = sha256(run_id.encode()).hexdigest()[:32]
    # Deep trees: enough of the parent to see where it belongs, and a digest of all of it.
    return f"{parent[:_SHOWN]}.../{digest}"


def says_its_call(run_id: str, parent: str) -> bool:
    """Whether an id has the form of those that are made for the children of this run, each of which says its call."""
    if run_id.startswith(f"{parent}/"):
        return _NUMBERED.search(run_id) is not None
    return run_id.startswith(f"{parent[:_SHOWN]}.../")


def by_run(run_id: str) -> str:
    """Who asked, where a run did: the `by` of what it sends, and of the children that it starts."""
    return f"run {run_id}"


def terminate_id(call_id: str) -> str:
    """The id of the decision that ends a child run without its code, made of that of its call."""
    return f"{call_id}!!"


def cancel_id(call_id: str) -> str:
    """The id of the decision that asks a child run to end, made of that of its call."""
    return f"{call_id}!"


def ended_call(decision_id: str) -> str:
    """The id of the call whose child a decision of either of these ids ends."""
    return decision_id.rstrip("!")  # a call's own id ends with its number
