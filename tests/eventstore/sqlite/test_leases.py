"""Leases by file: who beats, who is judged, and what is left on the disk."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import pytest

from eventstore import NEW, Clock, LeaseLost
from eventstore.conformance import TurnedClock
from eventstore.conformance.harness import ANY, begin, claim, event, step
from eventstore.sqlite import SqliteStore
from eventstore.sqlite.leases import LeaseFiles, SqliteLease, _beat_line, _parse_beat
from tests.eventstore.sqlite.children import PATIENCE_SECONDS
from tests.eventstore.sqlite.conftest import Opener


def files(directory: Path, clock: Clock, ttl: float = 10.0) -> LeaseFiles:
    return LeaseFiles(str(directory / "leases"), ttl_seconds=ttl, clock=clock)


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir()) if directory.exists() else []


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


def test_alive_needs_the_lock_and_a_young_beat(tmp_path: Path, clock: TurnedClock) -> None:
    here, elsewhere = files(tmp_path, clock), files(tmp_path, clock, ttl=0.001)
    lease = here.create(1, "worker")
    assert elsewhere.alive(1)
    assert not elsewhere.gone(1)
    clock.let_pass(9.9)
    assert elsewhere.alive(1)  # by the time to live of the holder, not of who looks
    assert lease.fresh()
    clock.let_pass(0.1)
    assert not elsewhere.alive(1)
    assert not elsewhere.gone(1)  # it is stopped, and may go on
    assert not lease.fresh()
    lease.end()
    assert not elsewhere.alive(1)
    assert elsewhere.gone(1)


def test_a_beat_keeps_it_alive(tmp_path: Path, clock: TurnedClock) -> None:
    here = files(tmp_path, clock)
    lease = here.create(1, "worker")
    for _ in range(5):
        clock.let_pass(9)
        assert lease.beat()
        assert here.alive(1)
        assert lease.fresh()
    lease.end()
    assert not lease.beat()


def test_a_lapse_is_final(tmp_path: Path, clock: TurnedClock) -> None:
    """Somebody may have judged it dead meanwhile: going on as if nothing had been would let two believe they own."""
    here = files(tmp_path, clock)
    lease = here.create(1, "worker")
    clock.let_pass(10)
    assert not lease.beat()
    assert not lease.fresh()
    assert not here.alive(1)
    clock._monotonic -= 10  # even on a clock that went back
    assert not lease.fresh()
    lease.end()


def test_the_time_of_day_does_not_matter(tmp_path: Path, clock: TurnedClock) -> None:
    here = files(tmp_path, clock)
    lease = here.create(1, "worker")
    clock.turn(3_600)
    assert lease.fresh()
    clock.turn(-7_200)
    assert lease.fresh()
    assert here.alive(1)
    lease.end()


def test_a_beat_that_is_read_while_it_is_written_is_seen_as_torn() -> None:
    old, new = _beat_line(1_234.5, 10.0), _beat_line(9_999.25, 10.0)
    assert len(old) == len(new)
    assert _parse_beat(new) == (9_999.25, 10.0)
    for cut in range(1, len(new)):
        torn = _parse_beat(new[:cut] + old[cut:])
        assert torn in (None, (9_999.25, 10.0), (1_234.5, 10.0)), cut
    for line in (b"", b"\n", new[:-1], new[: len(new) // 2]):
        assert _parse_beat(line) is None


def test_what_dead_workers_leave_is_swept(tmp_path: Path, clock: TurnedClock) -> None:
    here = files(tmp_path, clock)
    living, dead = here.create(1, "living"), here.create(2, "dead")
    dead.forget()
    (tmp_path / "leases" / "not-a-lease").touch()
    here.sweep()
    assert names_in(tmp_path / "leases") == ["1", "not-a-lease"]
    living.end()


def test_an_unknown_lease_is_dead(tmp_path: Path, clock: TurnedClock) -> None:
    assert not files(tmp_path, clock).alive(7)
    assert files(tmp_path, clock).gone(7)
    files(tmp_path, clock).sweep()


async def test_opening_sweeps(path: Path, opened: Opener) -> None:
    store = await opened()
    async with store.lease("worker") as lease, store.lease("living") as living:
        assert isinstance(lease, SqliteLease)
        lease.forget()
        await opened()
        assert names_in(Path(f"{path}-leases")) == [str(living.token)]


async def test_a_lease_beats_by_itself_and_costs_no_transaction(path: Path, opened: Opener) -> None:
    store = await opened(lease_ttl=0.2)
    async with store.lease("worker") as lease:
        file = path.parent / "store.db-leases" / str(lease.token)
        seen = {file.read_bytes()}
        changes = await store._writer.data_version()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(seen) < 8:  # longer than its time to live
                await asyncio.sleep(0.005)
                seen.add(file.read_bytes())
        assert lease.fresh()
        assert await store._writer.data_version() == changes
    assert not file.exists()
    assert not any(thread.name.startswith("holdfast-lease") for thread in threading.enumerate())


async def test_a_lapsed_lease_claims_no_more_but_may_write_what_it_still_owns(path: Path, opened: Opener) -> None:
    store, other = await opened(lease_ttl=3_600), await opened()
    async with store.lease("paused") as paused, other.lease("heir") as heir:
        await begin(store, "run:a", "run:b", lease=paused)
        assert isinstance(paused, SqliteLease)
        with paused._lock:
            paused._beat_at -= 3_600
            paused._write(paused._beat_at)
        assert not paused.fresh()
        with pytest.raises(LeaseLost, match="take a new one"):
            await claim(store, paused)
        await asyncio.wait_for(store.wait(paused, timeout=3_600), PATIENCE_SECONDS)  # so that it is told
        heads = await other.claim(heir, query=ANY, limit=1)
        lost = heads[0].stream
        kept = "run:b" if lost == "run:a" else "run:a"
        with pytest.raises(LeaseLost):
            await store.commit(step(lost, 1, event(), lease=paused))
        assert (await store.commit(step(kept, 1, event(), lease=paused))).owner == paused.token


LATE = 12


@pytest.mark.parametrize("turns", range(LATE + 1))
async def test_a_lease_that_is_cancelled_while_it_is_given_out_leaves_nothing(
    path: Path, store: SqliteStore, turns: int
) -> None:
    entered = False

    async def work() -> None:
        nonlocal entered
        async with store.lease("worker"):
            entered = True
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    for _ in range(turns):
        await asyncio.sleep(0)
    while turns == LATE and not entered:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await begin(store, "run:a")  # behind whatever the cancellation left in the queue
    await begin(store, "run:b")
    assert entered or turns < LATE
    assert store._leases == {}
    assert names_in(path.parent / "store.db-leases") == []
    assert not any(thread.name.startswith("holdfast-lease") for thread in threading.enumerate())


async def test_closing_ends_the_leases_of_the_store(path: Path, opened: Opener) -> None:
    store, other = await opened(), await opened()
    async with other.lease("heir") as heir:
        async with store.lease("worker") as lease:
            await begin(store, "run:a", lease=lease)
            await store.aclose()
            assert not lease.fresh()
            assert await claim(other, heir) == ["run:a"]
        ended = await other._readers.run(
            lambda connection: connection.execute("SELECT token FROM leases WHERE ended_at IS NOT NULL").fetchall()
        )
        assert ended == [(lease.token,)]


async def test_a_cancelled_claim_takes_nothing(path: Path, store: SqliteStore) -> None:
    """An orphan that was claimed for a caller who went away is an orphan again, at every moment of cancelling."""
    async with store.lease("heir") as heir:
        async with store.lease("worker") as lease:
            await begin(store, "run:a", lease=lease)
        for turns in range(40):
            task = asyncio.create_task(store.claim(heir, query=ANY, limit=1))
            for _ in range(turns):
                await asyncio.sleep(0)
            told = task.done()
            task.cancel()
            await asyncio.wait([task])
            if told:
                break
            await begin(store, f"other:{turns}")  # behind the giving back
        else:
            told = bool(await store.claim(heir, query=ANY, limit=1))
        assert told
        head = await store.head("run:a")
        assert (head.owner, head.claims) == (heir.token, 1)
    gc.collect()


async def test_a_new_stream_under_an_ended_lease(store: SqliteStore) -> None:
    async with store.lease("worker") as lease:
        pass
    results = await asyncio.gather(
        *(store.commit(step(f"run:{number}", NEW, event(), lease=lease)) for number in range(3)),
        store.commit(step("run:free", NEW, event())),
        return_exceptions=True,
    )
    assert [type(result) for result in results[:3]] == [LeaseLost] * 3
    assert results[3].version == 1
