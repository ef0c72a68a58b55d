"""What it costs to hand an attempt to the place where it runs.

The same function is called as often by the engine's executors and by what Python has for it: worker processes against
`ProcessPoolExecutor` (spawned, as ours are), threads against `ThreadPoolExecutor`, coroutines against `asyncio.gather`.
The work computes for a while, or does nothing, where all that is measured is the way there and back. The ratio is
seconds in worker processes over seconds in the `ProcessPoolExecutor`, for work that computes.

Nothing is recorded here: what a record costs is what `fan_out.py` asks. Processes are started before the clock runs;
how long the first one takes is told beside it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor as Pool
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from report import Aim, Option, Report, options, publish, spread
from workloads import burn, burn_in_a_coroutine, burn_in_a_process, burn_in_a_thread

from engine import Attempt, Task
from engine.core.carriage import INLINE
from engine.executors import Executor, LoopExecutor, ProcessExecutor, ThreadExecutor, Work
from engine.tasks import GivenNames

SIZES = (
    Option("tasks", 1_000, "attempts of each kind in each round"),
    Option("microseconds", 1_000, "that work computes"),
    Option("slots", 2, "processes or threads"),
    Option("rounds", 5, "times that each is measured, in turn"),
)

_ATTEMPT = Attempt(run_id="r", task_id="r/t#1", task="t", number=1, scheduled_at=0, _names=GivenNames("0" * 32, ""))


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Attempts in processes, threads and coroutines against Python's own pools.", SIZES, arguments)
    measured = asyncio.run(_measure(given.tasks, given.microseconds, given.slots, given.rounds))
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        return publish(
            given,
            benchmark="dispatch",
            question="What does it cost to hand an attempt to the place where it runs?",
            ratio=measured["processes"]["computing"]["ratio"].measured,
            ratio_of="seconds in worker processes / seconds in a ProcessPoolExecutor, of the same work",
            aim=Aim(at_most=1.5),
            directory=Path(name),
            measured=measured,
        )


async def _measure(tasks: int, microseconds: int, slots: int, rounds: int) -> dict[str, Any]:
    """Everything, in one loop: pools are used again from round to round, as ours are."""
    loop = asyncio.get_running_loop()
    spawn = multiprocessing.get_context("spawn")
    processes, threads, coroutines = ProcessExecutor(slots), ThreadExecutor(slots), LoopExecutor(tasks)
    started = time.perf_counter()
    await _run_ours(processes, burn_in_a_process, 1, 0, slots)
    first = time.perf_counter() - started
    with (
        ProcessPoolExecutor(slots, mp_context=spawn) as process_pool,
        ThreadPoolExecutor(slots) as thread_pool,
    ):

        def in_pool(pool: Pool, each: int) -> Awaitable[Any]:
            return asyncio.gather(*(loop.run_in_executor(pool, burn, each) for _ in range(tasks)))

        async def in_coroutines(each: int) -> None:
            await asyncio.gather(*(asyncio.create_task(burn_in_a_coroutine.fn(each)) for _ in range(tasks)))

        report: dict[str, Any] = {"first_process_milliseconds": round(first * 1000, 1)}
        for name, ours, bare in (
            ("processes", (processes, burn_in_a_process, slots), lambda each: in_pool(process_pool, each)),
            ("threads", (threads, burn_in_a_thread, slots), lambda each: in_pool(thread_pool, each)),
            ("coroutines", (coroutines, burn_in_a_coroutine, tasks), in_coroutines),
        ):
            executor, definition, width = ours
            await _run_ours(executor, definition, min(tasks, 4 * width), 0, width)
            await bare(0)
            report[name] = {
                kind: await _compare(
                    lambda each=each, e=executor, d=definition, w=width: _run_ours(e, d, tasks, each, w),
                    lambda each=each, bare=bare: bare(each),
                    tasks=tasks,
                    rounds=rounds,
                )
                for kind, each in (("computing", microseconds), ("nothing", 0))
            }
    for executor in (processes, threads, coroutines):
        await executor.aclose()
    return report


async def _compare(
    ours: Callable[[], Awaitable[Any]], bare: Callable[[], Awaitable[Any]], *, tasks: int, rounds: int
) -> dict[str, Any]:
    found: dict[str, list[float]] = {"ratio": [], "microseconds": [], "bare_microseconds": []}
    for _ in range(rounds):
        engine_seconds, bare_seconds = await _seconds(ours), await _seconds(bare)
        found["ratio"].append(engine_seconds / bare_seconds)
        found["microseconds"].append(engine_seconds / tasks * 1e6)
        found["bare_microseconds"].append(bare_seconds / tasks * 1e6)
    return {name: spread(values) for name, values in found.items()}


async def _seconds(run: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await run()
    return time.perf_counter() - started


async def _run_ours(executor: Executor, definition: Task[..., Any], tasks: int, each: int, width: int) -> None:
    """So many attempts, each in a slot, as a dispatcher gives them."""
    free = asyncio.Semaphore(width)
    arguments = definition.arguments.encode((each,), {}, INLINE)

    async def one() -> None:
        async with free:
            assert executor.slots.try_take()
            args, kwargs = definition.arguments.decode(arguments, INLINE)
            await executor.run(Work(definition, arguments, args, kwargs, _ATTEMPT))

    await asyncio.gather(*(asyncio.create_task(one()) for _ in range(tasks)))


if __name__ == "__main__":
    main()
