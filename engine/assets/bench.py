"""What a function of an asset runs with: its definitions, the storage, a clock. It knows no store, and no run.

It is the same in the engine's process and in a worker process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.assets.code_versions import code_version_of, with_modules
from engine.assets.definitions import Definitions
from engine.assets.nodes import Node
from engine.assets.values import Config
from engine.errors import AssetError
from engine.storage import Storage
from eventstore import Clock

__all__ = ["Bench"]


class Bench:
    """See the module."""

    def __init__(self, definitions: Definitions, storage: Storage, clock: Clock) -> None:
        self.definitions = definitions
        self.storage = storage
        self.clock = clock
        self._code: dict[str, str] = {}

    def code_version(self, node: Node) -> str:
        """Of the function that makes it, declared or computed. Raises `AssetDefinitionError`."""
        found = self._code.get(node.name)
        if found is None:
            asset = node.asset
            found = asset.code_version or ("" if asset.fn is None else code_version_of(asset.fn, asset.where))
            found = with_modules(found, asset.modules, asset.where)
            self._code[node.name] = found
        return found

    def config_of(self, node: Node, given: Mapping[str, Any]) -> Config | None:
        """What a function's configuration is in a run. Raises `AssetError` for what it does not take."""
        if node.wiring.config is None:
            if given:
                raise AssetError(f"{node.name} takes no configuration, and was given {', '.join(sorted(given))}")
            return None
        _, kind = node.wiring.config
        try:
            return msgspec.convert(dict(given), kind)
        except msgspec.ValidationError as error:
            raise AssetError(f"the configuration of {node.name} does not fit {kind.__name__}: {error}") from None
