"""`state` and `feed`: what a run publishes, read from the log. No worker is needed, and none is asked."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, to_builtins

from engine import Engine, Feed, RunHandle, State
from engine.cli.declared import declared, types_text, unknown
from engine.cli.problems import Exit, Problem
from engine.cli.summary import value_view
from engine.cli.tables import Published, published_table
from engine.cli.talking import Talk, check_workflow
from engine.errors import NotRecordable

__all__ = ["feed", "state", "states"]


async def state(talk: Talk, name: str, what: State[Any] | None) -> Exit:
    """One state's value: of its declared type, or as it stands in the log when the target declares none."""
    async with Engine(talk.store) as client:
        run = client.run(talk.run_id)
        await check_workflow(run, talk.target)
        payload = await _undeclared(talk, run, name) if what is None else what.codec.encode(await run.read(what))
    name = name if what is None else what.name
    if talk.output.json:
        talk.output.document({"run": run.id, "state": name, "value": Raw(payload)})
    else:
        talk.output.show(value_view(payload))
    return Exit.COMPLETED


async def _undeclared(talk: Talk, run: RunHandle[Any], name: str) -> bytes:
    published = (await run.state()).states
    if name not in published:
        there = f"Run {run.id} has published {', '.join(published) or 'none'}"
        raise Problem(f"{unknown(talk.target, State, name)} {there}.")
    if (payload := published[name]) is None:
        raise Problem(f"the value of state {name!r} of run {run.id} was destroyed", code=Exit.FAILED)
    return payload


async def states(talk: Talk) -> Exit:
    """All states that a run has published, and the initial values of those that are declared and were not."""
    async with Engine(talk.store) as client:
        run = client.run(talk.run_id)
        await check_workflow(run, talk.target)
        published = (await run.state()).states
    known = declared(talk.target, State)
    rows = [Published(name, payload, _remark(known.get(name), payload)) for name, payload in published.items()]
    initial = {each.name: each.initial for each in known.values() if each.name not in published}
    rows += [
        Published(name, known[name].codec.encode(value), "initial; not published yet")
        for name, value in initial.items()
        if value is not UNSET
    ]
    if talk.output.json:
        documents = {row.name: None if row.payload is None else Raw(row.payload) for row in rows}
        talk.output.document(
            {
                "run": run.id,
                "states": {name: value for name, value in documents.items() if name in published},
                "initial": {name: value for name, value in documents.items() if name not in published},
            }
        )
    elif rows:
        talk.output.show(published_table(rows))
    else:
        talk.output.line(f"run {run.id} has published no state")
    return Exit.COMPLETED


def _remark(what: State[Any] | None, payload: bytes | None) -> str:
    """What there is to say about a recorded value: its type, or that it does not fit that any more."""
    if what is None:
        return "not declared in the target"
    if payload is None:
        return "destroyed"
    try:
        what.codec.decode(payload)
    except NotRecordable:
        return f"recorded as something else than {types_text(what)}"
    return types_text(what)


async def feed(talk: Talk, name: str, what: Feed[Any] | None, *, follow: bool) -> Exit:
    """The values of a feed from the first on, one after the other; as JSON lines with `--json`."""
    async with Engine(talk.store) as client:
        run = client.run(talk.run_id)
        await check_workflow(run, talk.target)
        if what is not None:
            async for value in run.feed(what, follow=follow):
                _print(talk, what.codec.encode(value))
            return Exit.COMPLETED
        names: set[str] = set()
        async for recorded in run.events():
            header = to_builtins(recorded.event) if type(recorded.event).__name__ == "FeedPublished" else {}
            names |= {header["name"]} if header else set()
            if header and header["name"] == name and recorded.payload is not None:
                _print(talk, recorded.payload)
    if name not in names:
        there = f"Run {run.id} has published to {', '.join(sorted(names)) or 'none'}"
        raise Problem(f"{unknown(talk.target, Feed, name)} {there}.")
    return Exit.COMPLETED


def _print(talk: Talk, payload: bytes) -> None:
    if talk.output.json:
        talk.output.document(Raw(payload))
        return
    value = msgspec.json.decode(payload)
    talk.output.line(value if isinstance(value, str) else payload.decode("utf-8", "replace"))
