"""The replayer and the comparison: what a changed code or a damaged history leads to, and what a person is told."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine.core.loop as loop_module
from engine import task, workflow
from engine.core.compare import Diagnosis, Mismatch, decode_diagnosis, encode_diagnosis
from engine.core.events import (
    TURN_RULE,
    AttemptFailed,
    Decision,
    Fact,
    RunCompleted,
    RunFailed,
    RunStarted,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TimerStarted,
    decode_header,
    encode_header,
)
from engine.core.replay import Replayer
from engine.errors import HistoryError
from tests.core import cases_groups  # noqa: F401 - they register
from tests.core.cases import CASES, Declined, fail, work
from tests.core.cases_gather import gather_branches
from tests.core.harness import RUN_ID, START, Entry, History, World, groups, play, rebuild, seeded


def replay(definition: Any, history: History) -> Replayer:
    replayer = Replayer(definition, RUN_ID, versions=None, tables=None)
    for version, entry in enumerate(history, 1):
        replayer.feed(version, entry.event, entry.payload)
    return replayer


def refused(definition: Any, history: History) -> Diagnosis:
    """The diagnosis of a history that this code did not write; through its bytes, as it is recorded."""
    with pytest.raises(Mismatch) as caught:
        replay(definition, history).finish()
    assert str(caught.value) == caught.value.diagnosis.render()
    return decode_diagnosis(encode_diagnosis(caught.value.diagnosis))


def change(history: History, index: int, *, payload: Any = ..., **fields: Any) -> History:
    """The history with one event altered."""
    event = msgspec.structs.replace(history[index].event, **fields)
    entry = Entry(encode_header(event), history[index].payload if payload is ... else payload)
    return [*history[:index], entry, *history[index + 1 :]]


def find(history: History, type_: type, nth: int = 0) -> int:
    return [index for index, entry in enumerate(history) if isinstance(entry.event, type_)][nth]


@workflow(name="shop")
async def shop(customer: str) -> str:
    await work("first")
    return await work(customer, 1)


SHOP = play(World(shop("alice")))


# -- changed code -----------------------------------------------------------------------------------------------------


def test_unchanged_code_has_nothing_to_say() -> None:
    assert replay(shop, SHOP).finish() == []


def test_another_task_is_a_two_column_diagnosis_naming_both_sites() -> None:
    @task
    async def quote(label: str, n: int = 0) -> str:
        return label

    @workflow(name="shop")
    async def changed(customer: str) -> str:
        await work("first")
        return await quote(customer, 2)

    diagnosis = refused(changed, SHOP)
    assert diagnosis.reason == "decisions"
    assert diagnosis.version == find(SHOP, TaskCompleted) + 1
    (difference,) = diagnosis.differences
    assert difference.recorded == 'work("alice", 1)  [shop/work#2]'
    assert difference.decided == 'quote("alice", 2)  [shop/quote#1]'
    lines = {fn.fn.__code__.co_firstlineno + 3 for fn in (shop, changed)}
    assert {difference.recorded_site, difference.decided_site} == {f"test_replay.py:{line}" for line in lines}
    text = diagnosis.render()
    assert "history has" in text
    assert f'work("alice", 1)  [shop/work#2] from {difference.recorded_site}  |  quote(' in text
    assert diagnosis.advice in text


@pytest.mark.parametrize(
    ("change_to", "shown"),
    [
        ("more", [("", 'work("more")  [shop/work#3]')]),
        ("less", [('work("alice", 1)  [shop/work#2]', 'return "less"')]),
        ("argument", [('work("alice", 1)  [shop/work#2]', 'work("alice", 2)  [shop/work#2]')]),
        ("timer", [('work("alice", 1)  [shop/work#2]', "a timer until 2026-01-01 00:01:00.001+00:00  [shop/timer#1]")]),
        ("fails", [('work("alice", 1)  [shop/work#2]', "raise builtins.ValueError")]),
    ],
)
def test_what_the_code_does_instead_is_shown(change_to: str, shown: list[tuple[str, str]]) -> None:
    @workflow(name="shop")
    async def changed(customer: str) -> str:
        await work("first")
        match change_to:
            case "more":
                return (await asyncio.gather(asyncio.shield(work(customer, 1)), work("more")))[0]
            case "less":
                return "less"
            case "argument":
                return await work(customer, 2)
            case "timer":
                await asyncio.sleep(60)
        raise ValueError("changed")

    diagnosis = refused(changed, SHOP)
    if change_to == "more":  # branches have ids of their own
        assert len(diagnosis.differences) == 2
        return
    if change_to == "fails":
        shown = [(shown[0][0], "raise ValueError")]
    assert [(d.recorded, d.decided) for d in diagnosis.differences] == shown


def test_a_changed_ending_is_found() -> None:
    @workflow(name="shop")
    async def changed(customer: str) -> str:
        await work("first")
        return (await work(customer, 1)).upper()

    (difference,) = refused(changed, SHOP).differences
    assert (difference.recorded, difference.decided) == ('return "alice:1"', 'return "ALICE:1"')

    @workflow(name="shop")
    async def failing(customer: str) -> str:
        await work("first")
        raise LookupError(await work(customer, 1))

    (difference,) = refused(failing, SHOP).differences
    assert (difference.recorded, difference.decided) == ('return "alice:1"', "raise LookupError")


def test_the_text_of_a_failure_may_change_and_its_type_may_not() -> None:
    def failing(error: Exception) -> Any:
        @workflow(name="w")
        async def fails() -> None:
            await work("a")
            raise error

        return fails

    history = play(World(failing(ValueError("line 3"))()))
    assert replay(failing(ValueError("line 4")), history).finish() == []
    (difference,) = refused(failing(KeyError("line 3")), history).differences
    assert (difference.recorded, difference.decided) == ("raise ValueError", "raise KeyError")


def test_a_changed_deadline_is_found() -> None:
    def sleeping(seconds: float) -> Any:
        @workflow(name="w")
        async def sleeps() -> None:
            await asyncio.sleep(seconds)

        return sleeps

    history = play(World(sleeping(1)()))
    (difference,) = refused(sleeping(2), history).differences
    assert (difference.recorded[:25], difference.decided[:25]) == ("a timer until 2026-01-01 ",) * 2
    assert difference.recorded != difference.decided
    assert difference.recorded_site == difference.decided_site != ""


def test_a_deadline_beyond_every_calendar_is_shown_as_a_number() -> None:
    @workflow(name="w")
    async def sleeps() -> None:
        await asyncio.sleep(1)

    damaged = change(play(World(sleeps())), 1, deadline=2**62)
    assert refused(sleeps, damaged).differences[0].recorded == f"a timer until {2**62} µs  [w/timer#1]"


def test_code_added_in_one_branch_does_not_renumber_another() -> None:
    def with_extra(extra: int) -> Any:
        @workflow(name="w")
        async def runs() -> None:
            async def one() -> None:
                for n in range(extra):
                    await work("extra", n)

            async def other() -> None:
                await work("other")

            await asyncio.gather(one(), other())

        return runs

    longer = play(World(with_extra(2)()))
    diagnosis = refused(with_extra(1), longer)
    assert [d.recorded for d in diagnosis.differences] == ['work("extra", 1)  [w/one~1/work#2]']


def test_moved_lines_and_times_are_outside_the_comparison() -> None:
    moved = [
        Entry(encode_header(msgspec.structs.replace(e.event, site="elsewhere.py:1")), e.payload)
        if isinstance(e.event, Decision)
        else e
        for e in SHOP
    ]
    assert replay(shop, moved).finish() == []


# -- values -----------------------------------------------------------------------------------------------------------


class Order(msgspec.Struct):
    item: str


class Larger(msgspec.Struct):
    item: str
    gift: bool = False


def with_type(type_: Any, **values: Any) -> Any:
    @task(name="ship")
    async def ship(order: type_) -> type_:  # type: ignore[valid-type]
        return order

    ship.fn.__annotations__ = {"order": type_, "return": type_}

    @workflow(name="w")
    async def ships():  # type: ignore[no-untyped-def]
        return await ship(type_(item="tea", **values))

    ships.fn.__annotations__ = {"return": type_}
    return ships


def test_a_struct_that_gained_a_field_with_a_default_does_not_suspend_a_run() -> None:
    history = play(World(with_type(Order)()))
    assert groups(play(World(with_type(Larger)()))) != groups(history)
    assert replay(with_type(Larger), history).finish() == []
    diagnosis = refused(with_type(Larger, gift=True), history)
    (difference,) = diagnosis.differences
    assert difference.recorded == 'ship({"item":"tea"})  [w/ship#1]'
    assert difference.decided == 'ship({"item":"tea","gift":true})  [w/ship#1]'


def test_a_new_optional_parameter_does_not_suspend_a_run_even_when_it_is_handed_over() -> None:
    def calling(task_: Any, *args: Any) -> Any:
        @workflow(name="w")
        async def calls() -> None:
            await task_(*args)

        return calls

    @task(name="load")
    async def before(table: str) -> None: ...

    @task(name="load")
    async def after(table: str, limit: int = 100) -> None: ...

    history = play(World(calling(before, "t")()))
    assert replay(calling(after, "t"), history).finish() == []
    assert replay(calling(after, "t", 100), history).finish() == []
    assert refused(calling(after, "t", 99), history).reason == "decisions"


def test_a_workflow_may_gain_an_optional_parameter() -> None:
    @workflow(name="shop")
    async def more(customer: str, fast: bool = False) -> str:
        await work("first")
        return await work(customer, 1)

    assert replay(more, SHOP).finish() == []

    @workflow(name="shop")
    async def demanding(customer: str, fast: bool) -> str:
        return customer

    diagnosis = refused(demanding, SHOP)
    assert diagnosis.reason == "values"
    assert "'fast'" in diagnosis.message


def test_values_that_no_longer_fit_suspend_a_run_and_say_why() -> None:
    @task(name="work")
    async def stricter(label: str, n: int = 0) -> int:
        return n

    @workflow(name="shop")
    async def changed(customer: str) -> str:
        await stricter("first")
        return await stricter(customer, 1)

    diagnosis = refused(changed, SHOP)
    assert diagnosis.reason == "values"
    assert "the result of task 'work'" in diagnosis.message
    assert diagnosis.version == find(SHOP, TaskCompleted) + 1


def test_dicts_and_sets_compare_by_value() -> None:
    def giving(value: Any) -> Any:
        @workflow(name="w")
        async def gives() -> set[str]:
            await takes(value)
            return set(value)

        return gives

    @task
    async def takes(value: dict[str, int]) -> None: ...

    history = play(World(giving({"b": 1, "a": 2})()))
    assert replay(giving({"a": 2, "b": 1}), history).finish() == []


# -- groups -----------------------------------------------------------------------------------------------------------


def test_the_order_of_decisions_is_no_information() -> None:
    history = play(World(gather_branches(), seeded(1)))
    draw = random.Random(3)
    for _ in range(20):
        shuffled: History = []
        for group in groups(history):
            decisions = list(group.decisions.values())
            draw.shuffle(decisions)
            shuffled += [group.fact, *decisions]
        assert replay(gather_branches, shuffled).finish() == []


@workflow
async def fans_out(count: int) -> int:
    async with asyncio.timeout(60):
        return len(await asyncio.gather(*(work("part", n) for n in range(count))))


def test_of_an_incomplete_last_group_exactly_the_rest_is_returned() -> None:
    history = play(World(fans_out(12)))
    (start, everything), *_ = groups(history)
    decisions = list(everything.values())
    assert len(decisions) == 13
    draw = random.Random(4)
    for length in range(len(decisions) + 1):
        for _ in range(4):
            written = draw.sample(decisions, length)
            replayer = replay(fans_out, [start, *written])
            rest = {each.event.id: Entry(encode_header(each.event), each.payload) for each in replayer.finish()}
            expected = {id_: entry for id_, entry in everything.items() if entry not in written}
            assert rest == expected
            assert len(replayer.instance.pending) == 12


def test_an_incomplete_group_that_is_not_the_last_is_a_mismatch() -> None:
    history = play(World(fans_out(3)))
    missing = find(history, TaskScheduled, 1)
    diagnosis = refused(fans_out, history[:missing] + history[missing + 1 :])
    (difference,) = diagnosis.differences
    assert difference.recorded == ""
    assert difference.decided == 'work("part", 1)  [fans_out/work~2/work#1]'


def test_an_incomplete_last_group_must_still_fit() -> None:
    history = play(World(fans_out(3)))
    wrong = change(history, find(history, TaskScheduled), payload=b'{"label":"part","n":9}')
    diagnosis = refused(fans_out, wrong[:2] + wrong[find(wrong, TaskScheduled) :][:1])
    assert diagnosis.differences[0].recorded == 'work("part", 9)  [fans_out/work~1/work#1]'


def test_a_decision_written_twice_is_refused() -> None:
    index = find(SHOP, TaskScheduled)
    diagnosis = refused(shop, [*SHOP[: index + 1], SHOP[index], *SHOP[index + 1 :]])
    assert diagnosis.reason == "history"
    assert "twice" in diagnosis.message


def test_decisions_before_the_first_fact_are_refused() -> None:
    assert refused(shop, SHOP[1:2]).reason == "history"


def test_an_empty_history_decides_nothing() -> None:
    assert replay(shop, []).finish() == []


# -- facts ------------------------------------------------------------------------------------------------------------


def test_a_delivery_that_nobody_waits_for_is_refused() -> None:
    index = find(SHOP, TaskCompleted)
    diagnosis = refused(shop, change(SHOP, index, id="shop/other#1")[: index + 1])
    assert diagnosis.reason == "delivery"
    assert "shop/other#1" in diagnosis.message
    assert diagnosis.version == index + 1
    twice = [*SHOP[: index + 1], SHOP[index]]
    assert refused(shop, twice[:-1] + SHOP[index + 1 : index + 3] + [SHOP[index]]).reason == "delivery"


def test_a_history_that_starts_otherwise_is_refused() -> None:
    index = find(SHOP, TaskCompleted)
    assert refused(shop, [SHOP[index]]).reason == "delivery"
    assert "starts twice" in refused(shop, [SHOP[0], SHOP[1], SHOP[0]]).message
    newer = refused(shop, change(SHOP, 0, rule=TURN_RULE + 1))
    assert newer.reason == "history"
    assert f"turn rule {TURN_RULE + 1}" in newer.message


def test_nothing_follows_the_end() -> None:
    index = find(SHOP, TaskCompleted)
    assert refused(shop, [*SHOP, SHOP[index]]).reason == "delivery"


def test_a_spinning_turn_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "STEPS_PER_TURN_MAX", 100)

    @workflow(name="shop")
    async def spins(customer: str) -> str:
        while True:
            await asyncio.sleep(0)

    assert refused(spins, SHOP).reason == "spinning"


def test_after_a_mismatch_the_instance_is_put_away() -> None:
    @workflow(name="shop")
    async def changed(customer: str) -> str:
        return await work("other")

    replayer = Replayer(changed, RUN_ID, versions=None, tables=None)
    with pytest.raises(Mismatch):
        for version, entry in enumerate(SHOP, 1):
            replayer.feed(version, entry.event, entry.payload)
    assert replayer.instance.loop.is_closed()


# -- destroyed and damaged payloads -----------------------------------------------------------------------------------


def test_destroyed_payloads_of_decisions_contradict_nobody() -> None:
    history = [e._replace(payload=None) if isinstance(e.event, Decision) else e for e in SHOP]
    assert replay(shop, history).finish() == []


@pytest.mark.parametrize("type_", [RunStarted, TaskCompleted])
def test_destroyed_payloads_of_facts_are_named(type_: type) -> None:
    index = find(SHOP, type_)
    diagnosis = refused(shop, change(SHOP, index, payload=None))
    assert "destroyed" in diagnosis.message
    assert diagnosis.version == index + 1


def test_a_failure_whose_payload_was_destroyed_is_still_a_failure() -> None:
    @workflow
    async def fails() -> str:
        try:
            return await fail("a")
        except Exception as error:
            return f"{type(error).__name__} {error}"

    history = play(World(fails()))
    index = find(history, TaskFailed)
    destroyed = change(history, index, payload=None)[: index + 1]
    replayer = replay(fails, destroyed)
    (decided,) = replayer.finish()
    assert decided.payload == b'"Declined (destroyed)"'


GARBAGE = [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b'{"type":1}', b'{"label":[]}', b"9" * 400]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("type_", [RunStarted, TaskScheduled, TaskCompleted, TaskFailed, RunCompleted, RunFailed])
def test_damaged_payloads_are_a_mismatch_and_no_crash(type_: type, garbage: bytes) -> None:
    @workflow(name="w")
    async def both(what: str) -> str:
        try:
            await fail(await work(what))
        except Declined:
            if what == "ends badly":
                raise
        return await work("after")

    for what in ("ends well", "ends badly"):
        history = play(World(both(what)))
        try:
            index = find(history, type_)
        except IndexError:
            continue
        try:
            replay(both, change(history, index, payload=garbage)).finish()
        except Mismatch as mismatch:
            assert mismatch.diagnosis.render()
            assert decode_diagnosis(encode_diagnosis(mismatch.diagnosis)) == mismatch.diagnosis


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_history_that_was_tampered_with_is_a_mismatch_or_replays_and_nothing_else(data: st.DataObject) -> None:
    case = CASES[
        data.draw(st.sampled_from(["gather_branches", "timeout_nested", "group_failing_child_cancels_siblings"]))
    ]
    history = list(play(case.world(seeded(data.draw(st.integers(0, 3))))))
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(history) - 1))
        match data.draw(st.sampled_from(["drop", "double", "swap", "payload", "field"])):
            case "drop" if len(history) > 1:
                del history[index]
            case "double":
                history.insert(index, history[index])
            case "swap":
                other = data.draw(st.integers(0, len(history) - 1))
                history[index], history[other] = history[other], history[index]
            case "payload":
                history[index] = history[index]._replace(payload=data.draw(st.sampled_from([None, *GARBAGE])))
            case "field":
                event = history[index].event
                name = data.draw(st.sampled_from(sorted(event.__struct_fields__)))
                present = getattr(event, name)
                texts = st.lists(st.text(max_size=5), max_size=3).map(tuple)
                kinds = {str: st.text(max_size=5), bool: st.booleans(), tuple: texts}
                new = data.draw(kinds.get(type(present), st.integers(-5, 2**62)))
                history[index] = Entry(
                    encode_header(msgspec.structs.replace(event, **{name: new})), history[index].payload
                )
    replayer = Replayer(case.definition, RUN_ID, versions=None, tables=None)
    try:
        for version, entry in enumerate(history, 1):
            replayer.feed(version, entry.event, entry.payload)
        replayer.finish()
    except Mismatch as mismatch:
        assert mismatch.diagnosis.render()
    finally:
        replayer.instance.evict()


# -- notes ------------------------------------------------------------------------------------------------------------


def noted(*notes: Any) -> Replayer:
    index = find(SHOP, TaskScheduled) + 1
    entries = [Entry(encode_header(note), None) for note in notes]
    return replay(shop, SHOP[:index] + entries)


def test_notes_are_kept_on_the_side() -> None:
    id_ = "shop/work#1"
    replayer = noted(
        TaskStarted(at=START + 1, id=id_, attempt=1, worker="w"),
        AttemptFailed(at=START + 2, id=id_, attempt=1, error="ValueError", retry_at=START + 52),
        TaskStarted(at=START + 52, id=id_, attempt=2, worker="w"),
        AttemptFailed(at=START + 60, id=id_, attempt=2, error="ValueError", retry_at=START + 160),
        TaskStarted(at=START + 170, id=id_, attempt=3, worker="other"),
    )
    attempts = replayer.attempts[id_]
    assert (attempts.started, attempts.failed, attempts.slept) == (3, 2, 150)
    assert attempts.retry_at == START + 160
    assert attempts.first_started_at == START + 1
    assert replayer.last_at == START + 170


def test_the_attempts_of_a_finished_task_are_forgotten() -> None:
    assert replay(shop, SHOP).attempts == {}
    index = find(SHOP, TaskCompleted)
    assert set(replay(shop, SHOP[:index]).attempts) == {"shop/work#1"}


def test_notes_may_stand_anywhere_behind_the_first_fact() -> None:
    note = Entry(encode_header(TaskStarted(at=START, id="x", attempt=1, worker="w")), None)
    for index in range(1, len(SHOP) + 1):
        assert replay(shop, [*SHOP[:index], note, *SHOP[index:]]).finish() == []


# -- the time ---------------------------------------------------------------------------------------------------------


def test_time_never_goes_back_within_a_run() -> None:
    @workflow
    async def times() -> list[float]:
        loop = asyncio.get_running_loop()
        found = []
        for n in range(3):
            await work("a", n)
            found.append(loop.time())
        return found

    history = play(World(times()))
    index = find(history, TaskCompleted, 1)
    skewed = change(history, index, at=START - 5_000_000)
    (last,) = replay(times, skewed[: find(history, RunCompleted)]).finish()
    assert last.payload == b"[0.001,0.001,0.003]"


def test_replay_is_linear_in_the_number_of_steps() -> None:
    """Not by the clock: by counting what is compared."""
    history = play(World(fans_out(300)))
    replayer, recorder = rebuild(World(fans_out(300)), history[:-1])
    assert len(recorder.history) == len(history)
    assert replayer.version == len(history) - 1


def test_every_fact_and_decision_type_is_known_to_the_instance() -> None:
    from engine.core import events

    facts = {
        cls for cls in vars(events).values() if isinstance(cls, type) and issubclass(cls, Fact) and cls is not Fact
    }
    instance = rebuild(World(shop("alice")), SHOP[:2])[0].instance

    class Strange(Fact, frozen=True, tag="Strange", kw_only=True):
        pass

    with pytest.raises(HistoryError, match="not a fact that a run takes"):
        instance.deliver(Strange(at=START))
    assert {cls.__name__ for cls in facts} == {
        "RunStarted",
        "RunBegun",
        "TaskCompleted",
        "TaskFailed",
        "TimerFired",
        "CancelRequested",
        "SignalReceived",
        "RequestReceived",
        "ChildCompleted",
        "ChildFailed",
        "SendAccepted",
        "SendRejected",
    }
    assert decode_header(encode_header(TimerStarted(at=1, id="x", deadline=2))) == TimerStarted(
        at=1, id="x", deadline=2
    )


@workflow(name="in_versions", version="1")
async def of_the_first(label: str) -> str:
    return await work(label)


@workflow(name="in_versions", version="2")
async def of_the_second(label: str) -> str:
    return label


@pytest.mark.parametrize("asked_as", [of_the_first, of_the_second])
def test_a_history_is_of_the_version_that_its_first_start_says(asked_as: Any) -> None:
    history = change(play(World(of_the_first("a"))), 0, version="1")
    versions = {"1": of_the_first, "2": of_the_second}
    replayer = Replayer(asked_as, RUN_ID, versions=lambda _name, version: versions.get(version), tables=None)
    for version, entry in enumerate(history, 1):
        replayer.feed(version, entry.event, entry.payload)
    assert replayer.finish() == []
    assert replayer.instance.definition is of_the_first
    assert replayer.epoch_version == 1
    replayer.instance.evict()


def test_a_history_of_a_version_that_is_not_there_is_refused_and_not_guessed() -> None:
    history = change(play(World(of_the_second("a"))), 0, version="3")
    replayer = Replayer(of_the_second, RUN_ID, versions=lambda _name, _version: None, tables=None)
    with pytest.raises(Mismatch) as caught:
        replayer.feed(1, history[0].event, history[0].payload)
    said = caught.value.diagnosis
    assert (said.reason, said.version) == ("history", 1)
    assert said.message == "the run began as version '3' of its workflow, which is not there"
