"""Memos: results of tasks, kept under a key for later calls, in whichever run (`engine.tasks.Memo`).

A memo is a stream of its own, named after the task and a SHA-256 over task name, code version and key; its newest event
counts. The engine writes it, under no lease, once the task's completion is durable, and looks it up before a call that
was never tried asks for a slot. What is found is recorded in the run as the call's outcome: a replay looks up nothing.

It is a cache. What is missing, expired, destroyed or unreadable is a miss, and then the task runs; a crash between a
completion and its memo costs one attempt. Only a store that fails is an error: the engine's, as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Struct

from engine.core.events import ResultMemoised, TaskCompleted, TaskFailed, decode_header
from engine.core.failures import describe
from engine.core.instance import Instance
from engine.core.pending import PendingTask
from engine.core.values import ValueCodec
from engine.errors import HistoryError, NotRecordable
from engine.runtime.attempts import Failed, Outcome, Reused
from engine.runtime.dispatch import Spawn
from engine.runtime.histories import head_or_none
from engine.runtime.large_values import LARGE
from engine.runtime.steps import Step
from engine.runtime.streams import MEMO_CATEGORY, MEMO_OF, new_event
from engine.tasks import Task
from eventstore import NEW, Clock, Commit, EventStore, StreamQuery, VersionConflict
from eventstore.port import FIND_LIMIT_MAX

__all__ = ["KEY_BYTES_SHOWN", "Keyed", "Lookups", "Memos", "keyed"]

KEY_BYTES_SHOWN: Final = 1_000
"""A key that takes no more stands in the memo's event, for people who read it."""
_NAME_SHOWN: Final = 100  # characters of the task's name in the stream's; the digest is over all of it
_OUTCOMES: Final = (TaskCompleted, TaskFailed)


class Keyed(Struct, frozen=True):
    """Where results of one call are kept, and what makes them its."""

    stream: str
    code_version: str
    key: bytes


def keyed(definition: Task[..., Any], arguments: bytes) -> Keyed:
    """Of a call with these recorded arguments. Raises what the memo's key function does, `ArgumentsError` and
    `NotRecordable`, and `DefinitionError` when a code version is to be made of source that cannot be read.
    """
    memo = definition.policy.memo
    assert memo is not None
    key = arguments
    if memo.key is not None:
        args, kwargs = definition.arguments.decode(arguments, LARGE)
        try:
            value = memo.key(*args, **kwargs)
        except Exception as error:
            error.add_note(f"raised by the key function of the memo of {definition.where}")
            raise
        key = ValueCodec(Any, f"the memo key of {definition.where}").encode(value)
    version = memo.version or definition.source.get(definition.where)
    # JSON holds no zero byte: whatever is in a name or a version, the three cannot be mistaken for three others.
    digest = sha256(msgspec.json.encode([definition.name, version]) + b"\x00" + key).hexdigest()
    return Keyed(f"{MEMO_CATEGORY}:{definition.name[:_NAME_SHOWN]}:{digest}", version, key)


class _Stands(Struct, frozen=True):
    """How a memo's stream stands. `empty`: nothing of it is to be used any more."""

    version: int
    empty: bool


_NOT_THERE: Final = _Stands(NEW, empty=True)


class Memos:
    """The memos of one store, as one worker looks them up and writes them."""

    def __init__(self, store: EventStore, *, clock: Clock, spawn: Spawn, next_commit_id: Callable[[], str]) -> None:
        self.spawn = spawn
        self._store = store
        self._clock = clock
        self._next_commit_id = next_commit_id
        self._asked: list[tuple[str, asyncio.Future[_Stands]]] = []
        self._answering = False
        self._writing: dict[str, asyncio.Task[None]] = {}

    async def find(self, definition: Task[..., Any], at: Keyed) -> tuple[Reused | None, int]:
        """A result that may be used now; and the version that the memo is at (`NEW`: there is none)."""
        stands = await self._ask(at.stream)
        found: Reused | None = None
        if not stands.empty:
            async for recorded in self._store.read(at.stream, after=stands.version - 1, until=stands.version):
                found = self._usable(definition, recorded.header, recorded.payload)
        return found, stands.version

    def _usable(self, definition: Task[..., Any], header: bytes, payload: bytes | None) -> Reused | None:
        try:
            event = decode_header(header)
            if not isinstance(event, ResultMemoised) or payload is None:
                return None
            definition.result.decode(payload, LARGE)
        except (HistoryError, NotRecordable):
            return None
        memo, now = definition.policy.memo, self._clock.now()
        assert memo is not None
        # Two have a say: who wrote it, and who reads it, and may want it fresher.
        young = memo.lifetime is None or now < event.at + memo.lifetime
        return Reused(payload, event.run, event.id) if young and not 0 < event.expires_at <= now else None

    async def _ask(self, stream: str) -> _Stands:
        answer: asyncio.Future[_Stands] = asyncio.get_running_loop().create_future()
        self._asked.append((stream, answer))
        if not self._answering:
            self._answering = True
            self.spawn(self._answer())
        return await answer

    async def _answer(self) -> None:
        """One question to the store for all that are asked at the same time: a fan-out asks a thousand."""
        asked: list[tuple[str, asyncio.Future[_Stands]]] = []
        try:
            while self._asked:
                asked, self._asked = self._asked[:FIND_LIMIT_MAX], self._asked[FIND_LIMIT_MAX:]
                streams = dict.fromkeys(stream for stream, _ in asked)
                await _all_of({task for stream in streams if (task := self._writing.get(stream)) is not None})
                page = await self._store.find(StreamQuery(streams=tuple(streams), limit=FIND_LIMIT_MAX))
                found = {head.stream: _Stands(head.version, MEMO_OF not in head.attributes) for head in page.items}
                for stream, answer in asked:
                    if not answer.done():
                        answer.set_result(found.get(stream, _NOT_THERE))
        except BaseException:
            for _, answer in (*asked, *self._asked):
                answer.cancel()  # the engine stops, and says why; nobody is to wait for an answer that does not come
            self._asked = []
            raise
        finally:
            self._answering = False

    # -- writing ------------------------------------------------------------------------------------------------------

    def memoise(
        self,
        definition: Task[..., Any],
        at: Keyed,
        payload: bytes,
        *,
        run: str,
        id: str,  # noqa: A002 - the word for it
        version: int | None,
    ) -> None:
        """Keep a result whose completion is durable. `version`: the memo's when it was looked up, if it was.

        Whoever looks here from now on waits for it. If others have kept theirs meanwhile, that is as good.
        """
        if at.stream in self._writing:
            return
        memo, now = definition.policy.memo, self._clock.now()
        assert memo is not None
        event = ResultMemoised(
            at=now,
            task=definition.name,
            code_version=at.code_version,
            run=run,
            id=id,
            key=at.key.decode() if len(at.key) <= KEY_BYTES_SHOWN else "",
            expires_at=0 if memo.lifetime is None else now + memo.lifetime,
        )
        writing = self._writing[at.stream] = self.spawn(self._write(at.stream, event, payload, version))
        writing.add_done_callback(lambda _: self._writing.pop(at.stream))

    async def written(self) -> None:
        """Wait until all is written that was to be."""
        await _all_of(set(self._writing.values()))

    async def _write(self, stream: str, event: ResultMemoised, payload: bytes, version: int | None) -> None:
        if version is None:
            head = await head_or_none(self._store, stream)
            version = NEW if head is None else head.version
        commit = Commit(
            id=self._next_commit_id(),
            stream=stream,
            expected_version=version,
            events=(new_event(event, payload),),
            attributes={MEMO_OF: event.task},
        )
        try:
            await self._store.commit(commit)
        except VersionConflict:
            return


async def _all_of(tasks: set[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


class _Plan(Struct):
    """A call whose result is to be kept. Without `at` it was not looked up here: it had been tried before."""

    definition: Task[..., Any]
    arguments: bytes
    at: Keyed | None = None
    version: int | None = None


class Lookups:
    """The look-ups of one run's board, and which of its results are to be kept. True while anything is looked up, or is
    to be once its being scheduled is durable; a task's id is in it meanwhile.

    A look-up that is not called off leads to a call of `missed`, or of `ended` with what was found, as attempt 0.
    """

    __slots__ = ("_ended", "_looking", "_memos", "_missed", "_plans", "_run_id", "_soon")

    def __init__(
        self, memos: Memos, run_id: str, *, missed: Callable[[str], None], ended: Callable[[str, int, Outcome], None]
    ) -> None:
        self._memos = memos
        self._run_id = run_id
        self._missed = missed
        self._ended = ended
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._soon: dict[str, None] = {}
        self._plans: dict[str, _Plan] = {}

    def __bool__(self) -> bool:
        return bool(self._looking or self._soon)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._looking or task_id in self._soon

    def plan(self, pending: PendingTask) -> bool:
        """Whether the results of this call are kept; then its own will be."""
        definition: Any = pending.definition
        if definition.policy.memo is None:
            return False
        plan = self._plans.get(pending.id)
        # A step that was not written may have meant another call by this id.
        if plan is None or plan.definition is not definition or plan.arguments != pending.arguments:
            self._plans[pending.id] = _Plan(definition, pending.arguments)
        return True

    def scheduled(self, pending: PendingTask) -> bool:
        """Whether it is to be looked up before it is tried, once it is durable that it was scheduled (`written`)."""
        kept = self.plan(pending)
        if kept:
            self._soon[pending.id] = None
        return kept

    def written(self, instance: Instance) -> None:
        """A step is durable: look up what it scheduled, and nobody has called off since."""
        while self._soon:
            task_id = next(iter(self._soon))
            del self._soon[task_id]
            if task_id in instance.pending:
                self.begin(task_id)

    def begin(self, task_id: str) -> None:
        """Look a planned call up, unless that is being done."""
        if task_id not in self._looking:
            self._looking[task_id] = self._memos.spawn(self._look_up(task_id, self._plans[task_id]))

    async def _look_up(self, task_id: str, plan: _Plan) -> None:
        outcome: Outcome | None
        try:
            plan.at = keyed(plan.definition, plan.arguments)
        except Exception as error:  # of the author's key function, most likely
            outcome = Failed(describe(error))
        else:
            outcome, plan.version = await self._memos.find(plan.definition, plan.at)
        del self._looking[task_id]  # else it was called off, and would not have come here
        if outcome is None:
            self._missed(task_id)
        else:
            self._ended(task_id, 0, outcome)

    def call_off(self, task_id: str) -> None:
        """Nobody waits for what is found."""
        self._soon.pop(task_id, None)
        if self._looking and (looking := self._looking.pop(task_id, None)) is not None:
            looking.cancel()

    def call_off_all(self) -> None:
        """Nobody waits for anything."""
        self._soon.clear()
        for task_id in list(self._looking):
            self.call_off(task_id)

    def let_go(self) -> None:
        """No step is taken any more, and all is called off: forget the board."""
        del self._missed, self._ended

    def drop(self, task_id: str) -> None:
        """The call is no longer wanted: nothing is kept of it."""
        self.call_off(task_id)
        self._plans.pop(task_id, None)

    def keep(self, step: Step) -> None:
        """A step is durable: keep the results that it delivered."""
        if not self._plans:
            return
        for arrival in step.taken:
            event = arrival.event
            plan = self._plans.pop(event.id, None) if isinstance(event, _OUTCOMES) else None
            if plan is None or not isinstance(event, TaskCompleted) or event.reused_run or arrival.payload is None:
                continue
            if event.id in step.cancelled or step.suspended:
                continue  # it was not delivered, or did not fit
            try:
                at = plan.at or keyed(plan.definition, plan.arguments)
            except Exception:  # noqa: S112 - the next call will say so; this one has its result
                continue
            self._memos.memoise(
                plan.definition, at, arrival.payload, run=self._run_id, id=event.id, version=plan.version
            )
