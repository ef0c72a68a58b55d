"""Fixtures for pytest: labs and the crash explorer, with their seed and bounds set from outside.

To be asked for by name, in the `conftest.py` at the root: ``pytest_plugins = ["engine.testing.pytest_plugin"]`` (or
``pytest -p engine.testing.pytest_plugin``). It is no entry point: pytest would then import the whole engine at each
start of any test run in the environment, before anything measures coverage.

The fixtures are plain functions, so that they go with whatever runs your async tests (pytest-asyncio, anyio).
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec
import pytest

from engine import Call, Workflow
from engine.errors import HoldfastError
from engine.testing.explorer import Bounds, explore
from engine.testing.lab import Lab, engine
from engine.testing.report import Report

__all__ = ["Explorer", "LabMaker", "holdfast_explorer", "holdfast_lab"]

_MARKER = (
    "holdfast(seed=0, schedules=300, ...): the seed of labs and of the crash explorer, and the explorer's bounds (the"
    "  fields of engine.testing.Bounds); the command line goes before it"
)


class LabMaker(Protocol):
    """What `holdfast_lab` is: `engine.testing.engine`, with the seed of the test."""

    def __call__(self, *workflows: Workflow[..., Any], **options: Any) -> AbstractAsyncContextManager[Lab]: ...


class Explorer(Protocol):
    """What `holdfast_explorer` is: `engine.testing.explore`, with the seed and the bounds of the test."""

    def __call__(self, call: Call[Any], **options: Any) -> Awaitable[Report]: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """See the marker."""
    group = parser.getgroup("holdfast", "workflows of Holdfast")
    group.addoption("--holdfast-seed", type=int, default=None, help="seed of labs and of the crash explorer")
    group.addoption("--holdfast-schedules", type=int, default=None, help="how many schedules the crash explorer plays")
    group.addoption("--holdfast-seconds", type=float, default=None, help="how long the crash explorer goes on, at most")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def holdfast_lab(request: pytest.FixtureRequest) -> LabMaker:
    """Makes labs: what `engine.testing.engine` is, with the seed of the test."""
    settings = _settings(request)

    def make(*workflows: Workflow[..., Any], **options: Any) -> AbstractAsyncContextManager[Lab]:
        return engine(*workflows, **{"seed": settings.get("seed", 0), **options})

    return make


@pytest.fixture
def holdfast_explorer(request: pytest.FixtureRequest) -> Explorer:
    """The crash explorer, with the seed and bounds of the test; findings fail it. See `engine.testing.explore`."""
    settings = _settings(request)
    seed = settings.pop("seed", 0)
    bounds = msgspec.structs.replace(Bounds(), **settings)

    async def run(call: Call[Any], **options: Any) -> Report:
        report = await explore(call, **{"seed": seed, "bounds": bounds, **options})
        report.raise_for_findings()
        return report

    return run


def _settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Of the markers, the nearest first; and of the command line, which goes before."""
    found: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("holdfast"))):
        found.update(marker.kwargs)
    for name in ("seed", "schedules", "seconds"):
        if (given := request.config.getoption(f"--holdfast-{name}")) is not None:
            found[name] = given
    known: set[str] = {"seed", *Bounds.__struct_fields__}
    if unknown := sorted(found.keys() - known):
        raise HoldfastError(f"@pytest.mark.holdfast has no {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return found
