"""The workloads and crash programs on Dagster: jobs of ops, the in-process executor, SQLite below `DAGSTER_HOME`.

A job is a graph that is known before it runs; what it may do at once is what does not depend on each other. (The
in-process executor runs it one after the other.) The fan-out is a dynamic output, mapped and collected. There is
nothing in a job that waits for whichever op is done first, and no timeout of an op, so those two are not written.

After a crash the run is reported as failed (what its run monitoring does for a run whose process is gone) and executed
again from failure (what its run retries do, `FROM_FAILURE`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import shared
from dagster import (
    DagsterInstance,
    DynamicOut,
    DynamicOutput,
    GraphDefinition,
    JobDefinition,
    ReexecutionOptions,
    execute_job,
    graph,
    in_process_executor,
    op,
    reconstructable,
)
from shared import say, slow_effect

STOPPED_STEPS = 100
"""Steps of the run that is stopped: what is executed again is found by the name of a function without arguments."""
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
"""Without it, it prints several lines for every op, and is three times as slow."""


@op
def echo(value: int) -> int:
    return value + 1


@op
def echo_or_stop(value: int) -> int:
    return shared.echo_or_stop(value) + 1


def chain(name: str, count: int, body: Any) -> JobDefinition:
    """So many ops, each fed by the one before it."""

    @graph(name=name)
    def made(value: int) -> int:
        for number in range(count):
            value = body.alias(f"op_{number}")(value)
        return value

    return as_job(made, {"value": 0})


def as_job(made: GraphDefinition, inputs: dict[str, Any]) -> JobDefinition:
    return made.to_job(executor_def=in_process_executor, input_values=inputs)


def steps(count: int) -> JobDefinition:
    return chain("steps", count, echo)


def stopped() -> JobDefinition:
    return chain("stopped", STOPPED_STEPS, echo_or_stop)


@op(out=DynamicOut(int))
def numbers(count: int) -> Any:
    for value in range(count):
        yield DynamicOutput(value, mapping_key=str(value))


@op
def same(value: int) -> int:
    return value


@op
def add(values: list[int]) -> int:
    return sum(values)


def fan_out(count: int) -> JobDefinition:
    @graph(name="fan_out")
    def made(count: int) -> int:
        return add(numbers(count).map(same).collect())

    return as_job(made, {"count": count})


@op
def a1(value: str) -> str:
    return slow_effect("a1", value)


@op
def a2(value: str) -> str:
    return slow_effect("a2", value)


@op
def a3(value: str) -> str:
    return slow_effect("a3", value)


@op
def b1(value: str) -> str:
    return slow_effect("b1", value)


@op
def b2(value: str) -> str:
    return slow_effect("b2", value)


@op
def b3(value: str) -> str:
    return slow_effect("b3", value)


@op
def step(value: str) -> str:
    return slow_effect("step", value)


@op
def join(x: str, y: str) -> str:
    return slow_effect("join", f"{x}|{y}")


@graph(name="different")
def different_graph(a: str, b: str) -> str:
    return join(a3(a2(a1(a))), b3(b2(b1(b))))


@graph(name="same_named")
def same_named_graph(a: str, b: str) -> str:
    return join(step(step(step(a))), step(step(step(b))))


def different() -> JobDefinition:
    return as_job(different_graph, {"a": "a", "b": "b"})


def same_named() -> JobDefinition:
    return as_job(same_named_graph, {"a": "a", "b": "b"})


PROGRAMS = {"different": different, "same_named": same_named}


def run_steps(folder: Path, *, count: int) -> None:
    del folder
    job = steps(count)
    with DagsterInstance.get() as instance:
        started = time.perf_counter()
        result = job.execute_in_process(instance=instance, run_config=QUIET)
        assert result.output_value() == count
        say(seconds=time.perf_counter() - started)


def run_many(folder: Path, *, runs: int, count: int) -> None:
    """One after the other: the in-process executor has nothing that runs several at once in a process."""
    del folder
    job = steps(count)
    with DagsterInstance.get() as instance:
        started = time.perf_counter()
        for _ in range(runs):
            assert job.execute_in_process(instance=instance, run_config=QUIET).output_value() == count
        say(seconds=time.perf_counter() - started)


def run_fan_out(folder: Path, *, count: int) -> None:
    del folder
    job = fan_out(count)
    with DagsterInstance.get() as instance:
        started = time.perf_counter()
        assert job.execute_in_process(instance=instance, run_config=QUIET).output_value() == shared.total(count)
        say(seconds=time.perf_counter() - started)


def execute_or_go_on(make: Any, identity: str, last: str) -> Any:
    """Executes it, or again from failure if there is a run of it already; the output of its last op."""
    with DagsterInstance.get() as instance:
        runs = [run for run in instance.get_runs() if run.tags.get("peers") == identity]
        again = None
        if runs:
            instance.report_run_failed(runs[0], "its process is gone")
            again = ReexecutionOptions.from_failure(runs[0].run_id, instance)
        with execute_job(
            reconstructable(make),
            instance,
            run_config=QUIET,
            tags={"peers": identity},
            reexecution_options=again,
        ) as result:
            assert result.success, "the run failed"
            return result.output_for_node(last)


def run_stopped(folder: Path, *, count: int) -> None:
    assert count == STOPPED_STEPS
    assert execute_or_go_on(stopped, f"{folder.name}/stopped", f"op_{count - 1}") == count


def run_program(folder: Path, *, name: str) -> None:
    say(ready=True)
    say(result=execute_or_go_on(PROGRAMS[name], f"{folder.name}/{name}", "join"))


if __name__ == "__main__":
    shared.run(
        {"steps": run_steps, "many": run_many, "fan_out": run_fan_out, "stopped": run_stopped, "program": run_program}
    )
