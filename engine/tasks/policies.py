"""What `stop`, `wait` and `retry` of a task may be: tenacity's objects, or functions that are called like them.

Nearly anything can be called. What is likely to be meant otherwise, and would be asked for ever what is to be done, is
refused where it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from engine.errors import DefinitionError

__all__ = ["check_policy"]

_INSTEAD: Final = {
    "stop": "stop_after_attempt(5)",
    "wait": "wait_exponential_jitter(max=30)",
    "retry": "retry_if_exception_type(OSError)",
}
_DECORATORS: Final = frozenset({"retry.<locals>.wrap", "Retrying", "AsyncRetrying", "TornadoRetrying"})
"""What tenacity makes of a whole policy, to decorate a function with: its names, since tenacity is imported late."""


def check_policy(name: str, policy: Callable[[Any], Any] | None, where: str) -> None:
    """Raise `DefinitionError` unless it can be asked when an attempt has failed. `name`: of the option."""
    if policy is None:
        return
    such = f"{where}: {name} takes a tenacity object such as {_INSTEAD[name]}"
    if isinstance(policy, type):
        raise DefinitionError(f"{such}, and not the class {policy.__name__}: call it")
    if not callable(policy):
        raise DefinitionError(f"{such}, not {policy!r}")
    if _decorates(policy):
        raise DefinitionError(
            f"{such}, and not what decorates a function: give the task what stands in the parentheses, as its own"
            " stop=, wait= and retry="
        )


def _decorates(policy: Any) -> bool:
    made_by = policy if hasattr(policy, "__qualname__") else type(policy)
    tenacitys = str(getattr(made_by, "__module__", "")).partition(".")[0] == "tenacity"
    return tenacitys and made_by.__qualname__ in _DECORATORS
