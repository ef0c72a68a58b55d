"""Suspended runs go on by themselves, once the code that they wait for is there.

A worker looks for suspended runs of its workflows when it begins, when it learns of another workflow, and now and then.
One that its code has not been tried on is replayed, on the side: nothing of it is claimed for that. If it fits, that is
recorded (`RunResumed`), and the run is claimed like any other. If not, that is recorded too, with the new diagnosis, so
that the same code never tries it again: restarts cost nothing. Runs that are parked for killing their workers are left
to a person, and so are paused ones.

**Old and new workers on one store.** A run that went on with the new code does not fit the old one, whose workers would
claim it and suspend it again, for ever in turn. So a run that went on like this is *bound* to the code that fits it
(attribute `code`), and workers of other code do not claim it. A worker that begins with another code, which fits as
well, binds it to that. A run that is due, and still is so at the next look, as nobody has its code any more, is claimed
by any other: it is bound to that one then, or suspended by it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any, Final, Protocol

from msgspec import UNSET, UnsetType, structs

from engine.core.call import Definition
from engine.core.compare import Diagnosis
from engine.core.events import RunResumed
from engine.runtime.claims import marked
from engine.runtime.codes import GOES_ON, suspended_with, was_tried
from engine.runtime.gates import due_at, gates_of, is_waiting
from engine.runtime.histories import moment_behind, read_known_state
from engine.runtime.recovery import try_run
from engine.runtime.site import Site
from engine.runtime.streams import (
    BOUND,
    CODE,
    RUN_CATEGORY,
    STATUS,
    SUSPENDED_FOR,
    WORKFLOW,
    new_event,
    run_id_of,
    suspension,
)
from eventstore import (
    Commit,
    EventStoreError,
    LeaseLost,
    NewEvent,
    StreamHead,
    StreamNotFound,
    StreamQuery,
    find_all,
)
from eventstore.errors import VersionConflict
from eventstore.port import Scalar

__all__ = ["LOOK_SECONDS", "Mending", "bind"]

LOOK_SECONDS: Final = 30.0
"""Between two looks for suspended runs, and for runs that are bound to a code that no worker has any more."""
OVERDUE_MAX: Final = 16
"""Runs that are taken up at one look, as nobody has their code any more."""


class Home(Site, Protocol):
    """The worker that looks."""

    def has(self, run_id: str) -> bool: ...
    def take(self, head: StreamHead) -> None: ...


class Mending:
    """See the module. Of one worker; `only` as its engine was told."""

    def __init__(self, home: Home, *, name: str, only: tuple[str, ...] | None) -> None:
        self._home = home
        self._name = name
        self._only = only
        self._known: set[str] = set()  # workflows at the last look
        self._due: dict[str, tuple[int, int | None]] = {}  # bound runs then: by stream, the version and the owner
        self._looked_at: float | None = None  # seconds
        self._looking = False

    @property
    def is_due(self) -> bool:
        """Whether it is time to look again."""
        if self._looked_at is None or not self._known.issuperset(self._home.definitions):
            return True
        return self._home.clock.monotonic() - self._looked_at >= LOOK_SECONDS

    def look(self) -> None:
        """Look, beside everything else, unless that is under way."""
        if not self._looking:
            self._looking = True
            self._looked_at = self._home.clock.monotonic()
            new = set(self._home.definitions).difference(self._known)
            self._known |= new
            self._home.spawn(self._look(tuple(self._known), new))

    async def _look(self, workflows: Iterable[str], new: Collection[str]) -> None:
        """`new`: those of the workflows that it has not looked for before."""
        try:
            async for head in self._marked(workflows, {STATUS: "suspended"}):
                if self._home.stopping:
                    return
                await self._try(head)
            due, self._due = self._due, {}
            overdue: list[str] = []
            async for head in self._marked(workflows, {BOUND: True}):
                if self._home.stopping:
                    return
                if await self._is_overdue(head, due, new=head.attributes[WORKFLOW] in new):
                    overdue.append(head.stream)
            if overdue:
                await self._claim(overdue)
        except LeaseLost:
            return  # the worker takes another
        except EventStoreError as error:
            self._home.failed(error)
        finally:
            self._looking = False

    async def _marked(self, workflows: Iterable[str], mark: Mapping[str, Scalar]) -> AsyncIterator[StreamHead]:
        for query in marked(workflows, self._only, mark):
            async for head in find_all(self._home.store, structs.replace(query, closed=False, newest_first=False)):
                yield head

    async def _try(self, head: StreamHead) -> None:
        home = self._home
        definition = home.definitions.of(head.attributes)
        if definition is None or head.owner is not None or home.has(run_id_of(head.stream)):
            return
        code = home.codes.of(definition)
        if was_tried(head.attributes, code) or await self._reason(head) == "crashes":
            return
        diagnosis = await self._replay(head, definition)
        at = await moment_behind(home.store, head, home.clock)
        if diagnosis is not None:
            note = suspension(diagnosis, at=at)
            await self._write(head, note, suspended_with(head.attributes, code, diagnosis.reason))
            return
        note = new_event(RunResumed(at=at, by=f"engine {self._name}, code {code}"))
        gates = gates_of(head, reopened=True)  # its code fits, and it may have to wait for its turn all the same
        going = {**GOES_ON, STATUS: gates.status(waiting=is_waiting(head)), CODE: code, BOUND: True}
        await self._write(head, note, going, alarm=due_at(head, home.clock.now()), held=bool(gates))

    # -- bound runs ----------------------------------------------------------------------------------------------------

    async def _is_overdue(self, head: StreamHead, due: Mapping[str, tuple[int, int | None]], *, new: bool) -> bool:
        """Whether a run that is bound to other code was due at the last look, too, and nobody has done anything."""
        home = self._home
        definition = home.definitions.of(head.attributes)
        if definition is None or head.attributes.get(CODE) == home.codes.of(definition):
            return False
        if new and head.owner is None and await self._replay(head, definition) is None:
            await self._write(head, None, {CODE: home.codes.of(definition)})
            return False
        head = await home.store.head(head.stream)
        if head.owner is not None or head.messages or (head.alarm is not None and head.alarm <= home.clock.now()):
            self._due[head.stream] = found = (head.version, head.owner)
            return due.get(head.stream) == found
        return False

    async def _claim(self, streams: list[str]) -> None:
        """What nobody takes that lives: the store knows who does."""
        home = self._home
        query = StreamQuery(category=RUN_CATEGORY, streams=tuple(streams[:OVERDUE_MAX]))
        for head in await home.store.claim(home.lease, query=query, limit=OVERDUE_MAX):
            home.take(head)

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _reason(self, head: StreamHead) -> str:
        reason = head.attributes.get(SUSPENDED_FOR)
        if reason is not None:
            return str(reason)
        diagnosis = (await read_known_state(self._home.store, head)).diagnosis  # suspended before that was marked
        return "" if diagnosis is None else diagnosis.reason

    async def _replay(self, head: StreamHead, definition: Definition[..., Any]) -> Diagnosis | None:
        """How the code does not fit; None: it does."""
        home = self._home
        tried = await try_run(home.store, head, definition, home.watchdog, versions=home.definitions.find)
        if isinstance(tried, Diagnosis):
            return tried
        tried.replayer.instance.evict()
        return None

    async def _write(
        self,
        head: StreamHead,
        note: NewEvent | None,
        attributes: Mapping[str, Scalar],
        *,
        alarm: int | UnsetType = UNSET,
        held: bool | UnsetType = UNSET,
    ) -> None:
        """Put it down, unless the run has moved meanwhile."""
        try:
            await self._home.store.commit(
                Commit(
                    id=self._home.next_commit_id(),
                    stream=head.stream,
                    expected_version=head.version,
                    events=() if note is None else (note,),
                    attributes=attributes,
                    alarm=alarm,
                    held=held,
                )
            )
        except (VersionConflict, LeaseLost, StreamNotFound):
            return  # somebody was asked to let it go on, or to end it; or another worker was quicker


async def bind(home: Site, head: StreamHead, definition: Definition[..., Any]) -> StreamHead:
    """A run that was bound to other code, and fits this one: bind it to this. Raises what the store raises."""
    code = home.codes.of(definition)
    if head.attributes.get(CODE) in (None, code):
        return head
    return await home.store.commit(
        Commit(
            id=home.next_commit_id(),
            stream=head.stream,
            expected_version=head.version,
            attributes={CODE: code, BOUND: True},
            lease=home.lease,
        )
    )
