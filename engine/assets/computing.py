"""One partition of what one function makes: what it reads is read, the function called, what it returned written.

Wherever that is: it asks nothing of a store, and says nothing to one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from engine.assets.bench import Bench
from engine.assets.definition import AssetSpec
from engine.assets.giving import arguments_for, context_for
from engine.assets.metadata import checked_metadata
from engine.assets.nodes import Node
from engine.assets.plans import Begun, Made, MadeOut
from engine.assets.troubles import watched
from engine.assets.values import AssetContext, Materialized, Output
from engine.errors import AssetError

__all__ = ["compute", "written"]

_EXTERNAL: Final = "external"


def compute(shop: Bench, node: Node, begun: Begun, run_id: str) -> Made:
    """Call a plain function. Blocks. Raises what it raises, `AssetError`, and what the storage raises."""
    fn = node.asset.fn
    context = context_for(shop, node, begun, run_id)
    with watched(fn, context):
        value = None if fn is None else fn(**arguments_for(shop, node, begun, context))
        return written(shop, node, context, value)


def written(shop: Bench, node: Node, context: AssetContext, value: Any) -> Made:
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


def _written_out(shop: Bench, node: Node, spec: AssetSpec, context: AssetContext, value: Any) -> MadeOut:
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
