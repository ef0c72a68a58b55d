"""A program that embeds the engine, to be killed: ``python -m tests.crash.pipeline DB OUTSIDE ...``.

Its tasks have effects on files: each writes what it makes, and appends a line to ``OUTSIDE/effects`` first, with its
idempotency key. It prints its result as JSON when it ends. Where it kills itself is told by ``--kill``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, attempt, task, workflow
from eventstore.sqlite import SqliteStore
from tests.runtime.worlds import result_of

PATIENCE_SECONDS = 60.0
OUTSIDE = Path(os.environ.get("PIPELINE_OUTSIDE", "."))
EFFECTS_UNTIL_KILLED = 0


def effect() -> None:
    """What the outside sees of an attempt, in one write."""
    global EFFECTS_UNTIL_KILLED
    now = attempt()
    line = f"{now.idempotency_key} {now.run_id} {now.task_id} {now.number} {os.getpid()}\n"
    descriptor = os.open(OUTSIDE / "effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)
    if EFFECTS_UNTIL_KILLED:
        EFFECTS_UNTIL_KILLED -= 1
        if not EFFECTS_UNTIL_KILLED:
            os.kill(os.getpid(), signal.SIGKILL)


def put(name: str, text: str) -> str:
    """Write a file as a whole or not at all."""
    half = OUTSIDE / f"{name}.{attempt().idempotency_key}.{os.getpid()}.part"  # two runs may write the same
    half.write_text(text)
    half.replace(OUTSIDE / name)
    return name


@task
def extract(page: int) -> str:
    effect()
    return put(f"page-{page}", f"{page}\n" * page)


@task(stop=stop_after_attempt(50), wait=wait_fixed(0.02))
async def transform(name: str) -> int:
    effect()
    marker = OUTSIDE / f"{name}.failed"
    if not marker.exists():  # the first time for each page, whoever asks
        marker.touch()
        raise ConnectionError(name)
    return len((OUTSIDE / name).read_text().split())


@task
async def load(counts: list[int]) -> int:
    effect()
    put("table", json.dumps(counts))
    return sum(counts)


@workflow
async def pipeline(pages: int) -> int:
    names = await asyncio.gather(*(extract(page) for page in range(1, pages + 1)))
    counts = await asyncio.gather(*(transform(name) for name in names))
    await asyncio.sleep(0.05)
    return await load(list(counts))


@task
def hold(n: int) -> int:
    """Ends when the file ``go`` is there."""
    effect()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (OUTSIDE / "go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody let me go")
        time.sleep(0.005)
    return n


@workflow
async def holding(n: int) -> int:
    return await hold(n) + await hold(1)


WORKFLOWS = (pipeline, holding)


class Killing:
    """Hands everything on to a store, and kills the process before or behind the commit of a number."""

    def __init__(self, inner: SqliteStore, where: str) -> None:
        self._inner = inner
        self._when, _, number = where.partition(":")
        self._left = int(number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def commit(self, commit: Any) -> Any:
        self._left -= 1
        if self._left == 0 and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        head = await self._inner.commit(commit)
        if self._left == 0 and self._when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return head


async def main(arguments: argparse.Namespace) -> Any:
    global EFFECTS_UNTIL_KILLED
    store: Any = await SqliteStore.open(arguments.db, lease_ttl=arguments.ttl, writes_on=arguments.writes_on)
    where, _, number = arguments.kill.partition(":")
    if where == "effect":
        EFFECTS_UNTIL_KILLED = int(number)
    elif where:
        store = Killing(store, arguments.kill)
    definitions = () if arguments.client else WORKFLOWS
    definition = {found.name: found for found in WORKFLOWS}[arguments.workflow]
    try:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            Engine(store, workflows=definitions, worker=arguments.name, grace=0) as engine,
        ):
            print("open", flush=True)
            if arguments.client:
                handles = [engine.run(run_id) for run_id in arguments.runs]
            else:
                handles = [await engine.start(definition(arguments.size), id=run_id) for run_id in arguments.runs]
            return await asyncio.gather(*(result_of(handle) for handle in handles))
    finally:
        await store.aclose()


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("db")
    parser.add_argument("--workflow", default="pipeline")
    parser.add_argument("--size", type=int, default=4)
    parser.add_argument("--runs", nargs="+", default=["a"])
    parser.add_argument("--ttl", type=float, default=10.0)
    parser.add_argument("--writes-on", default="thread")
    parser.add_argument("--name", default=None)
    parser.add_argument("--client", action="store_true")
    parser.add_argument("--kill", default="", help="before:N, after:N (commits), effect:N")
    return parser.parse_args(argv)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(parse(sys.argv[1:])))), flush=True)
