"""`rerun`, `reopen`, `fork`: what is recorded, and then worked on and watched, as `resume` does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from engine import Engine, RunHandle, Task
from engine.cli.declared import modules_of, value_of
from engine.cli.problems import Exit, Problem
from engine.cli.searching import Many, deal_with, many_of
from engine.cli.session import Session, work_on

__all__ = ["check_has", "fork", "given_results", "many_of", "reopen", "rerun", "with_code"]


async def rerun(
    session: Session, run_id: str | None, many: Many | None, *, new_id: str | None, leave: bool, reason: str
) -> Exit:
    """Run one again, or record that many are to be."""
    async with with_code(session) as engine:
        if many is not None:
            return await _many(session, engine, many, "rerun", lambda each: _rerun(session, engine, each, None, reason))
        assert run_id is not None
        await check_has(session, engine, run_id)
        run = await engine.rerun(run_id, id=new_id, by=session.by, reason=reason)
    return await _go_on(session, run, f"run {run.id} is a rerun of {run_id}", leave=leave)


async def reopen(session: Session, run_id: str | None, many: Many | None, *, leave: bool, reason: str) -> Exit:
    """Let one go on behind its end, or record that many do."""
    async with with_code(session) as engine:
        if many is not None:
            return await _many(session, engine, many, "reopen", lambda each: _reopen(session, engine, each, reason))
        assert run_id is not None
        await check_has(session, engine, run_id)
        run = await engine.reopen(run_id, by=session.by, reason=reason)
    return await _go_on(session, run, f"run {run_id} goes on behind its end", leave=leave)


async def fork(
    session: Session, run_id: str, *, at: int, words: list[str], new_id: str | None, leave: bool, reason: str
) -> Exit:
    """Make a fork of one."""
    async with with_code(session) as engine:
        workflow = await check_has(session, engine, run_id)
        substitute = given_results(session, workflow, words)
        run = await engine.fork(run_id, at=at, id=new_id, substitute=substitute, by=session.by, reason=reason)
    return await _go_on(session, run, f"run {run.id} is a fork of {run_id} at version {at}", leave=leave)


@asynccontextmanager
async def with_code(session: Session) -> AsyncIterator[Engine]:
    """An engine that has the target's workflows, and works on nothing."""
    async with Engine(session.store, workflows=session.target.workflows, only=()) as engine:
        yield engine


async def check_has(session: Session, engine: Engine, run_id: str) -> str:
    """The name of the run's workflow. Raises `Problem` unless the target has it."""
    workflow = (await engine.run(run_id).state()).workflow
    names = [each.name for each in session.target.workflows]
    if workflow not in names:
        has = f"has {', '.join(names)}" if names else "has no workflow"
        raise Problem(f"run {run_id} is of workflow {workflow!r}, but {session.target.text} {has}")
    return workflow


def given_results(session: Session, workflow: str, words: list[str]) -> Mapping[str, Any]:
    """``TASK=VALUE`` as results by task id; TASK may leave out the name of the workflow, as `show` does."""
    found: dict[str, Any] = {}
    for word in words:
        # A branch's name may hold an equals sign, and a value may hold anything: the call's counter stands between.
        head, number, rest = word.partition("#")
        digits, equals, text = rest.partition("=")
        if not (number and equals and digits.isdecimal()):
            raise Problem(f"--set {word!r} is not of the form TASK=VALUE, as in --set 'extract#1=[1, 2]'")
        task_id = f"{head}#{digits}"
        if not task_id.startswith(f"{workflow}/"):
            task_id = f"{workflow}/{task_id}"
        if task_id in found:
            raise Problem(f"--set gives two results for task {task_id}")
        found[task_id] = _value(session, task_id, text)
    return found


def _value(session: Session, task_id: str, text: str) -> Any:
    name = task_id.rpartition("/")[2].partition("#")[0]
    for modules in modules_of(session.target):
        for module in modules:
            for value in vars(module).values():
                if isinstance(value, Task) and value.name == name:
                    return value_of(text, value.result.type, what=f"task {name}")
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text


async def _rerun(session: Session, engine: Engine, run_id: str, new_id: str | None, reason: str) -> str:
    run = await engine.rerun(run_id, id=new_id, by=session.by, reason=reason)
    return f"run {run.id} is a rerun of {run_id}"


async def _reopen(session: Session, engine: Engine, run_id: str, reason: str) -> str:
    await engine.reopen(run_id, by=session.by, reason=reason)
    return f"run {run_id} goes on behind its end"


async def _many(session: Session, engine: Engine, many: Many, verb: str, do: Callable[[str], Awaitable[str]]) -> Exit:
    then = f"whoever works on this store goes on with them; or: {session.resume_command('')}"
    return await deal_with(engine, session.output, many, verb, do, then=then)


async def _go_on(session: Session, run: RunHandle[Any], said: str, *, leave: bool) -> Exit:
    output = session.output
    if not leave:
        if not output.json:
            output.line(said)
        return await work_on(session, run.id)
    if output.json:
        output.document({"run": run.id, "message": said})
    else:
        output.line(said)
        output.line(f"whoever works on this store goes on with it; or: {session.resume_command(run.id)}")
    return Exit.COMPLETED
