"""The tasks of a step: the one that makes an asset, and one for each check, called after what they make and check.

A plain function runs in a thread, or a worker process, with all that is read and written for it; of a coroutine
function only the reading and writing runs in a thread.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from engine import Task, attempt
from engine.assets.checks import result_of
from engine.assets.computing import compute, written
from engine.assets.elsewhere import PROCESSES, Elsewhere, address_of
from engine.assets.events import CheckOutcome
from engine.assets.giving import arguments_for, check_arguments_for, check_context_for, context_for
from engine.assets.keys import task_name
from engine.assets.nodes import BoundCheck, Node
from engine.assets.plans import Begun, Made, MadeOut
from engine.assets.troubles import ERROR_CHARACTERS, place_of, text_of, watched
from engine.assets.workshop import Workshop
from engine.errors import AssetError

__all__ = ["check_task", "make_task"]


def make_task(shop: Workshop, node: Node) -> Task[[Begun], Made]:
    """The task that makes what this node makes, with its author's options."""
    fn = node.asset.fn
    if node.asset.options.executor == PROCESSES:
        return Elsewhere(node, address_of(shop, node))
    making: Callable[[Begun], Any]
    if inspect.iscoroutinefunction(fn):

        async def making(begun: Begun) -> Made:
            context = context_for(shop, node, begun, attempt().run_id)
            with watched(fn, context):
                given = await asyncio.to_thread(arguments_for, shop, node, begun, context)
                value = await fn(**given)
                return await asyncio.to_thread(written, shop, node, context, value)

    else:

        def making(begun: Begun) -> Made:
            return compute(shop, node, begun, attempt().run_id)

    return Task(making, name=task_name(node.name), options=node.asset.options)


def check_task(shop: Workshop, node: Node, key: str, bound: BoundCheck) -> Task[[Begun, Made], CheckOutcome]:
    """The task that asks one check of what was made. It reads the value as it was written."""
    fn = bound.check.fn
    asking: Callable[[Begun, Made], Any]
    if inspect.iscoroutinefunction(fn):

        async def asking(begun: Begun, made: Made) -> CheckOutcome:
            began = shop.clock.now()
            where = context_for(shop, node, begun, attempt().run_id, key)
            try:
                with watched(fn, where):
                    context = check_context_for(node, key, begun, _out(made, key), where.run_id)
                    given = await asyncio.to_thread(check_arguments_for, shop, node, bound, begun, context, where=where)
                    found = await fn(**given)
            except Exception as error:
                return _raised(shop, bound, key, error, began)
            return _outcome(shop, bound, key, found, began)

    else:

        def asking(begun: Begun, made: Made) -> CheckOutcome:
            began = shop.clock.now()
            where = context_for(shop, node, begun, attempt().run_id, key)
            try:
                with watched(fn, where):
                    context = check_context_for(node, key, begun, _out(made, key), where.run_id)
                    found = fn(**check_arguments_for(shop, node, bound, begun, context, where=where))
            except Exception as error:
                return _raised(shop, bound, key, error, began)
            return _outcome(shop, bound, key, found, began)

    return Task(asking, name=f"check:{key.replace('/', '.')}:{bound.check.name}")


# ------------------------------------------------------------------------------------------------ what came of it


def _out(made: Made, key: str) -> MadeOut:
    return next(each for each in made.outs if each.key == key)


def _outcome(shop: Workshop, bound: BoundCheck, key: str, found: Any, began: int) -> CheckOutcome:
    try:
        result = result_of(found)
    except AssetError as error:
        return _raised(shop, bound, key, error, began)
    return CheckOutcome(
        name=bound.check.name,
        asset=key,
        passed=result.passed,
        severity=bound.check.severity,
        description=result.description[:ERROR_CHARACTERS],
        metadata=result.metadata,
        rows=tuple(result.rows),
        seconds=(shop.clock.now() - began) / 1_000_000,
    )


def _raised(shop: Workshop, bound: BoundCheck, key: str, error: Exception, began: int) -> CheckOutcome:
    return CheckOutcome(
        name=bound.check.name,
        asset=key,
        passed=False,
        severity=bound.check.severity,
        error=text_of(error),
        where=place_of(error),
        seconds=(shop.clock.now() - began) / 1_000_000,
    )
