"""The guard: workflow code that reaches for the outside while it runs is stopped before anything happens.

One audit hook (PEP 578) for the process, installed when the first engine opens. It does nothing unless the running loop
of the very thread is a workflow's: tasks, the program around the engine and other threads are not touched. What the
interpreter itself does for workflow code is let through: imports, tracebacks and the source lines in them, warnings,
logging handlers, the time-zone database, debuggers.

The workflow gets `ForbiddenInWorkflow` where it reached out, at every replay again, with the same words. Code that
catches it and goes on therefore does the same each time. What raises no audit event is not seen: reading a clock or
`os.environ`, `os.stat`, `print`, and before Python 3.13 `time.sleep`; those are for the check at registration
(`engine.workflows.screening`). A signal handler of the program that happens to run within a turn counts as workflow
code.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import cache, lru_cache
from types import FrameType
from typing import Any, Final

from engine.core.nesting import here, run_nested
from engine.errors import ForbiddenInWorkflow

__all__ = ["install_guard"]

_EVENTS: Final = frozenset({"open", "time.sleep", "builtins.input", "mmap.__new__", "webbrowser.open"})
_FAMILIES: Final = frozenset(
    {"os", "socket", "subprocess", "_thread", "sqlite3", "shutil", "tempfile", "urllib", "glob", "pathlib", "http"}
    | {"ftplib", "imaplib", "poplib", "smtplib", "nntplib", "telnetlib", "fcntl", "pty", "syslog", "msvcrt", "_winapi"}
)
"""Audit events, by name and by what stands before their first dot."""

_EXEMPT: Final = frozenset(
    {"importlib", "_frozen_importlib", "_frozen_importlib_external", "zipimport", "pkgutil"}  # code comes from files
    | {"traceback", "linecache", "warnings", "logging"}  # and so do its lines, in reports
    | {"zoneinfo"}  # data of the installation, like code
    | {"bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy", "coverage"}  # they look at the code, they are not it
)
"""Modules for whose sake the interpreter may open files while workflow code runs."""

_INSTEAD: Final[dict[str, str]] = {
    "time.sleep": "write `await asyncio.sleep(...)`, a durable timer",
    "_thread": "use branches (asyncio.create_task), or await a plain `def` decorated with @task: it runs in a thread",
}
_EFFECT: Final = "move this into a @task and await that"


@cache
def install_guard() -> None:
    """Install the hook, once for the process: an audit hook cannot be taken out again."""
    sys.addaudithook(_audit)
    if sys.version_info < (3, 12):  # where starting a thread raises no audit event
        names = vars(threading)
        names["_start_new_thread"] = _announced(names["_start_new_thread"])


def _announced(start: Callable[..., Any]) -> Callable[..., Any]:
    def start_new_thread(*args: Any) -> Any:
        _audit("_thread.start_new_thread", args)
        return start(*args)

    return start_new_thread


def _audit(event: str, args: tuple[Any, ...]) -> None:
    # Called for every audit event of the process: the cheap questions come first.
    if not _is_effect(event):
        return
    if here.loop is None:
        return
    if not _for_the_interpreter(sys._getframe(1)) and not _is_time_zone(event, args):
        _refuse(event)


@lru_cache(maxsize=1_024)
def _is_effect(event: str) -> bool:
    return event in _EVENTS or event.partition(".")[0] in _FAMILIES


def _for_the_interpreter(frame: FrameType | None) -> bool:
    """Whether, between the workflow's loop and here, somebody loads code, or reports."""
    while frame is not None and frame.f_code is not run_nested.__code__:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in _EXEMPT:
            return True
        frame = frame.f_back
    return False


def _is_time_zone(event: str, args: tuple[Any, ...]) -> bool:
    """Whether a time zone is being read: `ZoneInfo` does that in C, so that no frame tells."""
    zones: Any = sys.modules.get("zoneinfo")
    path = args[0] if event == "open" and args else None
    return zones is not None and isinstance(path, str) and path.startswith(tuple(f"{each}/" for each in zones.TZPATH))


def _refuse(event: str) -> None:
    # What it reached for (a name in a temporary directory, say) is left out: code may record this text.
    instead = _INSTEAD.get(event) or _INSTEAD.get(event.partition(".")[0], _EFFECT)
    raise ForbiddenInWorkflow(
        f"a workflow cannot reach outside ({event}): it is replayed from its history, where this would happen again;"
        f" {instead}"
    )
