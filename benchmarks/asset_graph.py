"""What it costs to define many assets, to say which are meant, and to bring them into order.

Each asset has a function and up to three others upstream of it. They are declared, wired into `Definitions`, the last
one is selected with all that it is made from, and put in order. By hand the same names and edges go through Python's
`graphlib.TopologicalSorter`. The ratio is seconds for all of that over seconds by hand.

Beside it stand the parts; the code versions of as many functions, which are read from source text; the plan to make all
of them, and that plan as single steps; the order alone, from edges that are there; and how the whole grows (an exponent
of 1 is linear).
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from report import Aim, Option, Report, exponent, options, publish, spread

from engine.assets import Asset, AssetState, AssetView, Definitions, DynamicKeys, Request, asset, expand
from engine.assets.code_versions import code_version_of
from engine.assets.graph import Graph
from engine.assets.planner import Facts, make_plan
from engine.assets.selection import World, select

SIZES = (
    Option("assets", 10_000, "assets; growth is looked at from a tenth of it"),
    Option("rounds", 5, "times that both are measured, in turn"),
)
PARTS = (0.1, 0.3, 1.0)
"""Numbers of assets whose growth is looked at, in parts of `assets`."""

Edges = dict[str, list[str]]


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Many assets, defined and put in order, against graphlib.", SIZES, arguments)
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        functions = _functions(given.assets, directory / "many_functions.py")
        rounds = [_measure(given.assets, functions) for _ in range(given.rounds)]
        sizes = [max(2, round(part * given.assets)) for part in PARTS]
        growth = [_measure(size, functions)["define_select_order_milliseconds"] for size in sizes]
        return publish(
            given,
            benchmark="asset_graph",
            question="What does it cost to define many assets and to bring them into order?",
            ratio=[each["define_select_order_milliseconds"] / each["by_hand_milliseconds"] for each in rounds],
            ratio_of="seconds to define, select and order / seconds of graphlib's TopologicalSorter on the same graph",
            aim=Aim(at_most=60.0),
            directory=directory,
            measured={
                **{key: spread(each[key] for each in rounds) for key in rounds[0]},
                "exponent_of_seconds": exponent(sizes, growth),
            },
        )


def _measure(count: int, functions: list[Callable[..., Any]]) -> dict[str, float]:
    edges = _edges(count)
    last = f"n{count - 1}"
    seconds: dict[str, float] = {}
    with _clocked(seconds, "by_hand"):
        by_hand = tuple(TopologicalSorter(edges).static_order())
    with _clocked(seconds, "graph_and_order"):
        order = Graph(edges).order
    with _clocked(seconds, "declare"):
        assets = [_declared(key, upstream, functions[place]) for place, (key, upstream) in enumerate(edges.items())]
    with _clocked(seconds, "wire"):
        definitions = Definitions(assets)
    with _clocked(seconds, "select"):
        world = World(definitions.specs, lambda key: definitions.node_of(key).name, definitions.graph, tuple)
        chosen = select([f"+{last}"], world)
    with _clocked(seconds, "order"):
        ordered = tuple(name for name in definitions.order if name in chosen)
    with _clocked(seconds, "code_versions"):
        versions = {code_version_of(each, "") for each in functions[:count]}
    facts = Facts(
        at=0,
        views={key: AssetView((AssetState(key=key, environment="prod"),)) for key in definitions.specs},
        code=dict.fromkeys(definitions.nodes, "1"),
        config=dict.fromkeys(definitions.nodes, ""),
        dynamic=DynamicKeys(),
    )
    with _clocked(seconds, "plan"):
        plan = make_plan(definitions, Request(), definitions.nodes, facts)
    with _clocked(seconds, "expand"):
        steps = expand(definitions, plan)
    assert len(versions) == count == plan.count == len(steps)
    assert set(by_hand) == set(order) == set(definitions.order)
    assert ordered[-1] == last
    whole = sum(seconds[part] for part in ("declare", "wire", "select", "order"))
    seconds["define_select_order"] = whole
    return {f"{part}_milliseconds": value * 1000 for part, value in seconds.items()}


def _edges(count: int) -> Edges:
    """Three upstream of each, near and far; the same in every run."""
    return {
        f"n{number}": list(
            dict.fromkeys(f"n{other}" for other in (number - 1, number // 2, number // 3) if other < number)
        )
        if number
        else []
        for number in range(count)
    }


def _declared(key: str, upstream: list[str], fn: Callable[..., Any]) -> Asset[..., Any]:
    return asset(key=key, deps=upstream, group="many", tags=["daily"], owners=["ann"])(fn)


def _functions(count: int, path: Path) -> list[Callable[..., Any]]:
    """Functions of a module with a helper that all of them name."""
    texts = (
        f'def f{number}(scale: int = {number}) -> int:\n    """One."""\n    return helper(scale)\n'
        for number in range(count)
    )
    path.write_text("def helper(value: int) -> int:\n    return value + 1\n" + "".join(texts), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [getattr(module, f"f{number}") for number in range(count)]


@contextmanager
def _clocked(seconds: dict[str, float], part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - began


if __name__ == "__main__":
    main()
