"""What holds for every test: it cleans up behind itself.

A test that ends while an asyncio task of its loop is pending, or that leaves a thread running, has failed, whatever it
asserted: in a service that would be a leak, and with aiosqlite's non-daemon threads an interpreter that never exits.
"""

from __future__ import annotations

import asyncio
import compileall
import faulthandler
import gc
import inspect
import itertools
import os
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests change files and run them again within the second: bytecode would be taken for that of the changed file.
# That of the project's own files is kept: `_loading`.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

THREAD_END_SECONDS = 5.0
"""How long a thread that was told to stop may take to end. A limit, not a wait: joining returns at once when it ends."""

# The same examples each time, and no example is too slow: by default nothing fails by chance.
settings.register_profile(
    "holdfast",
    deadline=None,
    derandomize=not os.environ.get("HOLDFAST_TEST_EVERY"),
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("holdfast")

HANG_SECONDS = 300.0
"""After which a test hangs: it shows where, and its process ends, so that the run does, too."""

ARMED_SECONDS = 20.0
"""For how long one alarm serves the tests that begin: to wait for its thread's end and start another takes a millisecond."""

ROOT = Path(__file__).parents[1]

_THREADS = pytest.StashKey[frozenset[threading.Thread]]()
_NUMBERS = itertools.count()
_armed = -ARMED_SECONDS


@pytest.fixture(autouse=True, scope="module")
def _old_things_are_not_looked_through() -> None:
    """What lives before a module's tests is nothing that they make: collections need not look through it each time.

    Hundreds of tests collect garbage after each of their crashes. A process that runs tests holds all modules, thousands
    of test items, and what is remembered of the tests so far: looking through that took 100 ms, and takes 2 without.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, as pytest makes one; which looks through all there are to number it: milliseconds when there are thousands."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    return tmp_path_factory.mktemp(f"{name}-{next(_NUMBERS)}", numbered=False)


@pytest.fixture
async def _no_pending_tasks() -> AsyncIterator[None]:
    yield
    await asyncio.sleep(0)  # callbacks of what has just ended run now; whatever then still lives was left behind
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        pytest.fail("the test left asyncio tasks behind:\n" + "\n".join(sorted(map(repr, left))), pytrace=False)


@pytest.fixture(autouse=True)
def _tidy_loop(request: pytest.FixtureRequest) -> None:
    """Watches the loop of tests that have one, from the inside; set up first, it looks after every other fixture ended."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_pending_tasks")


@contextmanager
def _loading() -> Iterator[None]:
    """Bytecode is kept, for the processes that tests start and for the next run; what is loaded stays, and is no garbage."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        sys.dont_write_bytecode = before


def pytest_configure(config: pytest.Config) -> None:
    """What is tested is compiled before there are workers."""
    if not hasattr(config, "workerinput"):
        with _loading():
            for package in ("engine", "eventstore"):
                compileall.compile_dir(ROOT / package, quiet=2)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collecting garbage while tests were collected took most of that time, and found none."""
    with _loading():
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """What is left is not looked through ten times more, as pytest does when it ends."""
    faulthandler.cancel_dump_traceback_later()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_THREADS] = frozenset(threading.enumerate())
    global _armed
    if time.monotonic() - _armed > ARMED_SECONDS:
        _armed = time.monotonic()
        faulthandler.dump_traceback_later(HANG_SECONDS + ARMED_SECONDS, exit=True, file=sys.__stderr__)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After every fixture of the test is torn down, its loop included: no thread may be left that was not there before."""
    outcome = yield
    if nextitem is None:
        global _armed
        _armed = -ARMED_SECONDS
        faulthandler.cancel_dump_traceback_later()
    deadline = time.monotonic() + THREAD_END_SECONDS
    left = []
    for thread in set(threading.enumerate()) - item.stash[_THREADS]:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            left.append(repr(thread))
    if left:
        pytest.fail("the test left threads running:\n" + "\n".join(sorted(left)), pytrace=False)
    return outcome
