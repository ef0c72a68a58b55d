"""The wire form of every event, byte by byte, and histories that must replay for ever.

`event_wire.json` holds, per event and shape, the header and what it means, fields left out included; `golden/*.jsonl` hold recorded histories, one event per
line. They are written once (`python -m tests.core.test_event_wire` makes those that do not exist) and never
changed: a change that breaks one breaks the histories that people have on disk.
"""

from __future__ import annotations

import json
import sys
import typing
from pathlib import Path
from typing import Any

import anyio._backends._asyncio
import msgspec
import pytest

from engine.core import events
from engine.core.compare import Diagnosis, Difference, decode_diagnosis, encode_diagnosis
from engine.core.events import AnyEvent, Decision, Event, Fact, Note, decode_header, encode_header
from engine.core.failures import ErrorInfo, decode_error, encode_error
from engine.core.ordered import install
from engine.core.replay import Replayer
from engine.errors import HistoryError
from tests.core import cases_all  # noqa: F401 - they register
from tests.core.cases import CASES
from tests.core.harness import RUN_ID, Entry, History, World, check_crashes, fold, groups, last, listed, play, seeded

HERE = Path(__file__).parent
WIRE: dict[str, list[list[Any]]] = json.loads((HERE / "event_wire.json").read_text())
GOLDEN = HERE / "golden"
AT = 1_767_225_600_000_001

SAMPLES: list[Event] = [
    events.RunStarted(at=AT, workflow="nightly", seed="00112233445566778899aabbccddeeff"),
    events.RunStarted(
        at=AT, workflow="nightly", seed="ff", rule=1, python="3.11", anyio="4.16.0", by="ann", root="run-0"
    ),
    events.TaskCompleted(at=AT, id="nightly/load~2/extract#1"),
    events.TaskCompleted(at=AT, id="nightly/load~2/extract#1", attempt=3),
    events.TaskCompleted(at=AT, id="nightly/load~2/extract#1", attempt=1, reconciled=True),
    events.TaskCompleted(at=AT, id="nightly/extract#1", attempt=0, reused_run="n/0", reused_id="nightly/extract#2"),
    events.TaskFailed(at=AT, id="nightly/extract#1", error="ValueError"),
    events.TaskFailed(at=AT, id="nightly/extract#1", error="shop.errors.Declined", attempt=2),
    events.TimerFired(at=AT, id="nightly/timer#1"),
    events.CancelRequested(at=AT),
    events.CancelRequested(at=AT, by="ann", reason='no longer "needed" – über'),
    events.CancelRequested(at=AT, reason="asked", carried=True),
    events.TaskScheduled(at=AT, task="extract"),
    events.TaskScheduled(at=AT, id="nightly/extract#1", site="shop.py:41", task="extract"),
    events.TaskCancelled(at=AT, id="nightly/extract#1", site="shop.py:41"),
    events.TimerStarted(at=AT, id="nightly/timer#1", site="shop.py:41", deadline=AT + 1),
    events.TimerCancelled(at=AT, id="nightly/timer#1"),
    events.RunCompleted(at=AT),
    events.RunFailed(at=AT, error="ValueError"),
    events.RunCancelled(at=AT),
    events.RunCancelled(at=AT, reason="asked"),
    events.TaskStarted(at=AT, id="nightly/extract#1", attempt=1, worker="host:1"),
    events.TaskStarted(at=AT, id="nightly/extract#1", attempt=2, worker="host:1", executor="threads"),
    events.AttemptFailed(at=AT, id="nightly/extract#1", attempt=1, error="ValueError", retry_at=AT + 5),
    events.AttemptHeartbeat(at=AT, id="nightly/extract#1", attempt=2),
    events.EffectReconciled(at=AT, id="nightly/extract#1", attempt=1, answer="not_happened"),
    events.EffectReconciled(at=AT, id="nightly/extract#1", attempt=1, answer="unknown", retry_at=AT + 5),
    events.AttemptOutcomeIgnored(at=AT, id="nightly/extract#1", attempt=1, outcome="completed"),
    events.RunSuspended(at=AT, reason="decisions"),
    events.RunResumed(at=AT),
    events.RunResumed(at=AT, by="ann"),
    events.RunReopened(at=AT),
    events.RunReopened(at=AT, by="ann", reason="mended", takes_back="decisions"),
    events.RunReopened(at=AT, takes_back="end"),
    events.RunForked(at=AT, origin="n-1", version=12, digest="00ff"),
    events.RunForked(
        at=AT, origin="n-1", version=12, digest="00ff", by="ann", reason="what if", substituted=("nightly/extract#1",)
    ),
    events.PrefixEnded(at=AT),
    events.PrefixEnded(at=AT, retold=True),
    events.RunTerminated(at=AT),
    events.RunTerminated(at=AT, by="ann", reason="stuck"),
    events.TurnSlow(at=AT, took=1_500_000),
    events.TurnSlow(at=AT, took=1_500_000, site="shop.py:41"),
    events.SignalReceived(at=AT, id="m-1", name="approve"),
    events.SignalReceived(at=AT, id="m-1", name="approve", by="run shop-1", carried=True),
    events.RequestReceived(at=AT, id="q-1", name="review"),
    events.RequestReceived(at=AT, id="q-1", name="review", by="ann", carried=True),
    events.ChildCompleted(at=AT, id="nightly/load~2/part#1"),
    events.ChildFailed(at=AT, id="nightly/part#1", status="failed", error="ValueError"),
    events.ChildFailed(at=AT, id="nightly/part#1", status="cancelled", reason="asked"),
    events.SendAccepted(at=AT, id="nightly/send:signal#1"),
    events.SendRejected(at=AT, id="nightly/send:signal#1", reason="not_found"),
    events.ChildStarted(at=AT, id="nightly/part#1", site="shop.py:41", workflow="part", run="n-1/part#1"),
    events.ChildStarted(
        at=AT, id="nightly/part#1", workflow="part", run="part-7", parent_close="abandon", deadline=AT + 5
    ),
    events.ChildCancelled(at=AT, id="nightly/part#1!", site="shop.py:41", run="n-1/part#1"),
    events.ChildTerminated(at=AT, id="nightly/part#1!", run="n-1/part#1"),
    events.MessageSent(at=AT, id="nightly/send:signal#1", kind="signal", run="shop-1", name="approve"),
    events.MessageSent(at=AT, id="nightly/send:cancel#1", site="s.py:1", kind="cancel", run="shop-1", reason="late"),
    events.StatePublished(at=AT, id="nightly/state:phase#1", site="shop.py:41", name="phase"),
    events.FeedPublished(at=AT, id="nightly/feed:log#1", name="log"),
    events.RequestAnswered(at=AT, id="answer:q-1", site="shop.py:41", request="q-1"),
    events.RequestFailed(at=AT, id="answer:q-1", request="q-1", error="ValueError"),
    events.ContinuedAsNew(at=AT),
    events.PatchMarked(at=AT, id="patch:charge-first", site="shop.py:41", name="charge-first"),
    events.TaskHandedOut(at=AT, id="nightly/extract#1", attempt=1),
    events.ChildOutcomeIgnored(at=AT, id="nightly/part#1", outcome="completed"),
    events.ChildOutcomeIgnored(at=AT, id="nightly/part#1", outcome="failed", epoch=2),
    events.SignalIgnored(at=AT, id="m-1", name="approve"),
    events.RunPaused(at=AT),
    events.RunPaused(at=AT, by="ann", reason="maintenance"),
    events.RunUnpaused(at=AT, by="ann"),
    events.WorkflowPaused(at=AT, workflow="nightly", by="ann", reason="maintenance"),
    events.WorkflowUnpaused(at=AT, workflow="nightly", by="ann"),
    events.ResultMemoised(at=AT, task="extract", code_version="2", run="n/0", id="nightly/extract#2"),
    events.ResultMemoised(
        at=AT,
        task="extract",
        code_version="00112233445566ff",
        run="n/0",
        id="nightly/extract#2",
        key='{"table":"flights"}',
        expires_at=AT + 5,
    ),
    events.ResultForgotten(at=AT, task="extract"),
    events.ResultForgotten(at=AT, task="extract", by="ann"),
    events.LimitSet(at=AT, name="warehouse", limit=4),
    events.LimitSet(at=AT, name="mail", limit=10, window=500_000, by="ann", reason="night"),
    events.RunStarted(
        at=AT,
        workflow="part",
        seed="ff",
        root="n-1",
        parent="n-1",
        parent_call="nightly/part#1",
        parent_epoch=1,
        deadline=AT + 5,
        epoch=2,
    ),
    events.RunStarted(at=AT, workflow="part", seed="ff", epoch=2, carried=7),
    events.RunStarted(at=AT, workflow="part", seed="ff", waits=True),
    events.RunStarted(at=AT, workflow="part", seed="ff", waits=True, begins_at=AT + 60_000_000, singleton="customer-7"),
    events.RunBegun(at=AT),
    events.CancelRequested(at=AT, reason="superseded by run 'r-2'", unless_begun=True),
    events.RunQueued(at=AT, key="customer-7"),
    events.RunQueued(at=AT, key="customer-7", behind="r-1", replaces=True),
    events.CallDebounced(at=AT, workflow="part", key="customer-7", run="r-1", since=AT, begins_at=AT + 5),
    events.CallDebounced(
        at=AT + 2, workflow="part", key="customer-7", run="r-2", since=AT, begins_at=AT + 7, instead_of="r-1", by="ann"
    ),
    events.RunStarted(at=AT, workflow="nightly", seed="ff", by="ann", rerun_of="n-1", reason="the source was wrong"),
    events.RunStarted(at=AT, workflow="part", seed="ff", version="2"),
    events.ChildStarted(at=AT, id="nightly/part#2", workflow="part", run="n-1/part#2", version="2"),
    events.ContinuedAsNew(at=AT, pinned=True, version="2"),
    events.AttributesSet(at=AT, id="nightly/set:attributes#1", site="shop.py:41"),
    events.AttributesGiven(at=AT),
    events.RunStarted(at=AT, workflow="nightly", seed="ff", attributes=("region", "amount")),
    events.RunStarted(at=AT, workflow="nightly", seed="ff", large=True),
    events.RunResumed(at=AT, by="ann", reason="mended"),
    events.TaskCompleted(at=AT, id="nightly/extract#1", attempt=2, by="ann", reason="it was done by hand"),
    events.TaskFailed(at=AT, id="nightly/extract#1", error="ValueError", by="ann", reason="nobody is there"),
    events.AttemptOutcomeIgnored(
        at=AT, id="nightly/extract#1", attempt=0, outcome="completed", by="ann", reason="too late"
    ),
    events.SignalReceived(at=AT, id="m-1", name="approve", by="ann", reason="the customer asked"),
    events.RequestReceived(at=AT, id="q-1", name="review", by="ann", reason="audit"),
    events.SignalIgnored(at=AT, id="m-1", name="approve", by="ann", reason="too late"),
    events.RunUnpaused(at=AT, by="ann", reason="the warehouse is back"),
    events.WorkflowUnpaused(at=AT, workflow="nightly", by="ann", reason="the warehouse is back"),
    events.ResultForgotten(at=AT, task="extract", by="ann", reason="the source was wrong"),
    events.PayloadsDestroyed(at=AT),
    events.PayloadsDestroyed(at=AT, by="ann", reason="request 7", versions=(1, 9)),
    events.RunPruned(
        at=AT,
        run="n-1",
        workflow="nightly",
        status="completed",
        events=8,
        first=9,
        last=31,
        digest="00ff",
        leaves="ff00",
        started_at=AT - 9,
        ended_at=AT - 3,
    ),
    events.RunPruned(
        at=AT,
        run="n-1",
        workflow="nightly",
        status="failed",
        events=8,
        first=9,
        last=31,
        digest="00ff",
        leaves="ff00",
        started_at=AT - 9,
        ended_at=AT - 3,
        by="ann",
        reason="older than 90 days",
    ),
]

PAYLOADS: dict[str, bytes] = {
    "ErrorInfo": encode_error(
        ErrorInfo(
            type="ValueError",
            message="m",
            args=("a", 1, 2.5, True, None),
            notes=("n",),
            traceback="t",
            cause=ErrorInfo(type="KeyError"),
            group=(ErrorInfo(type="X", message="y"),),
        )
    ),
    "Diagnosis": encode_diagnosis(
        Diagnosis(
            reason="decisions",
            message="m",
            version=3,
            differences=(Difference(recorded="a", recorded_site="s:1", decided="b", decided_site="s:2"), Difference()),
            advice="do",
        )
    ),
}


def event_classes() -> set[type[Event]]:
    found: set[type[Event]] = set()
    pending: list[type[Event]] = [Event]
    while pending:
        for child in pending.pop().__subclasses__():
            if child.__module__.startswith("engine.core."):
                found.add(child)
                pending.append(child)
    return found - {Fact, Decision, Note}


def test_every_event_has_a_golden() -> None:
    classes = event_classes()
    assert len(classes) >= 18
    assert {type(sample) for sample in SAMPLES} == classes
    assert set(typing.get_args(AnyEvent)) == classes
    assert {cls.__name__ for cls in classes} | set(PAYLOADS) == set(WIRE)
    for cls in classes:
        assert cls.__struct_config__.tag == cls.__name__, "the tag is the name, and never changes"
        assert cls.__struct_config__.frozen
        assert issubclass(cls, Fact) + issubclass(cls, Decision) + issubclass(cls, Note) == 1


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_the_wire_form_never_changes(sample: Event) -> None:
    of_type = [other for other in SAMPLES if type(other) is type(sample)]
    header, meaning = WIRE[type(sample).__name__][of_type.index(sample)]
    golden = header.encode()
    assert encode_header(sample) == golden
    means = msgspec.structs.asdict(decode_header(golden))
    means = json.loads(json.dumps(means))  # a tuple is a list there
    assert {name: means[name] for name in meaning} == meaning, "a default must not change either"
    assert decode_header(golden) == sample
    assert golden.startswith(f'{{"type":"{type(sample).__name__}"'.encode())


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_engines_own_payloads_never_change(name: str) -> None:
    golden = WIRE[name][0][0].encode()
    assert PAYLOADS[name] == golden
    decode: Any = {"ErrorInfo": decode_error, "Diagnosis": decode_diagnosis}[name]
    encode: Any = {"ErrorInfo": encode_error, "Diagnosis": encode_diagnosis}[name]
    assert encode(decode(golden)) == golden


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_fields_of_a_newer_version_are_ignored(sample: Event) -> None:
    newer = encode_header(sample)[:-1] + b',"invented":{"later":[1,2]},"and":null}'
    assert decode_header(newer) == sample


@pytest.mark.parametrize(
    "header",
    [
        b'{"type":"SignalSeen","at":1}',
        b'{"type":"Fact","at":1}',
        b'{"at":1}',
        b'{"type":"TimerFired","at":1}',
        b'{"type":"TimerFired","at":"1","id":"x"}',
        b"[]",
        b"",
        b"\xff",
    ],
)
def test_what_is_no_event_is_a_history_error_that_says_where(header: bytes) -> None:
    with pytest.raises(HistoryError, match="the history at run-1, version 7 holds an event") as caught:
        decode_header(header, where="run-1, version 7")
    assert isinstance(caught.value.__cause__, msgspec.MsgspecError)
    with pytest.raises(HistoryError, match="the history holds an event"):
        decode_header(header)


# -- golden histories -------------------------------------------------------------------------------------------------

RECORDED = {
    "gather_branches": seeded(1),
    "wait_first_completed": seeded(2),
    "as_completed_raw_coroutines": seeded(1),
    "group_failing_child_cancels_siblings": seeded(3),
    "timeout_nested": seeded(4),
    "wait_for_in_branches": listed((1, 2, 1, 0)),
    "queue_producers_and_consumers": seeded(5),
    "saga_in_branches": seeded(6),
    "durable_values": seeded(7),
    "create_task_names": seeded(1),
    "group_waits_for_the_outcome": seeded(2),
    "timeout_waits_for_the_outcome": seeded(3),
    "anyio_group_failing_child": seeded(8),
    "anyio_group_start": seeded(1),
    "anyio_streams": seeded(9),
    "anyio_nested_deadlines": seeded(10),
    "generators_in_branches": seeded(11),
    "signal_gather_of_two_names": seeded(12),
    "signal_wait_first": seeded(13),
    "signal_in_timeouts": seeded(7),
    "signal_async_for_until_stopped": seeded(2),
    "updatable_timer_by_reschedule": seeded(6),
    "request_served_in_branches": seeded(3),
    "request_received_one_by_one": seeded(18),
    "request_race_with_time": seeded(4),
    "state_and_feed": seeded(20),
    "send_in_branches": seeded(21),
    "send_refused": seeded(22),
    "child_branches": seeded(23),
    "child_failing_in_a_group": seeded(24),
    "child_in_a_timeout_that_waits": last,
    "child_in_a_timeout_that_abandons": last,
    "child_signalled_and_left": seeded(26),
    "deadline_of_the_run": seeded(27),
    "shielded_sections": seeded(28),
    "epochs_lose_no_signal": seeded(29),
    "epochs_while_serving": seeded(17),
    "epochs_of_children": seeded(31),
    "patches_in_branches": seeded(32),
    "patches_in_epochs": seeded(33),
}
WAITED = {"deadline_of_the_run": 3_600, "epochs_lose_no_signal": 3_600, "signal_in_timeouts": 60}
"""Of these there is another golden, of a run that was recorded so many seconds before it began."""


def recorded_worlds() -> dict[str, World]:
    """What the goldens are histories of."""
    worlds = {name: CASES[name].world(pick) for name, pick in RECORDED.items()}
    return worlds | {f"waited_{name}": CASES[name].world(RECORDED[name], waits=s) for name, s in WAITED.items()}


def load(name: str) -> History:
    entries = []
    for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines():
        header, payload = json.loads(line)
        entries.append(Entry(header.encode(), None if payload is None else payload.encode()))
    return entries


def test_every_golden_history_has_its_workflow() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(recorded_worlds())


@pytest.mark.parametrize("name", recorded_worlds())
def test_golden_histories_replay_for_ever(name: str) -> None:
    history = load(name)
    assert len(history) > 5
    replayer = Replayer(recorded_worlds()[name].definition, RUN_ID, versions=None, tables=None)
    for version, entry in enumerate(history, 1):
        replayer.feed(version, decode_header(entry.header), entry.payload)
    assert replayer.finish() == []
    assert replayer.instance.outcome is not None
    assert fold(history).ended


@pytest.mark.parametrize("name", recorded_worlds())
def test_golden_histories_are_still_written(name: str) -> None:
    """Not only accepted: the same world leads to the same history, ids above all, but for sites and tracebacks."""
    world, golden = recorded_worlds()[name], load(name)
    written = play(world)
    assert plain(written) == plain(golden)
    for length in range(1, len(golden), 5):
        check_crashes(world, written, boundaries=[length])


def plain(history: History) -> list[Any]:
    return [
        (_without_python(group.fact), {id_: _without_site(entry) for id_, entry in group.decisions.items()})
        for group in groups(history)
    ]


def _without_python(entry: Entry) -> bytes:
    """An epoch begins with the Python that wrote it, whichever that is."""
    event = entry.event
    return (
        encode_header(msgspec.structs.replace(event, python=""))
        if isinstance(event, events.RunStarted)
        else entry.header
    )


def _without_site(entry: Entry) -> tuple[Any, bytes | None]:
    event = entry.event
    assert isinstance(event, Decision)
    failed = isinstance(event, events.RunFailed | events.RequestFailed)
    return msgspec.structs.replace(event, site=""), None if failed else entry.payload


def _write() -> None:
    """Make the goldens that do not exist yet; never touch one that does."""
    install(anyio._backends._asyncio)
    wire = WIRE
    for sample in SAMPLES:
        name = type(sample).__name__
        of_type = [other for other in SAMPLES if type(other) is type(sample)]
        if name not in wire or len(wire[name]) < len(of_type):
            made = [[encode_header(other).decode(), msgspec.structs.asdict(other)] for other in of_type]
            wire[name] = [*wire.get(name, []), *made[len(wire.get(name, [])) :]]
    for name, payload in PAYLOADS.items():
        wire.setdefault(name, [[payload.decode()]])
    (HERE / "event_wire.json").write_text(json.dumps(wire, indent=1) + "\n")
    for name, world in recorded_worlds().items():
        path = GOLDEN / f"{name}.jsonl"
        if not path.exists():
            lines = [
                json.dumps([e.header.decode(), None if e.payload is None else e.payload.decode()], ensure_ascii=False)
                for e in play(world)
            ]
            path.write_text("\n".join(lines) + "\n")
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    _write()
