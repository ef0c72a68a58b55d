"""The workflows that an engine serves, by name and version: which of them a run is of, and which begins new ones.

A workflow may be there in several versions, under one name. A run stays on the version that it began with. The newest
is the one that was given last; it begins child runs that are asked for by name, and epochs. A run that began before its
workflow had versions is of the definition without one, or else of the first that was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from engine.core.call import Definition
from engine.core.events import ContinuedAsNew
from engine.core.instance import Instance
from engine.errors import DefinitionError, UnknownWorkflow
from engine.runtime.streams import VERSION, WORKFLOW
from engine.workflows import Workflow
from engine.workflows.reach import named
from eventstore.port import Scalar

__all__ = ["Served", "served"]


class Served(dict[str, Definition[..., Any]]):
    """The newest definition by name; `versions` holds the others, too, by name and version, the first given first."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: dict[str, dict[str, Definition[..., Any]]] = {}

    def add(self, definition: Definition[..., Any], *, newest: bool) -> bool:
        """One more. False when there is one of its name and version, which stays."""
        versions = self.versions.setdefault(definition.name, {})
        if definition.version in versions:
            return False
        versions[definition.version] = definition
        if newest or definition.name not in self:
            self[definition.name] = definition
        return True

    def every(self) -> Iterator[Definition[..., Any]]:
        """All of them, in all of their versions."""
        for name in self:
            yield from self.versions[name].values()

    def find(self, name: str, version: str) -> Definition[..., Any] | None:
        """The definition that a run of this workflow and version is of."""
        versions = self.versions.get(name, {}) if name in self else {}
        return versions.get(version) or (None if version else next(iter(versions.values()), None))

    def require(self, name: str, version: str) -> Definition[..., Any]:
        """As `find`. Raises `UnknownWorkflow` when there is none."""
        found = self.find(name, version)
        if found is None:
            said = f"workflow {name!r}" + (f" in version {version!r}" if version else "")
            raise UnknownWorkflow(
                f"{said} is not among this engine's workflows ({', '.join(sorted(self)) or 'none'}):"
                " give it to Engine(workflows=[...])"
            )
        return found

    def of(self, attributes: Mapping[str, Scalar]) -> Definition[..., Any] | None:
        """The definition that the run of a stream with these attributes is of."""
        return self.find(str(attributes.get(WORKFLOW)), str(attributes.get(VERSION) or ""))

    def groups(self, names: Iterable[str]) -> Iterator[tuple[tuple[str, ...], tuple[str | None, ...]]]:
        """Workflows that are there in the same versions, and these; None: runs without one, which all of them take."""
        by_versions: dict[frozenset[str], list[str]] = {}
        for name in names:
            by_versions.setdefault(frozenset(self.versions[name]) - {""}, []).append(name)
        for versions, alike in by_versions.items():
            yield tuple(alike), (None, *sorted(versions))

    def next_of(self, before: Instance) -> Definition[..., Any]:
        """What a run that continues as new goes on as: the newest, unless it has said which."""
        outcome, name = before.outcome, before.definition.name
        assert isinstance(outcome, ContinuedAsNew)
        found = self.find(name, outcome.version) if outcome.pinned else self.get(name)
        return found or before.definition


def served(workflows: Iterable[Workflow[..., Any]], *, reach: bool) -> Served:
    """These workflows; with `reach` also those that their code names.

    Raises `DefinitionError` for what is none, for two of one name and version, and for types that cannot be recorded,
    and `DeterminismError` for code that would do something else at a replay.
    """
    found = Served()
    given = list(workflows)
    for definition in given:
        if not isinstance(definition, Workflow):
            raise DefinitionError(f"Engine(workflows=[...]) takes what @workflow makes, not {definition!r}")
        if not found.add(definition, newest=True) and found.versions[definition.name][definition.version] != definition:
            same = f" and have version {definition.version!r}" if definition.version else ""
            raise DefinitionError(
                f"two workflows are named {definition.name!r}{same}: give one another @workflow(name=...),"
                " or another @workflow(version=...) if it is a newer version of the same"
            )
        # Made now, so that annotations which cannot be recorded are refused before any run.
        _ = definition.arguments, definition.result
    if found:  # imported late: a client that has no workflows reads no source
        import_module("engine.workflows.screening").refuse(list(found.every()))
    for each in named(given) if reach else ():
        if isinstance(each, Workflow):
            found.add(each, newest=False)
    return found
