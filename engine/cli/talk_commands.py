"""The commands that talk with a run: what is said to it and asked of it, what it publishes, and what others do for it.

The target tells the declared types of names; a value is checked against them here, before anything is sent.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli import doing
from engine.cli.stores import DEFAULT_STORE
from engine.cli.words import (
    ByOption,
    DebugOption,
    FollowOption,
    JsonOption,
    ReasonOption,
    RunArgument,
    StoreOption,
    TargetArgument,
    ValueArgument,
    by_whom,
    commands,
    epilog,
)

__all__ = ["group"]

group = commands()

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name, as it is declared in the target.", show_default=False)
]
SomeNameArgument = Annotated[
    str | None, typer.Argument(metavar="NAME", help="One of them; all without.", show_default=False)
]
TokenArgument = Annotated[str, typer.Argument(metavar="TOKEN", help="What the task gave away.", show_default=False)]
IdOption = Annotated[
    str | None,
    typer.Option("--id", metavar="ID", help="The same id again is the same message, heard once.", show_default=False),
]


@group.command(
    epilog=epilog(
        "holdfast signal shop.py order-7 approve true",
        """holdfast signal shop.py order-7 add '{"item": "pen", "count": 3}' --id add-1""",
        "holdfast signal shop.py order-7 note 'call first' --by ann --reason 'the customer asked'",
        "holdfast signal shop.py:orders order-7 draft - < draft.json",
    )
)
def signal(
    *,
    target: TargetArgument,
    run_id: RunArgument,
    name: NameArgument,
    value: ValueArgument = None,
    id_: IdOption = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Send a signal to a run. Durable when this ends; heard when somebody works on the run."""
    from engine import Signal  # noqa: PLC0415 - see `doing`
    from engine.cli import declared, talking  # noqa: PLC0415

    message = _id(id_) or talking.new_id()

    def prepare(target: Any) -> tuple[Signal[Any], Any]:
        found = declared.find(target, Signal, name)
        return found, declared.value_of(value, found.codec.type, what=f"signal {found.name}")

    doing.talk(
        prepare,
        lambda talk, prepared: talking.signal(talk, *prepared, id_=message),
        target=target,
        run_id=run_id,
        store=store,
        by=by,
        reason=reason,
        json=json,
        debug=debug,
    )


@group.command(
    epilog=epilog(
        """holdfast request shop.py order-7 review '{"text": "..."}' --json""",
        "holdfast request shop.py order-7 review - --id review-1 --timeout 60 < draft.json",
        "holdfast request shop.py order-7 review - --id review-1 --no-wait < draft.json",
    )
)
def request(
    *,
    target: TargetArgument,
    run_id: RunArgument,
    name: NameArgument,
    value: ValueArgument = None,
    id_: IdOption = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.1,
            help="How long to wait; nothing is taken back then, and the same --id asks again.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option(" /--no-wait", help="End once it is accepted.", show_default=False)] = True,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Send a request to a run, and print its answer.

    The run accepts it, or its validator refuses it; then it is answered, or fails.
    """
    from engine import Request  # noqa: PLC0415 - see `doing`
    from engine.cli import declared, talking  # noqa: PLC0415

    message = _id(id_) or talking.new_id()

    def prepare(target: Any) -> talking.Asked:
        found = declared.find(target, Request, name)
        argument = declared.value_of(value, found.argument.type, what=f"request {found.name}")
        return talking.Asked(request=found, argument=argument, text=value, id=message, timeout=timeout, wait=wait)

    doing.talk(
        prepare,
        talking.request,
        target=target,
        run_id=run_id,
        store=store,
        by=by,
        reason=reason,
        json=json,
        debug=debug,
    )


@group.command(
    epilog=epilog("holdfast query shop.py order-7 progress", "holdfast query shop.py order-7 price 2026-01-31 --json")
)
def query(
    *,
    target: TargetArgument,
    run_id: RunArgument,
    name: NameArgument,
    value: ValueArgument = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Ask the code of a run: its history is replayed here, and nothing is changed."""
    from engine import Query  # noqa: PLC0415 - see `doing`
    from engine.cli import declared, talking  # noqa: PLC0415

    def prepare(target: Any) -> tuple[Query[Any, Any], Any]:
        found = declared.find(target, Query, name)
        return found, declared.value_of(value, found.argument.type, what=f"query {found.name}")

    doing.talk(
        prepare,
        lambda talk, prepared: talking.query(talk, *prepared),
        target=target,
        run_id=run_id,
        store=store,
        by=None,
        json=json,
        debug=debug,
    )


@group.command(
    epilog=epilog(
        "holdfast state shop.py order-7",
        "holdfast state shop.py order-7 phase",
        "holdfast state shop.py order-7 --json",
    )
)
def state(
    *,
    target: TargetArgument,
    run_id: RunArgument,
    name: SomeNameArgument = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what a run publishes: all its states, or one.

    Read from the log; nobody need work on the run. A state that the target does not declare is shown as recorded.
    """
    from engine import State  # noqa: PLC0415 - see `doing`
    from engine.cli import declared, published  # noqa: PLC0415

    doing.talk(
        lambda target: None if name is None else declared.find_or_none(target, State, name),
        lambda talk, found: published.states(talk) if name is None else published.state(talk, name, found),
        target=target,
        run_id=run_id,
        store=store,
        by=None,
        json=json,
        debug=debug,
        read_only=True,
    )


@group.command(
    epilog=epilog("holdfast feed shop.py order-7 log --follow", "holdfast feed shop.py order-7 log --json > log.jsonl")
)
def feed(
    *,
    target: TargetArgument,
    run_id: RunArgument,
    name: NameArgument,
    follow: FollowOption = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Print the values that a run publishes to a feed, from the first on; as JSON lines with --json."""
    from engine import Feed  # noqa: PLC0415 - see `doing`
    from engine.cli import declared, published  # noqa: PLC0415

    doing.talk(
        lambda target: (declared.find if follow else declared.find_or_none)(target, Feed, name),
        lambda talk, found: published.feed(talk, name, found, follow=follow),
        target=target,
        run_id=run_id,
        store=store,
        by=None,
        json=json,
        debug=debug,
        read_only=True,
    )


@group.command(
    epilog=epilog(
        "holdfast complete WyJvcmRlci03Ii... true",
        "holdfast complete WyJvcmRlci03Ii... 17 --task shop.py:approval",
        "holdfast complete WyJvcmRlci03Ii... - < answer.json",
    )
)
def complete(
    *,
    token: TokenArgument,
    value: ValueArgument = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="TARGET",
            help="FILE.py:task or module:task, to check VALUE here; unchecked, one that does not fit fails the task.",
            show_default=False,
        ),
    ] = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """End a task that was handed out, with its result. The token says which."""
    from engine.cli import tokens  # noqa: PLC0415 - see `doing`
    from engine.cli.declared import value_of  # noqa: PLC0415
    from engine.cli.targets import load_task  # noqa: PLC0415

    def prepare() -> tuple[Any, Any]:
        found = None if task is None else load_task(task)
        what = "the task" if found is None else f"task {found.name}"
        return found, value_of(value, Any if found is None else found.result.type, what=what)

    doing.change_prepared(
        prepare,
        lambda given, output, prepared: tokens.complete(
            given, output, token, prepared[1], task=prepared[0], by=by_whom(by), reason=reason
        ),
        store=store,
        json=json,
        debug=debug,
    )


@group.command(epilog=epilog("holdfast reject WyJvcmRlci03Ii... 'nobody is there'"))
def reject(
    *,
    token: TokenArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Why, as the task's error.", show_default=False)],
    reason: ReasonOption = "",
    by: ByOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """End a task that was handed out, with a final failure."""
    from engine.cli import tokens  # noqa: PLC0415 - see `doing`

    doing.change(
        lambda given, output: tokens.reject(given, output, token, text, by=by_whom(by), reason=reason),
        store=store,
        json=json,
        debug=debug,
    )


def _id(id_: str | None) -> str | None:
    if id_ is not None and not id_.strip():
        raise typer.BadParameter("it is empty", param_hint="--id")
    return id_
