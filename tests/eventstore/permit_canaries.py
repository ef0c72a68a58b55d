"""Memory stores with one planted bug each in what they do with permits, and the checks that must find it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from eventstore.errors import LimitReached
from eventstore.holding import Held, Limit, Pool, Waiting
from eventstore.memory import MemoryStore
from eventstore.permits import Actions
from eventstore.port import Commit, Message, Permit
from eventstore.rules import Streams
from tests.eventstore.broken import Broken


def _store(actions: type[Actions]) -> type[Streams]:
    return type(actions.__name__, (Streams,), {"actions_type": actions})


def token_of(commit: Commit) -> int | None:
    return None if commit.lease is None else commit.lease.token


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
    def _enqueue(self, pool: Pool, holder: str, stream: str, of: Permit | Held) -> None:
        super()._enqueue(pool, holder, stream, replace(of, key="the same for all"))


class ServesInOrderOfArrival(Broken):
    rules = _store(_FirstInFirstOut)


class _Level(Actions):
    def _enqueue(self, pool: Pool, holder: str, stream: str, of: Permit | Held) -> None:
        super()._enqueue(pool, holder, stream, replace(of, priority=0))


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
    def settle(self, *, closed: bool, released: bool, limit_changed: bool) -> bool:
        return super().settle(closed=False, released=released and not closed, limit_changed=limit_changed)


class KeepsThePermitsOfTheClosed(Broken):
    """Until somebody looks."""

    rules = _store(_Keeps)


class _Unaware(Actions):
    def settle(self, *, closed: bool, released: bool, limit_changed: bool) -> bool:
        return super().settle(closed=closed, released=released, limit_changed=False)


class TellsNobodyOfAHigherLimit(Broken):
    rules = _store(_Unaware)


class _Silent(Actions):
    def messages(self) -> list[Message]:
        return []


class GrantsWithoutAWord(Broken):
    rules = _store(_Silent)


class _Loud(Actions):
    def _confirm(self, pool: Pool, permit: Permit, held: Held) -> None:
        granted = dict(self._granted)
        super()._confirm(pool, permit, held)
        self._granted.update(granted)


class TellsWhoHasTakenIt(Broken):
    rules = _store(_Loud)


class _Retaking(Actions):
    def _confirm(self, pool: Pool, permit: Permit, held: Held) -> None:
        self._set_permit(pool, permit.holder, None)
        self._take(pool, pool.limit or Limit(0, None), permit, None)


class TakesASecondTimeWhatIsHeld(Broken):
    rules = _store(_Retaking)


class _StampsOfGrants(Actions):
    def _confirm(self, pool: Pool, permit: Permit, held: Held) -> None:
        now, self._now = self._now, held.taken_at
        try:
            super()._confirm(pool, permit, held)
        finally:
            self._now = now


class CountsAStartFromItsGrant(Broken):
    rules = _store(_StampsOfGrants)


class _Generous(Actions):
    def _give_up(self, pool: Pool, limit: Limit | None, holder: str) -> bool:
        return super()._give_up(pool, limit and Limit(limit.count, None), holder)


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
            self.actions_type(self._pools, commit.stream, self._clock.now(), token_of(commit)).perform(commit.permits)
        return super().apply(commit)


class TakesAgainWhenRepeated(Broken):
    rules = _Unrepeated


class _Eager(Streams):
    def _check(self, commit: Any, stream: Any) -> None:
        self.actions_type(self._pools, commit.stream, self._clock.now(), token_of(commit)).perform(commit.permits)
        super()._check(commit, stream)


class TakesBeforeItLooks(Broken):
    rules = _Eager


# How long a permit is held.


class _TrustsAnyOwner(Streams):
    def _looked_after(self, permit: Held) -> bool:
        stream = self._streams[permit.stream]
        if permit.token is None or stream.owner is None:
            return super()._looked_after(permit)
        return self._alive(stream.owner)


class KeepsWhatTheDeadHeldWithItsStream(Broken):
    """For whoever took the stream over, which has no such attempts."""

    rules = _TrustsAnyOwner


class _Spares(Actions):
    def _reclaim(self, pool: Any, limit: Limit) -> None:
        own = {holder: held for holder, held in pool._permits.items() if held.stream == self._stream and held.confirmed}
        super()._reclaim(pool, limit)
        if limit.window is None:
            for holder, held in own.items():
                self._set_permit(pool, holder, held)


class SparesWhatItsOwnStreamHeld(Broken):
    """Under whatever lease: the heir stands in its own way."""

    rules = _store(_Spares)


class _Content(Actions):
    def _wait(self, pool: Pool, limit: Limit, permit: Permit, held: Held | None) -> None:
        if held is None and pool.waiter(permit.holder) is None:
            self._enqueue(pool, permit.holder, self._stream, permit)
        self._pump(pool, limit)


class ForgetsWhoWaitsForWhatADeadOwnerHeld(Broken):
    """Takes the dead one's permit for one that is held: reclaims it, and nobody is in the queue."""

    rules = _store(_Content)


class _Unsparing(Actions):
    def _reclaim(self, pool: Any, limit: Limit) -> None:
        if self._token is None and limit.window is None:
            for holder in [holder for holder, held in pool._permits.items() if held.confirmed and held.token is None]:
                if not pool.permit(holder).lasting:
                    self._set_permit(pool, holder, None)
        super()._reclaim(pool, limit)


class TakesFromItselfWithoutALease(Broken):
    rules = _store(_Unsparing)


class _Forgetful(Actions):
    def _confirm(self, pool: Pool, permit: Permit, held: Held) -> None:
        super()._confirm(pool, permit, held)
        if held.confirmed and not permit.lasting:
            self._set_permit(pool, permit.holder, held)


class ForgetsWhoTookItAgain(Broken):
    """What is taken again stays the old lease's."""

    rules = _store(_Forgetful)


class _Younger(Actions):
    def _confirm(self, pool: Pool, permit: Permit, held: Held) -> None:
        super()._confirm(pool, permit, replace(held, confirmed=False))


class TakesAgainForADifferentTime(Broken):
    """Whoever takes again what it has seems to have taken it only now."""

    rules = _store(_Younger)


class _KeepsReleased(Actions):
    def settle(self, *, closed: bool, released: bool, limit_changed: bool) -> bool:
        return super().settle(closed=closed, released=False, limit_changed=limit_changed)


class KeepsThePermitsOfTheReleased(Broken):
    """Until somebody looks."""

    rules = _store(_KeepsReleased)


class _Thorough(Actions):
    def _ends(self, pool: Pool, holder: str, *, closed: bool, released: bool) -> bool:
        return True


class GivesUpAllWithTheStream(Broken):
    """Places in the queue, grants and what is lasting, too; and when it is closed what its owner still uses."""

    rules = _store(_Thorough)


class _Hasty(Actions):
    def settle(self, *, closed: bool, released: bool, limit_changed: bool) -> bool:
        return super().settle(closed=closed, released=released or closed, limit_changed=limit_changed)


class TakesWhatTheLastAttemptsOfAClosedStreamUse(Broken):
    rules = _store(_Hasty)


class _Tolerant(Actions):
    def _ends(self, pool: Pool, holder: str, *, closed: bool, released: bool) -> bool:
        held = pool.permit(holder)
        return held is not None and held.confirmed and super()._ends(pool, holder, closed=closed, released=released)


class LeavesTheClosedInTheQueue(Broken):
    """With what they were granted."""

    rules = _store(_Tolerant)


class _NeverLasting(Actions):
    def _perform(self, permit: Permit) -> None:
        super()._perform(replace(permit, lasting=False))


class KnowsNothingThatLasts(Broken):
    rules = _store(_NeverLasting)


class _Outlasting(Actions):
    def _ends(self, pool: Pool, holder: str, *, closed: bool, released: bool) -> bool:
        held = pool.permit(holder)
        return super()._ends(pool, holder, closed=closed, released=released) and not (held and held.lasting)


class KeepsWhatLastsOfTheClosed(Broken):
    """For ever, as nobody returns it."""

    rules = _store(_Outlasting)


class _AsItIsTaken(Actions):
    def _confirm(self, pool: Pool, permit: Permit, held: Held) -> None:
        super()._confirm(pool, permit, replace(held, lasting=False))


class MakesWhatLastsTheOwners(Broken):
    """When it is taken again without a word of that."""

    rules = _store(_AsItIsTaken)


class _AsItWas(Actions):
    def _confirm(self, pool: Pool, permit: Permit, held: Held) -> None:
        super()._confirm(pool, replace(permit, lasting=False), held)


class MakesNothingLastThatIsHeld(Broken):
    rules = _store(_AsItWas)


class _Tentative(Actions):
    def _hold(self, pool: Pool, holder: str, stream: str, of: Permit | Waiting, *, confirmed: bool) -> None:
        super()._hold(pool, holder, stream, of, confirmed=confirmed and isinstance(of, Permit))


class GrantsWhatLastsForAWhile(Broken):
    """Until it is taken, as any grant, or goes to the next."""

    rules = _store(_Tentative)


class _Misleads(Actions):
    def _take(self, pool: Any, limit: Limit, permit: Permit, held: Held | None) -> None:
        try:
            super()._take(pool, limit, permit, held)
        except LimitReached as refusal:
            refusal.held_by = pool._oldest_first()[-1][0] if pool.held else None
            raise


class NamesTheLastWhoTookIt(Broken):
    """To who is refused; also of a limit of 0."""

    rules = _store(_Misleads)


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
    KeepsThePermitsOfTheClosed: (
        "holding.closing_gives_up_what_the_stream_has",
        "holding.a_closed_stream_holds_what_its_owner_took",
    ),
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
    KeepsWhatTheDeadHeldWithItsStream: (
        "holding.what_the_dead_held_is_free_though_its_stream_lives_on",
        "holding.what_is_taken_again_under_the_next_lease_goes_on",
    ),
    SparesWhatItsOwnStreamHeld: ("holding.who_takes_a_stream_over_is_not_in_its_own_way",),
    ForgetsWhoWaitsForWhatADeadOwnerHeld: ("holding.who_waits_for_what_a_dead_owner_held_is_in_the_queue",),
    TakesFromItselfWithoutALease: ("holding.what_is_taken_without_a_lease_is_free_when_it_is_wanted",),
    ForgetsWhoTookItAgain: (
        "holding.what_is_taken_again_under_the_next_lease_goes_on",
        "holding.what_is_taken_without_a_lease_is_free_when_it_is_wanted",
    ),
    TakesAgainForADifferentTime: ("holding.who_is_refused_learns_who_holds",),
    KeepsThePermitsOfTheReleased: (
        "holding.releasing_a_stream_returns_what_it_holds",
        "holding.a_closed_stream_holds_what_its_owner_took",
    ),
    GivesUpAllWithTheStream: (
        "holding.releasing_a_stream_returns_what_it_holds",
        "holding.a_closed_stream_holds_what_its_owner_took",
        "holding.a_lasting_permit_is_the_streams_own",
        "queues.the_first_of_the_queue_is_granted_and_told",
    ),
    TakesWhatTheLastAttemptsOfAClosedStreamUse: ("holding.a_closed_stream_holds_what_its_owner_took",),
    LeavesTheClosedInTheQueue: ("holding.closing_gives_up_what_the_stream_has",),
    KnowsNothingThatLasts: (
        "holding.a_lasting_permit_is_the_streams_own",
        "holding.who_waits_for_a_lasting_permit_has_it_when_it_is_granted",
    ),
    KeepsWhatLastsOfTheClosed: (
        "holding.closing_gives_up_what_the_stream_has",
        "holding.a_closed_stream_holds_what_its_owner_took",
        "holding.a_lasting_permit_is_the_streams_own",
    ),
    MakesWhatLastsTheOwners: ("holding.taking_makes_a_permit_lasting_and_never_the_reverse",),
    MakesNothingLastThatIsHeld: ("holding.taking_makes_a_permit_lasting_and_never_the_reverse",),
    GrantsWhatLastsForAWhile: ("holding.who_waits_for_a_lasting_permit_has_it_when_it_is_granted",),
    NamesTheLastWhoTookIt: ("holding.who_is_refused_learns_who_holds",),
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
    NamesTheLastWhoTookIt,
    TakesFromItselfWithoutALease,
    TakesGrantsFromWhoRests,
    TellsNobodyOfAHigherLimit,
)
"""Those that random histories must find, too."""

SEEN_BY_THE_MACHINE_OF_TENURE: tuple[type[MemoryStore], ...] = (
    ForgetsWhoTookItAgain,
    GivesUpAllWithTheStream,
    GrantsWhatLastsForAWhile,
    KeepsThePermitsOfTheReleased,
    KeepsWhatLastsOfTheClosed,
    KeepsWhatTheDeadHeldWithItsStream,
    KnowsNothingThatLasts,
    LeavesTheClosedInTheQueue,
    MakesNothingLastThatIsHeld,
    MakesWhatLastsTheOwners,
    SparesWhatItsOwnStreamHeld,
    TakesAgainForADifferentTime,
    TakesWhatTheLastAttemptsOfAClosedStreamUse,
)
"""And those that random histories of takeovers must."""
