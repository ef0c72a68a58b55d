"""The tasks of a step: the one that makes an asset, and one for each check, called after what they make and check.

A plain function runs in a thread, with all that is read and written for it; of a coroutine function only the reading
and writing does.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from engine import Task, attempt
from engine.assets.checks import result_of
from engine.assets.definition import AssetSpec
from engine.assets.events import CheckOutcome
from engine.assets.giving import arguments_for, check_arguments_for, check_context_for, context_for
from engine.assets.keys import task_name
from engine.assets.metadata import checked_metadata
from engine.assets.nodes import BoundCheck, Node
from engine.assets.plans import Begun, Made, MadeOut
from engine.assets.troubles import ERROR_CHARACTERS, place_of, text_of, watched
from engine.assets.values import AssetContext, Materialized, Output
from engine.assets.workshop import Workshop
from engine.errors import AssetError

__all__ = ["check_task", "make_task"]

_EXTERNAL: Final = "external"


def make_task(shop: Workshop, node: Node) -> Task[[Begun], Made]:
    """The task that makes what this node makes, with its author's options."""
    fn = node.asset.fn
    making: Callable[[Begun], Any]
    if inspect.iscoroutinefunction(fn):

        async def making(begun: Begun) -> Made:
            context = context_for(shop, node, begun, attempt().run_id)
            with watched(fn, context):
                given = await asyncio.to_thread(arguments_for, shop, node, begun, context)
                value = await fn(**given)
                return await asyncio.to_thread(_written, shop, node, context, value)

    else:

        def making(begun: Begun) -> Made:
            context = context_for(shop, node, begun, attempt().run_id)
            with watched(fn, context):
                value = None if fn is None else fn(**arguments_for(shop, node, begun, context))
                return _written(shop, node, context, value)

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


def _written(shop: Workshop, node: Node, context: AssetContext, value: Any) -> Made:
    """Write what a function returned. Blocks. Raises `AssetError` when it is not what was defined."""
    values = _values(node, value)
    outs = tuple(
        _written_out(shop, node, spec, context, each) for spec, each in zip(node.asset.outs, values, strict=True)
    )
    return Made(outs=outs)


def _values(node: Node, value: Any) -> Sequence[Any]:
    asset = node.asset
    if not asset.several:
        return [value]
    names = asset.names
    if isinstance(value, Mapping):
        if set(value) != set(names):
            raise AssetError(
                f"{asset.where}: {asset.fn_name} returned {sorted(map(str, value))}, and outs names {sorted(names)}"
            )
        return [value[name] for name in names]
    if isinstance(value, tuple) and len(value) == len(names):
        return value
    raise AssetError(
        f"{asset.where}: {asset.fn_name} makes {len(names)} assets, so it returns a mapping of {', '.join(names)} to"
        f" values, or a tuple in that order, not {type(value).__name__}"
    )


def _written_out(shop: Workshop, node: Node, spec: AssetSpec, context: AssetContext, value: Any) -> MadeOut:
    where = f"{node.asset.where}: asset {spec.key}"
    own = value.metadata if isinstance(value, Output | Materialized) else {}
    metadata = {**context.metadata, **checked_metadata(own, where)}
    given = value.data_version if isinstance(value, Output | Materialized) else None
    if spec.format == _EXTERNAL:
        if not (value is None or isinstance(value, Materialized | str)):
            raise AssetError(
                f"{where} has io='external': its function writes it by itself and returns Materialized(...), its data"
                f" version, or nothing, not {type(value).__name__}"
            )
        said = value if isinstance(value, str) else given
        version = said or _only_once(node, context)
        return MadeOut(key=spec.key, data_version=version, metadata=metadata)
    if isinstance(value, Materialized):
        raise AssetError(f"{where} returned Materialized(...): that is for io='external'")
    plain, annotation = (value.value, Any) if isinstance(value, Output) else (value, node.returns_of(spec.key))
    stored = shop.storage.blocking.write(plain, annotation, format=spec.stored_as)
    return MadeOut(key=spec.key, data_version=given or stored.data_version, stored=stored, metadata=metadata)


def _only_once(node: Node, context: AssetContext) -> str:
    """The data version of what nobody tells apart: new in each run; of what is only observed always the same."""
    return "" if node.asset.external else f"run:{context.run_id}"


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
