"""What the programs of all peers share: the body of every task, its effect on the outside, and the lines they print.

Standard library only: each program runs in the environment of its own peer. An effect is a line appended to a file,
written in one call, so that it stays when the process is killed the next moment; what is judged later is what these
files say, not what a peer says of itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 0.1
"""The timeout of the program `timeout`, whose task takes a little less or a little more."""
BODY_SECONDS = (0.02, 0.08)
RACE_SECONDS = (0.03, 0.15)
STOP_AT = "PEERS_STOP_AT"
EFFECTS = "PEERS_EFFECTS"


def say(**fields: Any) -> None:
    """One line of JSON to whoever started this process."""
    print(json.dumps(fields), flush=True)


def note(kind: str, task: str, value: str) -> None:
    """One effect: a line in the file that outlives this process."""
    descriptor = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{kind} {task} {value}\n".encode())
    finally:
        os.close(descriptor)


async def effect(task: str, value: str, seconds: tuple[float, float] = BODY_SECONDS) -> str:
    """The body of a task of the crash programs: its effect, some time, and a value that says where it came from."""
    note("begin", task, value)
    await asyncio.sleep(random.uniform(*seconds))
    note("end", task, value)
    return f"{value}.{task}"


def slow_effect(task: str, value: str) -> str:
    """The same for peers whose tasks are plain functions."""
    note("begin", task, value)
    time.sleep(random.uniform(*BODY_SECONDS))
    note("end", task, value)
    return f"{value}.{task}"


def echo_or_stop(value: int) -> int:
    """The body of a step of the run that is stopped: dies at one number, and says when it gets to that number again."""
    stop_at, halting = os.environ[STOP_AT].split()
    if value == int(stop_at):
        if halting == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        say(reached=time.time())
    return value


def total(count: int) -> int:
    """What the steps 0 to count - 1 add up to."""
    return count * (count - 1) // 2


def run(commands: dict[str, Callable[..., Any]]) -> None:
    """`program COMMAND FOLDER ARGUMENTS`: the arguments are a JSON object."""
    command, folder, arguments = sys.argv[1:4]
    commands[command](Path(folder), **json.loads(arguments))
