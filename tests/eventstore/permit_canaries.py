"""Memory stores with one planted bug each in what they do with permits, and the checks that must find it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventstore.memory import MemoryStore
from eventstore.permits import Actions, Held, Limit, Pool
from eventstore.port import Message, Permit
from eventstore.rules import Streams
from tests.eventstore.broken import Broken


def _store(actions: type[Actions]) -> type[Streams]:
    return type(actions.__name__, (Streams,), {"actions_type": actions})


class _OffByOne(Actions):
    def _take(self, pool: Pool, limit: Limit, permit: Permit, held: Held | None) -> None:
        super()._take(pool, Limit(limit.count + 1, limit.window), permit, held)


class GivesOneTooMany(Broken):
    rules = _store(_OffByOne)


class _Passes(Actions):
    def _take(self, pool: Pool, limit: Limit, permit: Permit, held: Held | None) -> None:
        if held is None and pool.waiter(permit.holder) is None and pool.held < limit.count:
            self._hold(pool, permit.holder, self._stream, permit, confirmed=True)
        else:
            super()._take(pool, limit, permit, held)

    def _pump(self, pool: Pool, limit: Limit | None, *, wanted: bool = False) -> None:
        if wanted:
            super()._pump(pool, limit, wanted=wanted)


class ServesTheQueueOnlyWhenAsked(Broken):
    """Lets whoever takes pass those who wait."""

    rules = _store(_Passes)


class _NeverUndoes(Actions):
    def undo(self) -> None:
        """Nothing."""


class KeepsWhatARefusedCommitTook(Broken):
    rules = _store(_NeverUndoes)


class _TrustsTheDead(Actions):
    def _reclaim(self, pool: Pool, limit: Limit) -> None:
        if limit.window is not None:
            super()._reclaim(pool, limit)


class LeavesTheSlotsOfTheDead(Broken):
    rules = _store(_TrustsTheDead)


class _TrustsNobody(Actions):
    def _reclaim(self, pool: Pool, limit: Limit) -> None:
        for holder, _ in pool.granted_until(self._now):
            self._set_permit(pool, holder, None)
        super()._reclaim(pool, limit)


class TakesGrantsFromWhoRests(Broken):
    """Takes a stream that nobody owns for abandoned, though it was only just told."""

    rules = _store(_TrustsNobody)


class _Patient(Actions):
    def _reclaim(self, pool: Pool, limit: Limit) -> None:
        before, self._now = self._now, self._now - 10**12
        try:
            super()._reclaim(pool, limit)
        finally:
            self._now = before


class GrantsForEver(Broken):
    rules = _store(_Patient)


class _FirstInFirstOut(Actions):
    def _enqueue(self, pool: Pool, holder: str, stream: str, priority: int, key: str) -> None:
        super()._enqueue(pool, holder, stream, priority, "the same for all")


class ServesInOrderOfArrival(Broken):
    rules = _store(_FirstInFirstOut)


class _Level(Actions):
    def _enqueue(self, pool: Pool, holder: str, stream: str, priority: int, key: str) -> None:
        super()._enqueue(pool, holder, stream, 0, key)


class KnowsNoPriority(Broken):
    rules = _store(_Level)


class _OneTurnForAll(Actions):
    def _set_turns(self, pool: Pool, turns: Mapping[int, int]) -> None:
        highest = max(turns.values(), default=0)
        super()._set_turns(pool, dict.fromkeys((-1, 0, 1, 5), highest) if turns else turns)


class CountsTheTurnsOfOtherPriorities(Broken):
    """What a busy priority was granted stands before who waits in another."""

    rules = _store(_OneTurnForAll)


class _Keeps(Actions):
    def settle(self, *, closed: bool, limit_changed: bool) -> None:
        super().settle(closed=False, limit_changed=limit_changed)


class KeepsThePermitsOfTheClosed(Broken):
    """Until somebody looks."""

    rules = _store(_Keeps)


class _Unaware(Actions):
    def settle(self, *, closed: bool, limit_changed: bool) -> None:
        super().settle(closed=closed, limit_changed=False)


class TellsNobodyOfAHigherLimit(Broken):
    rules = _store(_Unaware)


class _Silent(Actions):
    def messages(self) -> list[Message]:
        return []


class GrantsWithoutAWord(Broken):
    rules = _store(_Silent)


class _Loud(Actions):
    def _confirm(self, pool: Pool, holder: str, held: Held) -> None:
        granted = dict(self._granted)
        super()._confirm(pool, holder, held)
        self._granted.update(granted)


class TellsWhoHasTakenIt(Broken):
    rules = _store(_Loud)


class _Retaking(Actions):
    def _confirm(self, pool: Pool, holder: str, held: Held) -> None:
        self._set_permit(pool, holder, None)
        self._take(pool, pool.limit or Limit(0, None), Permit(pool=pool.name, holder=holder, action="take"), None)


class TakesASecondTimeWhatIsHeld(Broken):
    rules = _store(_Retaking)


class _StampsOfGrants(Actions):
    def _confirm(self, pool: Pool, holder: str, held: Held) -> None:
        now, self._now = self._now, held.taken_at
        try:
            super()._confirm(pool, holder, held)
        finally:
            self._now = now


class CountsAStartFromItsGrant(Broken):
    rules = _store(_StampsOfGrants)


class _Generous(Actions):
    def _give_up(self, pool: Pool, limit: Limit | None, holder: str) -> None:
        super()._give_up(pool, limit and Limit(limit.count, None), holder)


class GivesStartsBack(Broken):
    rules = _store(_Generous)


class _Calendar(Actions):
    def _reclaim(self, pool: Pool, limit: Limit) -> None:
        if limit.window is not None:
            begun = self._now // limit.window * limit.window
            for holder in pool.taken_until(begun - 1):
                self._set_permit(pool, holder, None)
        super()._reclaim(pool, limit)


class CountsByTheCalendar(Broken):
    """Begins to count anew with every window of the clock, not with every start."""

    rules = _store(_Calendar)


class _Rude(Actions):
    def _perform(self, permit: Permit) -> None:
        pool = self._pools.pool(permit.pool)
        held = pool.permit(permit.holder)
        if held is not None and held.stream != self._stream:
            self._set_permit(pool, permit.holder, None)
        super()._perform(permit)


class LetsOthersTouchAHolder(Broken):
    rules = _store(_Rude)


class _Unrepeated(Streams):
    def apply(self, commit: Any) -> Any:
        stream = self._streams.get(commit.stream)
        if stream is not None and commit.permits and stream.last_commit == commit.id:
            self.actions_type(self._pools, commit.stream, self._clock.now()).perform(commit.permits)
        return super().apply(commit)


class TakesAgainWhenRepeated(Broken):
    rules = _Unrepeated


class _Eager(Streams):
    def _check(self, commit: Any, stream: Any) -> None:
        self.actions_type(self._pools, commit.stream, self._clock.now()).perform(commit.permits)
        super()._check(commit, stream)


class TakesBeforeItLooks(Broken):
    rules = _Eager


PERMIT_CANARIES: dict[type[MemoryStore], tuple[str, ...]] = {
    GivesOneTooMany: (
        "permits.slots_are_taken_and_returned",
        "permits.of_a_group_as_many_are_accepted_as_there_is_room_for",
        "permits.no_limit_is_exceeded_however_commits_interleave",
        "rates.no_window_has_more_starts_than_the_limit",
    ),
    ServesTheQueueOnlyWhenAsked: ("queues.the_first_of_the_queue_is_granted_and_told",),
    KeepsWhatARefusedCommitTook: (
        "permits.several_permits_are_had_together_or_not_at_all",
        "permits.a_refused_commit_changes_nothing",
    ),
    LeavesTheSlotsOfTheDead: ("permits.what_the_dead_held_is_free", "queues.what_the_dead_held_goes_to_who_waits"),
    TakesGrantsFromWhoRests: ("queues.a_grant_that_nobody_takes_goes_to_the_next",),
    GrantsForEver: (
        "queues.a_grant_that_nobody_takes_goes_to_the_next",
        "rates.grants_of_a_rate_lapse_as_any",
    ),
    ServesInOrderOfArrival: (
        "queues.the_queue_goes_by_priority_then_by_turns_then_by_arrival",
        "queues.a_key_with_many_does_not_starve_another",
    ),
    KnowsNoPriority: ("queues.the_queue_goes_by_priority_then_by_turns_then_by_arrival",),
    CountsTheTurnsOfOtherPriorities: ("queues.a_key_with_many_does_not_starve_another",),
    KeepsThePermitsOfTheClosed: ("permits.closing_gives_up_what_the_stream_has",),
    TellsNobodyOfAHigherLimit: ("permits.a_changed_limit_is_seen_by_all",),
    GrantsWithoutAWord: (
        "queues.the_first_of_the_queue_is_granted_and_told",
        "queues.waiting_with_room_is_granted_at_once",
    ),
    TellsWhoHasTakenIt: ("queues.waiting_with_room_is_granted_at_once",),
    TakesASecondTimeWhatIsHeld: ("permits.a_changed_limit_is_seen_by_all",),
    CountsAStartFromItsGrant: (
        "rates.a_start_counts_from_when_it_is_confirmed",
        "rates.no_window_has_more_starts_than_the_limit",
    ),
    GivesStartsBack: ("rates.starts_leave_the_window_by_themselves", "rates.closing_gives_no_start_back"),
    CountsByTheCalendar: ("rates.no_window_has_more_starts_than_the_limit",),
    LetsOthersTouchAHolder: ("permits.a_holder_belongs_to_its_stream",),
    TakesAgainWhenRepeated: ("permits.a_repeated_commit_takes_nothing_again",),
    TakesBeforeItLooks: ("permits.everything_else_is_refused_before",),
}
"""Each broken store, and the checks that must fail on it."""

SEEN_BY_THE_MACHINE: tuple[type[MemoryStore], ...] = (
    CountsAStartFromItsGrant,
    GivesOneTooMany,
    GivesStartsBack,
    GrantsForEver,
    GrantsWithoutAWord,
    KeepsThePermitsOfTheClosed,
    KeepsWhatARefusedCommitTook,
    LeavesTheSlotsOfTheDead,
    TakesGrantsFromWhoRests,
    TellsNobodyOfAHigherLimit,
)
"""Those that random histories must find, too."""
