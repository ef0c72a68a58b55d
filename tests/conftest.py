"""What holds for every test: it cleans up behind itself.

A test that ends while an asyncio task of its loop is pending, or that leaves a thread running, has failed, whatever it
asserted: in a service that would be a leak, and with aiosqlite's non-daemon threads an interpreter that never exits.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

THREAD_END_SECONDS = 5.0
"""How long a thread that was told to stop may take to end. A limit, not a wait: joining returns at once when it ends."""

_THREADS = pytest.StashKey[frozenset[threading.Thread]]()


def pytest_collection_finish() -> None:
    """What lives before the first test is looked through never again: a full collection takes 2 ms instead of 100.

    Hundreds of tests collect garbage after each of their crashes, and every process that runs tests holds all modules
    and all of thousands of test items. Whatever a test makes is collected as ever.
    """
    gc.collect()
    gc.freeze()


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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_THREADS] = frozenset(threading.enumerate())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """After every fixture of the test is torn down, its loop included: no thread may be left that was not there before."""
    outcome = yield
    deadline = time.monotonic() + THREAD_END_SECONDS
    left = []
    for thread in set(threading.enumerate()) - item.stash[_THREADS]:
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            left.append(repr(thread))
    if left:
        pytest.fail("the test left threads running:\n" + "\n".join(sorted(left)), pytrace=False)
    return outcome
