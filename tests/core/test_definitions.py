"""`@task`, `@workflow` and the calls they make: what is refused when it is defined, and what a call is outside."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
from typing import Any

import pytest
from tenacity import AsyncRetrying, Retrying, retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from engine import Call, TaskOptions, attempt, task, workflow
from engine.core.events import TaskScheduled
from engine.errors import ArgumentsError, DefinitionError, HoldfastError
from tests.core.harness import World, ending, play


@task
async def double(n: int) -> int:
    """Twice as much."""
    return 2 * n


@task
def half(n: int) -> float:
    return n / 2


@workflow
async def quarter(n: int) -> float:
    return await half(await half(n))  # type: ignore[arg-type]


def test_definitions_look_like_their_functions() -> None:
    assert double.__doc__ == "Twice as much."
    assert (double.name, double.__name__, double.kind) == ("double", "double", "task")
    assert inspect.signature(double) == inspect.signature(double.fn)
    assert repr(double) == "<task 'double'>"
    assert repr(quarter) == "<workflow 'quarter'>"
    assert (double.executor, half.executor) == ("loop", "threads")


@pytest.mark.parametrize("thing", [3, "x", None, object()])
@pytest.mark.parametrize("decorator", [task(), workflow()])
def test_what_is_no_function_is_refused(decorator: Any, thing: Any) -> None:
    with pytest.raises(DefinitionError):
        decorator(thing)


def test_functions_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(DefinitionError, match="is not one: make it `async def`"):

        @workflow
        def plain() -> None: ...

    with pytest.raises(DefinitionError, match="'pages' is a generator"):

        @task
        async def pages():  # type: ignore[no-untyped-def]
            yield 1

    with pytest.raises(DefinitionError, match="'rows' is a generator"):

        @task
        def rows():  # type: ignore[no-untyped-def]
            yield 1


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a~b", "a#b", "a\nb", "\x00", "\x7f", "\ud800", " "])
def test_names_that_cannot_stand_in_an_id_are_refused(name: str) -> None:
    async def fn() -> None: ...

    with pytest.raises(DefinitionError, match="cannot name a task"):
        task(name=name)(fn)
    with pytest.raises(DefinitionError, match="cannot name a workflow"):
        workflow(name=name)(fn)


@pytest.mark.parametrize("name", ["load", "shop.load", "läuft", "load-2", "読む", "a:b", "<lambda>"])
def test_other_names_are_taken(name: str) -> None:
    async def fn() -> None: ...

    assert task(name=name)(fn).name == name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 0}, "timeout must be a number of seconds above 0"),
        ({"timeout": -1}, "timeout must be"),
        ({"timeout": "5"}, "timeout must be"),
        ({"deadline": 0.0}, "deadline must be"),
        ({"stop": 5}, "stop takes a tenacity object"),
        ({"wait": 5}, "wait takes a tenacity object"),
        ({"retry": ValueError("x")}, "retry takes a tenacity object"),
        ({"stop": stop_after_attempt}, "not the class stop_after_attempt: call it"),
        ({"retry": retry_if_exception_type}, "not the class retry_if_exception_type"),
        ({"retry": ValueError}, "not the class ValueError"),
        ({"retry": retry(stop=stop_after_attempt(2))}, "what stands in the parentheses"),
        ({"stop": Retrying(stop=stop_after_attempt(2))}, "what stands in the parentheses"),
        ({"wait": AsyncRetrying()}, "what stands in the parentheses"),
        ({"on_cancel": "maybe"}, "on_cancel is 'abandon' or 'wait'"),
        ({"raises": (3,)}, "raises takes exception types"),
        ({"raises": (int,)}, "raises takes exception types"),
    ],
)
def test_options_that_cannot_be_so_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        task(**options)(double.fn)


def test_options_per_call() -> None:
    patient = double.options(timeout=5, stop=stop_after_attempt(3), wait=wait_fixed(1), on_cancel="wait")
    assert patient.policy.timeout == 5
    assert patient.policy.retries
    assert patient.on_cancel == "wait"
    assert (patient.name, patient.fn) == (double.name, double.fn)
    assert double.policy == TaskOptions()
    assert not double.policy.retries
    with pytest.raises(
        DefinitionError,
        match="task 'double' has no option 'time'; there are breaker, deadline, effect, executor,",
    ):
        double.options(time=5)
    with pytest.raises(DefinitionError, match="timeout must be"):
        double.options(timeout=-1)


def test_options_keep_the_call_what_it_was_to_a_replay() -> None:
    def calling(task_: Any) -> Any:
        @workflow(name="w")
        async def calls() -> int:
            return await task_(3)

        return calls

    plain, optioned = (play(World(calling(t)())) for t in (double, double.options(timeout=5)))
    assert [e.payload for e in plain if isinstance(e.event, TaskScheduled)] == [
        e.payload for e in optioned if isinstance(e.event, TaskScheduled)
    ]


# -- calls ------------------------------------------------------------------------------------------------------------


async def test_outside_a_workflow_a_task_is_its_function() -> None:
    assert await double(3) == 6
    assert await half(3) == 1.5
    assert await asyncio.gather(double(1), half(2)) == [2, 1.0]
    assert await asyncio.create_task(double(4)) == 8
    assert await asyncio.wait_for(double(5), 10) == 10
    with pytest.raises(ZeroDivisionError):
        await task(lambda: 1 / 0)()


async def test_outside_a_run_a_workflow_says_what_to_do() -> None:
    with pytest.raises(HoldfastError, match=r"await engine\.start\(quarter\(\.\.\.\)\)"):
        await quarter(4)
    assert await quarter.fn(4) == 1.0


async def test_a_call_is_a_coroutine_that_knows_what_it_calls() -> None:
    call = double(3)
    assert isinstance(call, Call)
    assert isinstance(call, collections.abc.Coroutine)
    assert asyncio.iscoroutine(call)
    assert (call.definition, call.args, call.kwargs, call.begun) == (double, (3,), {}, False)
    assert call.__qualname__ == "double"
    assert call.site.startswith("test_definitions.py:")
    assert repr(call).startswith("<call of task 'double' at test_definitions.py:")
    assert call.cr_code is double.fn.__code__
    assert (call.cr_await, call.cr_frame, call.cr_running) == (None, None, False)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = call.nonsense
    assert await call == 6
    assert call.begun


async def test_a_call_is_awaited_once() -> None:
    call = double(3)
    await call
    with pytest.raises(RuntimeError, match="cannot reuse already awaited call of task 'double'"):
        await call
    closed = double(3)
    closed.close()
    with pytest.raises(RuntimeError):
        await closed
    taken = double(3)
    taken.take()
    with pytest.raises(RuntimeError):
        taken.send(None)


def test_a_call_is_awaited_once_within_a_workflow_too() -> None:
    @workflow
    async def twice() -> str:
        call = double(3)
        await call
        try:
            await call
        except RuntimeError as error:
            return str(error)
        return "twice"

    assert ending(play(World(twice()))) == ("completed", b"\"cannot reuse already awaited call of task 'double'\"")


def test_arguments_are_checked_when_the_call_is_written() -> None:
    with pytest.raises(
        ArgumentsError, match=r"task 'double': missing a required argument: 'n'; its signature is \(n: "
    ):
        double()  # type: ignore[call-arg]
    with pytest.raises(ArgumentsError, match="too many positional arguments"):
        double(1, 2)  # type: ignore[call-arg]
    assert issubclass(ArgumentsError, TypeError)


def test_a_call_that_nobody_awaits_warns() -> None:
    with pytest.warns(RuntimeWarning, match="<call of task 'double' at .* was never awaited"):
        double(3)
    call = double(3)
    call.take()
    del call
    gc.collect()


def test_methods_of_definitions_with_mutable_defaults_are_not_shared() -> None:
    @task
    async def grows(rows: list[int] = []) -> int:  # noqa: B006
        return len(rows)

    @workflow
    async def calls() -> list[int]:
        return [await grows(), await grows([1])]

    assert ending(play(World(calls()))) == ("completed", b"[0,1]")


def test_attempt_outside_an_attempt_says_so() -> None:
    with pytest.raises(HoldfastError, match="only inside a task"):
        attempt()


def test_an_annotation_that_cannot_be_recorded_fails_before_the_task_runs() -> None:
    ran: list[int] = []

    @task
    async def opens() -> object:
        ran.append(1)
        return object()

    @workflow
    async def calls() -> str:
        try:
            await opens()
        except DefinitionError as error:
            return str(error)
        return "ran"

    status, payload = ending(play(World(calls())))
    assert (status, ran) == ("completed", [])
    assert b"the result of task 'opens' is annotated object" in payload
