"""From words to work: loads what is named, opens the store, does it, and ends with the exit code.

What a command needs beyond its help is imported when it runs, so that help comes quickly.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import typer

from engine.cli.problems import Exit, problem_of

__all__ = ["change", "change_prepared", "exit_with", "judge", "read", "talk", "user", "work"]

T = TypeVar("T")
Work = Callable[[Any, Any], Coroutine[Any, Any, Exit]]


def work(
    do: Callable[[Any], Coroutine[Any, Any, Exit]],
    *,
    target: str,
    words: list[str] | None,
    store: str,
    grace: float,
    json: bool,
    debug: bool,
    by: str | None = None,
    reason: str = "",
    must_exist: bool = False,
) -> None:
    """`run`, `resume` and their like: load the target, read the arguments, and only then open the store and work.

    `must_exist`: a store that is not there is an error, and is not made.
    """
    from engine.cli import stores  # noqa: PLC0415 - see the module
    from engine.cli.arguments import bind  # noqa: PLC0415
    from engine.cli.output import Output  # noqa: PLC0415
    from engine.cli.session import Session  # noqa: PLC0415
    from engine.cli.targets import Target, load  # noqa: PLC0415

    output = Output(json=json)

    async def opened(loaded: Target, bound: tuple[tuple[Any, ...], dict[str, Any]]) -> Exit:
        async with stores.existing(store) if must_exist else stores.opened(store) as given:
            session = Session(
                target=loaded,
                bound=bound,
                store=given,
                url=store,
                output=output,
                grace=grace,
                by=user() if by is None else by,
                reason=reason,
                debug=debug,
            )
            return await do(session)

    def action() -> Coroutine[Any, Any, Exit]:
        loaded = load(target)  # outside the loop: a file may do what it likes while it is loaded
        return opened(loaded, bind(loaded.only(), words) if words is not None else ((), {}))

    with output.reserved():
        exit_with(action, debug=debug, unread=Exit.INTERRUPTED)


def talk(
    prepare: Callable[[Any], T],
    do: Callable[[Any, T], Coroutine[Any, Any, Exit]],
    *,
    target: str,
    run_id: str,
    store: str,
    by: str | None,
    json: bool,
    debug: bool,
    reason: str = "",
    read_only: bool = False,
) -> None:
    """What is said to a run, or asked of it: load the target, let `prepare` see what is meant, then open the store."""
    from engine.cli import stores  # noqa: PLC0415 - see the module
    from engine.cli.output import Output  # noqa: PLC0415
    from engine.cli.talking import Talk  # noqa: PLC0415
    from engine.cli.targets import Target, load  # noqa: PLC0415

    output = Output(json=json)

    async def opened(loaded: Target, prepared: T) -> Exit:
        async with stores.existing(store, read_only=read_only) as given:
            speaker = user() if by is None else by
            talk = Talk(target=loaded, run_id=run_id, store=given, url=store, output=output, by=speaker, reason=reason)
            return await do(talk, prepared)

    def action() -> Coroutine[Any, Any, Exit]:
        loaded = load(target)
        return opened(loaded, prepare(loaded))

    with output.reserved():
        exit_with(action, debug=debug)


def read(do: Work, *, store: str, json: bool, debug: bool, as_it_is: bool = True) -> None:
    """The commands that only look; large values as what the store holds of them, unless `as_it_is` is False."""
    from engine.cli import stores  # noqa: PLC0415 - see the module
    from engine.cli.output import Output  # noqa: PLC0415

    async def opened() -> Exit:
        async with stores.opened(store, read_only=True, as_it_is=as_it_is) as given:
            return await do(given, Output(json=json))

    exit_with(opened, debug=debug)


def judge(
    do: Callable[[Any, Any, Any], Coroutine[Any, Any, Exit]], *, target: str, store: str, json: bool, debug: bool
) -> None:
    """The commands that hold code against a store: load the target, then open the store to look at it."""
    from engine.cli import stores  # noqa: PLC0415 - see the module
    from engine.cli.output import Output  # noqa: PLC0415
    from engine.cli.targets import Target, load  # noqa: PLC0415

    output = Output(json=json)

    async def opened(loaded: Target) -> Exit:
        async with stores.opened(store, read_only=True) as given:
            return await do(given, loaded, output)

    def action() -> Coroutine[Any, Any, Exit]:
        return opened(load(target))

    with output.reserved():
        exit_with(action, debug=debug)


def change(do: Work, *, store: str, json: bool, debug: bool, as_it_is: bool = True) -> None:
    """The commands that leave a word in a store which is there, and load no code; `as_it_is` as in `read`."""
    from engine.cli.output import Output  # noqa: PLC0415 - see the module

    exit_with(lambda: _changed(Output(json=json), store, do, as_it_is=as_it_is), debug=debug)


async def _changed(output: Any, url: str, do: Work, *, as_it_is: bool = True) -> Exit:
    from engine.cli import stores  # noqa: PLC0415 - see the module

    async with stores.existing(url, as_it_is=as_it_is) as given:
        return await do(given, output)


def change_prepared(
    prepare: Callable[[], T],
    do: Callable[[Any, Any, T], Coroutine[Any, Any, Exit]],
    *,
    store: str,
    json: bool,
    debug: bool,
) -> None:
    """Likewise, after something that is done before the store is opened, and may load a file."""
    from engine.cli.output import Output  # noqa: PLC0415 - see the module

    output = Output(json=json)

    def action() -> Coroutine[Any, Any, Exit]:
        prepared = prepare()
        return _changed(output, store, lambda given, said: do(given, said, prepared))

    with output.reserved():
        exit_with(action, debug=debug)


def exit_with(action: Callable[[], Coroutine[Any, Any, Exit]], *, debug: bool, unread: Exit = Exit.COMPLETED) -> None:
    """Do it, say what went wrong, and end with the exit code; `unread` is that for when nobody reads our output."""
    try:
        code = asyncio.run(action())
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has gone (`| head`), and there is nobody to tell it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = unread
    except Exception as error:
        if debug:
            traceback.print_exception(error)
        code = _complain(error)
    raise typer.Exit(int(code))


def _complain(error: Exception) -> Exit:
    from engine.cli.output import complain  # noqa: PLC0415 - see the module

    problem = problem_of(error)
    complain(problem)
    return problem.code


def user() -> str:
    """Who types this, for the history."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
