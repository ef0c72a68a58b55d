"""Tasks that run in worker processes, and workflows of them. What they tell, they write into files of a folder."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tenacity import retry_if_exception_type, stop_after_attempt

from engine import attempt, task, workflow
from engine.errors import WorkerProcessDied


class Odd(Exception):
    pass


class Unlisted(ConnectionError):
    """Known to this module, declared nowhere."""


def note(folder: str, name: str, text: str = "") -> None:
    """Whole, or not at all."""
    path = Path(folder, name)
    part = path.with_suffix(f".{os.getpid()}.part")  # names may differ behind the dot alone, and in other processes
    part.write_text(text)
    part.rename(path)


@task(executor="processes")
def pid() -> int:
    return os.getpid()


@task(executor="processes")
def wait_for(folder: str, name: str) -> str:
    """Until somebody makes a file of that name."""
    note(folder, "inside", str(os.getpid()))
    for _ in range(6_000):
        if Path(folder, name).exists():
            return "found"
        time.sleep(0.005)
    return "nothing"


@task(executor="processes")
def clean_up(folder: str) -> None:
    note(folder, "inside", str(os.getpid()))
    try:
        time.sleep(30)
    finally:
        note(folder, "cleaned", str(attempt().cancelled))


@task(executor="processes")
def deaf(folder: str) -> None:
    """Does not end when it is asked to, and has started another process."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"], stdin=subprocess.DEVNULL)
    note(folder, "inside", f"{os.getpid()} {other.pid}")
    for _ in range(30):
        try:
            time.sleep(1)
        except BaseException:
            pass


@task(executor="processes")
def die(how: str) -> None:
    match how:
        case "exit":
            os._exit(3)
        case name:
            os.kill(os.getpid(), getattr(signal, name))
            time.sleep(30)


@task(executor="processes")
def talk() -> str:
    print("to standard output")
    print("to standard error", file=sys.stderr)
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    return repr(sys.stdin.read())


@task(executor="processes")
def unrecordable() -> Any:
    return object()


# -- for engines ------------------------------------------------------------------------------------------------------


@task(executor="processes", stop=stop_after_attempt(3), retry=retry_if_exception_type(WorkerProcessDied))
def killed_once(folder: str) -> Any:
    if attempt().number == 1:
        attempt().heartbeat({"row": 7})
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(30)
    failure = attempt().last_failure
    assert failure is not None
    return [attempt().number, attempt().last_heartbeat, failure.type, failure.message]


@task(executor="processes", stop=stop_after_attempt(2), retry=retry_if_exception_type(ConnectionError), raises=(Odd,))
def raises(kind: str) -> str:
    if attempt().number == 2:
        return f"retried after {attempt().last_failure.type}"  # type: ignore[union-attr]
    raise {"Odd": Odd, "Unlisted": Unlisted, "TimeoutError": TimeoutError, "ConnectionError": ConnectionError}[kind](
        "as I said"
    )


@task(executor="processes", timeout=60, stop=stop_after_attempt(2))
def slow_once(folder: str) -> int:
    if attempt().number == 1:
        note(folder, "inside", str(os.getpid()))
        time.sleep(30)
    return os.getpid()


@task(executor="processes", heartbeat_timeout=60, stop=stop_after_attempt(2))
def silent_once(folder: str) -> list[Any]:
    if attempt().number == 1:
        attempt().heartbeat("one")
        note(folder, "inside", str(os.getpid()))
        time.sleep(30)
    failure = attempt().last_failure
    assert failure is not None
    return [attempt().last_heartbeat, failure.type]


@task(executor="processes")
def stops_nicely(folder: str) -> str:
    if attempt().number == 2:
        return f"went on from {attempt().last_heartbeat}"
    note(folder, "inside", str(os.getpid()))
    assert attempt().wait_stopping(30)
    attempt().heartbeat("page 3")
    attempt().wait_cancelled(30)
    raise AssertionError("it should have been ended")


@task(executor="processes")
def goes_on(folder: str) -> Any:
    """Leaves word how far it is, and can be killed then; the next attempt says what it found."""
    if attempt().number > 1:
        return attempt().last_heartbeat
    attempt().heartbeat({"row": 7})
    note(folder, "inside", str(os.getpid()))
    try:
        time.sleep(30)
    finally:
        note(folder, "cleaned")


@task(executor="processes")
def ask_someone(folder: str) -> str:
    note(folder, "token", attempt().token)
    attempt().later()


@task(executor="processes", stop=stop_after_attempt(5))
def returns_nonsense() -> int:
    return "no number"  # type: ignore[return-value]


@workflow
async def one_of(name: str, *args: str) -> Any:
    found: Any = TASKS[name](*args)
    return await found


@workflow
async def both(folder: str) -> list[str]:
    return await asyncio.gather(wait_for(folder, "go"), wait_for(folder, "go"))


TASKS: dict[str, Any] = {
    each.name: each
    for each in (
        pid, wait_for, clean_up, deaf, die, talk, unrecordable, killed_once, raises, slow_once, silent_once,
        stops_nicely, goes_on, ask_someone, returns_nonsense,
    )
}  # fmt: skip
