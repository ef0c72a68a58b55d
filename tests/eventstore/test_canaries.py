"""A check that cannot fail proves nothing: every planted bug is found by the checks named for it."""

from __future__ import annotations

import asyncio

import pytest

from eventstore.conformance import CHECKS, Check, MemoryHarness, harness, name_of
from eventstore.memory import MemoryStore
from tests.eventstore.canaries import CANARIES
from tests.eventstore.moving_canaries import MOVING_CANARIES
from tests.eventstore.permit_canaries import PERMIT_CANARIES

PATIENCE_SECONDS = 0.5
"""Instead of the suite's: a wake-up that is lost here never comes, and need not be waited for long."""
BY_NAME: dict[str, Check] = {name_of(check): check for check in CHECKS}
ALL = CANARIES | PERMIT_CANARIES | MOVING_CANARIES
PAIRS = [(store_type, name) for store_type, names in ALL.items() for name in names]


@pytest.mark.parametrize(("store_type", "name"), PAIRS, ids=[f"{one.__name__}-{name}" for one, name in PAIRS])
async def test_the_named_check_finds_the_planted_bug(
    store_type: type[MemoryStore], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "PATIENCE_SECONDS", PATIENCE_SECONDS)
    broken = MemoryHarness(store_type)
    try:
        with pytest.raises(Exception) as failure:
            await BY_NAME[name](broken)
    finally:
        await broken.aclose()
        await _end_what_the_failure_left_running()
    assert not isinstance(failure.value, (AttributeError, TypeError, NameError)), failure.value


async def test_the_same_checks_pass_on_the_store_without_the_bug() -> None:
    for name in sorted({name for _, name in PAIRS}):
        whole = MemoryHarness()
        await BY_NAME[name](whole)
        await whole.aclose()


def test_every_check_says_what_it_is_about() -> None:
    assert len(BY_NAME) == len(CHECKS) > 100
    for check in CHECKS:
        assert check.__doc__, name_of(check)


async def _end_what_the_failure_left_running() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)
    await asyncio.get_running_loop().shutdown_asyncgens()
    for task in left:
        if not task.cancelled():
            task.exception()
