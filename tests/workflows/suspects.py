"""Workflows that use what they must not; each line that is to be found says what is found there: `# found: ...`."""

# ruff: noqa: A001, C416, E731, ICN001, PGH004, PLC0208, PTH109, PTH110, PTH118, PTH119, PTH123, PTH207, PTH208, UP037, UP041

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import datetime as dates
import functools
import glob
import multiprocessing
import os
import os.path
import random
import secrets
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import time as t
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from datetime import date, datetime
from datetime import datetime as dt
from os import environ, getcwd
from pathlib import Path
from random import choice
from time import sleep
from typing import Any

import anyio
from anyio import to_thread

from engine import durable, task, workflow

ROOT = Path()
GENERATOR = random.Random(5)
LOCK = threading.Lock()


@task
async def effects() -> float:
    return time.time() + random.random()


@workflow
async def clocks() -> None:
    time.time()  # found: `time.time()`
    t.time_ns()  # found: `t.time_ns()`
    time.monotonic()  # found: `time.monotonic()`
    time.perf_counter_ns()  # found: `time.perf_counter_ns()`
    sleep(1)  # found: `sleep(1)`
    time.localtime()  # found: `time.localtime()`
    time.gmtime()  # found: `time.gmtime()`
    time.strftime("%Y")  # found: `time.strftime('%Y')`
    datetime.now()  # found: `datetime.now()`
    dt.utcnow()  # found: `dt.utcnow()`
    dates.datetime.today()  # found: `dates.datetime.today()`
    date.today()  # found: `date.today()`
    dt.now().date().isoformat()  # found: `dt.now()`
    clock = time.time  # found: `time.time`
    clock()  # found: `clock()`
    started = datetime
    started.now()  # found: `started.now()`
    list(map(time.ctime, [1]))


@workflow
async def chance() -> None:
    random.random()  # found: `random.random()`
    choice([1, 2])  # found: `choice([1, 2])`
    random.shuffle([1, 2])  # found: `random.shuffle([1, 2])`
    random.Random()  # found: `random.Random()`
    random.SystemRandom()  # found: `random.SystemRandom()`
    GENERATOR.random()  # found: `GENERATOR.random()`
    secrets.token_hex()  # found: `secrets.token_hex()`
    secrets.choice([1])  # found: `secrets.choice([1])`
    uuid.uuid4()  # found: `uuid.uuid4()`
    uuid.uuid1()  # found: `uuid.uuid1()`
    os.urandom(3)  # found: `os.urandom(3)`
    hash("a")  # found: `hash('a')`
    id(object())  # found: `id(object())`
    sorted([object()], key=id)  # found: `id`


@workflow
async def surroundings(path: Path, other: Path | None, text: "Path") -> None:
    os.environ["HOME"]  # found: `os.environ`
    environ.get("HOME")  # found: `environ.get('HOME')`
    os.getenv("HOME")  # found: `os.getenv('HOME')`
    os.getpid()  # found: `os.getpid()`
    getcwd()  # found: `getcwd()`
    os.listdir()  # found: `os.listdir()`
    os.path.exists("a")  # found: `os.path.exists('a')`
    open("a")  # found: `open('a')`
    builtins.open("a")  # found: `builtins.open('a')`
    input()  # found: `input()`
    Path("a").read_text()  # found: `Path('a').read_text()`
    (Path("a") / "b").write_text("")  # found: `(Path('a') / 'b').write_text('')`
    Path("a").parent.joinpath("b").mkdir()  # found: `Path('a').parent.joinpath('b').mkdir()`
    Path.cwd()  # found: `Path.cwd()`
    ROOT.exists()  # found: `ROOT.exists()`
    path.unlink()  # found: `path.unlink()`
    other.unlink()  # found: `other.unlink()`
    text.unlink()  # found: `text.unlink()`
    shutil.rmtree("a")  # found: `shutil.rmtree('a')`
    tempfile.mkdtemp()  # found: `tempfile.mkdtemp()`
    glob.glob("*")  # found: `glob.glob('*')`
    await anyio.open_file("a")  # found: `anyio.open_file('a')`


@workflow
async def the_outside() -> None:
    socket.create_connection(("a", 1))  # found: `socket.create_connection(('a', 1))`
    socket.socket()  # found: `socket.socket()`
    subprocess.run(["a"])  # found: `subprocess.run(['a'])`
    sqlite3.connect("a")  # found: `sqlite3.connect('a')`
    urllib.request.urlopen("a")  # found: `urllib.request.urlopen('a')`
    threading.Thread()  # found: `threading.Thread()`
    with LOCK:  # found: `LOCK`
        pass
    multiprocessing.Pool()  # found: `multiprocessing.Pool()`
    concurrent.futures.ThreadPoolExecutor()  # found: `concurrent.futures.ThreadPoolExecutor()`
    await asyncio.to_thread(len, "a")  # found: `asyncio.to_thread(len, 'a')`
    await to_thread.run_sync(len, "a")  # found: `to_thread.run_sync(len, 'a')`
    await anyio.to_thread.run_sync(len, "a")  # found: `anyio.to_thread.run_sync(len, 'a')`
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, len)  # found: `loop.run_in_executor(None, len)`
    await asyncio.create_subprocess_exec("a")  # found: `asyncio.create_subprocess_exec('a')`
    await asyncio.open_connection("a", 1)  # found: `asyncio.open_connection('a', 1)`
    import httpx

    httpx.get("a")  # found: `httpx.get('a')`
    from requests import post

    post("a")  # found: `post('a')`


@workflow
async def sets(words: list[str], table: dict[str, int]) -> Any:
    for word in {"a", "b"}:  # found: `{'a', 'b'}`
        print(word)
    for word in set(words):  # found: `set(words)`
        print(word)
    [word for word in frozenset(words)]  # found: `frozenset(words)`
    dict.fromkeys({each for each in words}, 1)  # found: `{each for each in words}`
    list(set(words))  # found: `set(words)`
    tuple(set(words) - {"a"})  # found: `set(words) - {'a'}`
    print(*set(words))  # found: `set(words)`
    ",".join(set(words))  # found: `set(words)`
    dict.fromkeys(set(words))  # found: `set(words)`
    next(iter(set(words)))  # found: `set(words)`
    first, *rest = set(words)  # found: `set(words)`
    for word in table.keys() & words:  # found: `table.keys() & words`
        print(word)
    for word in set(words).union(rest):  # found: `set(words).union(rest)`
        print(word, first)
    max(set(words), key=len)  # found: `set(words)`
    sum(len(word) for word in set(words))  # found: `set(words)`
    set(words).pop()  # found: `set(words)`


def helper() -> float:
    return deeper()


def deeper() -> float:
    return time.time()  # found: `time.time()`


@functools.cache
def cached() -> str:
    return os.getcwd()  # found: `os.getcwd()`


@contextmanager
def around():
    yield time.time()  # found: `time.time()`


@workflow
async def nested() -> None:
    async def inner() -> float:
        return time.time()  # found: `time.time()`

    class Local:
        def method(self) -> float:
            return time.time()  # found: `time.time()`

    later = lambda at=time.time(): random.random() + at  # found: `time.time()`  # found: `random.random()`
    await inner()
    helper()
    cached()
    with around():
        pass
    print(Local().method(), later())


def made(source: Callable[[], float]) -> Any:
    @workflow
    async def closed_over() -> float:
        return source()  # found: `source()`

    return closed_over


closed_over = made(time.time)
closed_over_nothing = made(lambda: 1.0)


@workflow
async def marked(words: list[str]) -> None:
    time.time()  # deterministic: the value goes nowhere
    print(
        "a",
        time.time(),
        "b",  # noqa  # deterministic: any line of the statement will do
    )
    for word in set(words):  # deterministic: the order does not matter
        print(word, time.time())  # found: `time.time()`
    if time.time() > 3:  # deterministic: for the head alone
        print("a")
    time.time()  # deterministic:
    print()  # deterministic:


@workflow
async def blameless(path: Path, time: float, words: list[str], random: random.Random) -> Any:
    """Time.time() in a text, names that hide modules, and what only computes."""
    time.is_integer()
    random.random()
    durable.now(), durable.random().random(), durable.uuid4()
    seeded = durable.random()
    seeded.shuffle(words)
    globals_random = __import__
    print(globals_random, path.name, path / "a", (path / "b").with_suffix(".c").parent.stem)
    os.path.join("a", os.path.basename("b")), os.fspath("a")
    uuid.uuid5(uuid.NAMESPACE_URL, "a"), uuid.UUID(int=5), uuid.uuid3
    t.gmtime(0), t.localtime(0), t.strftime("%Y", t.gmtime(0)), datetime.fromtimestamp(0), date(2026, 1, 1)
    sorted(set(words)), len({"a"}), "a" in {"a", "b"}, set(words) == {"a"}, max(set(words)), {*words}
    sorted(word for word in set(words)), sorted([word.upper() for word in set(words)], key=len)
    await asyncio.sleep(1)
    await anyio.sleep(1)
    await asyncio.gather(*(effects() for _ in words))
    try:
        await effects()
    except (socket.timeout, sqlite3.Error, subprocess.CalledProcessError, OSError) as error:
        raise concurrent.futures.TimeoutError from error
    id = hash = 3
    note: datetime.now() = id + hash  # an annotation of a local is never evaluated
    effects.options(timeout=5)
    asyncio.Lock(), asyncio.get_running_loop().time(), anyio.current_time()
    isinstance(socket.AF_INET, socket.AddressFamily)
    return note


def only_a_task_uses_it() -> float:
    return time.time()


@task
def uses_it() -> float:
    return only_a_task_uses_it()


@workflow
async def calls_it() -> float:
    return await uses_it()
