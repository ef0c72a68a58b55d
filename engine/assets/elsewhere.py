"""Functions of assets in worker processes (``executor="processes"``).

A worker process imports what it runs, so the task that it is given is a function of this module, with the address of
the definitions as its argument: a module and the name that they have in it. What is injected is made there anew, by
importing that module: resources, and what secrets are looked up in.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from msgspec import Struct

from engine import Task, attempt
from engine.assets.bench import Bench
from engine.assets.computing import compute
from engine.assets.definitions import Definitions
from engine.assets.keys import task_name
from engine.assets.nodes import Node
from engine.assets.plans import Begun, Made
from engine.errors import AssetDefinitionError, AssetError
from engine.storage import Storage
from eventstore import SystemClock

__all__ = ["PROCESSES", "Address", "Elsewhere", "address_of", "make_elsewhere"]

PROCESSES: Final = "processes"
"""The executor that this is for."""


class Address(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where definitions are found. `storage`: the folder where values lie; "": what the definitions say."""

    module: str
    name: str
    file: str = ""
    storage: str = ""


class Elsewhere(Task[..., Made]):
    """The task that makes what a node makes in a worker process. It is called with what has begun, as others are."""

    def __init__(self, node: Node, address: Address) -> None:
        super().__init__(make_elsewhere, name=task_name(node.name), options=node.asset.options)
        self.address = address

    def __call__(self, begun: Begun) -> Any:
        """A call, not yet begun."""
        return super().__call__(self.address, begun)


def address_of(shop: Bench, node: Node) -> Address:
    """Raises `AssetDefinitionError` for definitions that no other process could find."""
    where = f"{node.asset.where}: asset {node.name} has executor={PROCESSES!r}, and"
    definitions = shop.definitions
    for module, loaded in sorted(sys.modules.items()):
        members = vars(loaded) if isinstance(loaded, ModuleType) and module != "__main__" else {}
        name = next((name for name, value in list(members.items()) if value is definitions), None)
        if name is not None:
            file = getattr(loaded, "__file__", None) or ""
            return Address(module=module, name=name, file=file, storage=_storage(shop, where))
    raise AssetDefinitionError(
        f"{where} a worker process finds its Definitions by their name at the top of a module, where these are not:"
        " write definitions = Definitions([...]) there, in a file that is imported and not the program that is started"
    )


def _storage(shop: Bench, where: str) -> str:
    own = shop.definitions.storage
    name = shop.storage.name
    if Path(name).is_absolute():  # whatever folder the other process is in
        return name
    if own is shop.storage or (own if isinstance(own, Storage) else Storage(own)).name == name:
        return ""
    raise AssetDefinitionError(
        f"{where} a worker process cannot be told of the storage {name}: say it in Definitions(storage=...)"
    )


def make_elsewhere(address: Address, begun: Begun) -> Made:
    """Make it, here: in a worker process. Raises `AssetError` when the code here is another than where it was begun."""
    shop = _bench(address)
    node = shop.definitions.node_of(begun.step.node)
    if shop.code_version(node) != begun.code_version:
        raise AssetError(
            f"{node.asset.where}: the code of {node.name} has changed since its engine was started: start it again"
        )
    return compute(shop, node, begun, attempt().run_id)


@lru_cache(maxsize=16)
def _bench(address: Address) -> Bench:
    definitions = getattr(_module(address), address.name, None)
    if not isinstance(definitions, Definitions):
        raise AssetError(f"a worker process finds no Definitions {address.name!r} in {address.file or address.module}")
    given = address.storage or definitions.storage
    return Bench(definitions, given if isinstance(given, Storage) else Storage(given), SystemClock())


def _module(address: Address) -> ModuleType:
    if address.module in sys.modules:
        return sys.modules[address.module]
    found = importlib.util.find_spec(address.module)
    if not address.file or (found is not None and found.origin == address.file):
        return importlib.import_module(address.module)
    # A file that was loaded by its path, as the command line does, is found by its path again.
    spec = importlib.util.spec_from_file_location(address.module, address.file)
    if spec is None or spec.loader is None:
        raise AssetError(f"{address.file} is not a Python file")
    module = sys.modules[address.module] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[address.module]
        raise
    return module
